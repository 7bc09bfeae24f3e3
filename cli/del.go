package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newDel() *cobra.Command {
	var write writeFlags
	cmd := &cobra.Command{
		Use:     "del KEY",
		Aliases: []string{"delete", "rm"},
		Short:   "Delete a key",
		Args:    args(cobra.ExactArgs(1)),
	}
	r := remoteFlags(cmd)
	write.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		o := client.DeleteOptions{IfMatch: write.ifMatch, Replicas: write.replicas()}
		if err := c.Delete(cmd.Context(), args[0], o); err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), map[string]string{"deleted": args[0]})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", args[0])
		return err
	}
	return cmd
}
