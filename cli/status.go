package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kvs/client"
)

// status is what one node says of itself and its cluster.
type status struct {
	URL     string            `json:"url"`
	Health  client.Health     `json:"health"`
	Merkle  client.MerkleRoot `json:"merkle"`
	Members []client.Member   `json:"members"`
}

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a node, its data and its cluster on one page",
		Args:  args(cobra.NoArgs),
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx := cmd.Context()
		s := status{URL: c.URL()}
		if s.Health, err = c.Health(ctx); err != nil {
			return err
		}
		if s.Merkle, err = c.MerkleRoot(ctx); err != nil {
			return err
		}
		if s.Members, err = c.Members(ctx); err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), s)
		}
		return s.print(cmd.OutOrStdout())
	}
	return cmd
}

func (s status) print(out io.Writer) error {
	alive, equal := 0, 0
	for _, m := range s.Members {
		if m.State == "alive" {
			alive++
			if m.Root == s.Merkle.Root {
				equal++
			}
		}
	}
	agree := fmt.Sprintf("%d of %d alive members have this root", equal, alive)
	if equal == alive {
		agree = "the same on all alive members"
	}
	_, err := fmt.Fprintf(out, `node     %s at %s
mode     %s
members  %d of %d alive
records  %d, with conflicts, deleted keys and the store's own
root     %s, %s
`, s.Health.NodeID, s.URL, s.Health.Mode, alive, len(s.Members), s.Merkle.Count, s.Merkle.Root, agree)
	return err
}
