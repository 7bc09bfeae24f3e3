package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

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
		Long: `Show a node, its data and its cluster on one page. Each member that is alive is
asked at its own address for its Merkle root: equal roots mean equal data.`,
		Args: args(cobra.NoArgs),
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
		r.askRoots(ctx, c.URL(), s.Members)
		if r.json() {
			return printJSON(cmd.OutOrStdout(), s)
		}
		return s.print(cmd.OutOrStdout())
	}
	return cmd
}

// askTimeout bounds the asking of one member.
const askTimeout = 2 * time.Second

// askRoots asks the members that are alive for their roots: what the first node
// knows of them is as old as its last comparison with each. The root of one that
// does not answer is empty. first is the URL of the node that was asked.
func (r *remote) askRoots(ctx context.Context, first string, members []client.Member) {
	scheme, _, _ := strings.Cut(first, "://") // all have TLS, or none
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range members {
		m := &members[i]
		m.Root = ""
		if m.State != "alive" {
			continue
		}
		wg.Go(func() {
			c, err := r.connectTo(scheme + "://" + m.Address)
			if err != nil {
				return
			}
			defer c.Close()
			if root, err := c.MerkleRoot(ctx); err == nil {
				m.Root = root.Root
			}
		})
	}
	wg.Wait()
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
