package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newMembers() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the nodes of the cluster",
		Long: `List every node that ever joined the cluster and was not removed, as the asked
node sees them. BEHIND is how many commits of the asked node a member has not
acknowledged. ROOT is that of the asked node now, and of the others when it last
compared with them: "kvs status" asks each whether all hold the same.`,
		Args: args(cobra.NoArgs),
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		members, err := c.Members(cmd.Context())
		if err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), members)
		}
		row, flush := table(cmd.OutOrStdout(), "ID", "ADDRESS", "STATE", "MODE", "BEHIND", "LAST SEEN", "ROOT")
		for _, m := range members {
			row(m.ID, m.Address, m.State, m.Mode, strconv.FormatUint(m.Behind, 10), ago(m.LastSeen), m.Root[:min(12, len(m.Root))])
		}
		return flush()
	}
	cmd.AddCommand(
		membersCall("join ADDRESS", "Make the node join the cluster of the node at host:port", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *client.Client, args []string) (string, error) {
				return "joined " + args[0], c.Join(cmd.Context(), args[0])
			}),
		membersCall("leave", "Take the node out of the cluster for good and stop it", cobra.NoArgs,
			func(cmd *cobra.Command, c *client.Client, _ []string) (string, error) {
				return "the node is leaving", c.Leave(cmd.Context())
			}),
		membersCall("remove ID", "Take another node, by id or uuid, out of the cluster for good", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *client.Client, args []string) (string, error) {
				return "removed " + args[0], c.Remove(cmd.Context(), args[0])
			}),
	)
	return cmd
}

// membersCall makes a subcommand that does one thing and says so.
func membersCall(use, short string, check cobra.PositionalArgs,
	call func(*cobra.Command, *client.Client, []string) (string, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args(check)}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		done, err := call(cmd, c, args)
		if err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), map[string]string{"done": done})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
		return err
	}
	return cmd
}

// ago shows Unix milliseconds as an age; clocks that differ a little show 0s.
func ago(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return max(0, time.Since(time.UnixMilli(ms))).Round(time.Second).String() + " ago"
}
