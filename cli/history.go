package cli

import (
	"github.com/spf13/cobra"

	"kvs/client"
)

func newHistory() *cobra.Command {
	var write writeFlags
	var restore string
	cmd := &cobra.Command{
		Use:   "history KEY",
		Short: "List the versions of a key, or write an older one again",
		Long: `List the versions of a key that the node still has, newest first: the current
one, older ones (as many as revision_limit says), and those that lost a conflict.
"kvs get KEY --revision UUID" prints the value of one; --restore writes it again,
as the newest.`,
		Args: args(cobra.ExactArgs(1)),
	}
	r := remoteFlags(cmd)
	write.add(cmd)
	cmd.Flags().StringVar(&restore, "restore", "", "write the version with this UUID again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		if restore != "" {
			written, err := c.Restore(cmd.Context(), args[0], restore, client.PutOptions{IfMatch: write.ifMatch, Replicas: write.replicas()})
			if err != nil {
				return err
			}
			return printWritten(cmd.OutOrStdout(), r, args[0], written)
		}
		list, err := c.Revisions(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), list)
		}
		row, flush := table(cmd.OutOrStdout(), "VERSION", "WRITTEN", "NODE", "")
		for _, v := range list {
			row(v.UUID, when(v.Timestamp), v.Origin, note(v))
		}
		return flush()
	}
	return cmd
}

func note(v client.Revision) string {
	switch {
	case v.Deleted && v.Conflict:
		return "deleted, lost a conflict"
	case v.Deleted:
		return "deleted"
	case v.Conflict:
		return "lost a conflict"
	}
	return ""
}
