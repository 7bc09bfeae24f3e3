package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newHealth() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a node whether it serves",
		Long:  `Ask a node whether it serves. The exit code is 0 if it does, and 5 if it does not answer.`,
		Args:  args(cobra.NoArgs),
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		h, err := c.Health(cmd.Context())
		if err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), h)
		}
		mode := h.Mode
		if h.Syncing != nil {
			mode = fmt.Sprintf("syncing (%d of %s)", h.Syncing.Done, count(h.Syncing.Total, "record"))
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: node %s is %s and sees %s, itself included\n",
			h.Status, h.NodeID, mode, count(h.MemberCount, "live member"))
		return err
	}
	return cmd
}

// count writes a number with its noun.
func count[N int | int64 | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
