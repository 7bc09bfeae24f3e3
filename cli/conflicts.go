package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newConflicts() *cobra.Command {
	var settle string
	cmd := &cobra.Command{
		Use:   "conflicts [PREFIX]",
		Short: "List the versions that lost a conflict",
		Long: `List the versions that lost: two nodes had written a key without knowing of each
other, the later version won on all nodes, and the other is kept here.

To bring a loser back, put its value again; either way, --settle then takes it
off the list.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.Flags().StringVar(&settle, "settle", "", "take the conflict with this UUID off the list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		prefix := ""
		if len(args) > 0 {
			prefix = args[0]
		}
		if settle == "" {
			return listConflicts(cmd, c, r, prefix)
		}
		if prefix != "" {
			return usageError{errors.New("--settle takes no PREFIX")}
		}
		if err := c.Settle(cmd.Context(), settle); err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), map[string]string{"settled": settle})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "settled %s\n", settle)
		return err
	}
	return cmd
}

func listConflicts(cmd *cobra.Command, c *client.Client, r *remote, prefix string) error {
	out := cmd.OutOrStdout()
	if r.json() {
		for conflict, err := range c.Conflicts(cmd.Context(), prefix) {
			if err == nil {
				err = printJSON(out, conflict)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	row, flush := table(out, "KEY", "LOST VERSION", "WRITTEN", "VALUE")
	n := 0
	for conflict, err := range c.Conflicts(cmd.Context(), prefix) {
		if err != nil {
			flush() // what was listed so far; the first error is the one to tell
			return err
		}
		n++
		value := clip(string(conflict.Data), 60)
		if conflict.Deleted {
			value = "(deleted)"
		}
		row(conflict.Key, conflict.UUID, when(conflict.Timestamp), value)
	}
	if n == 0 {
		_, err := fmt.Fprintln(out, "no conflicts")
		return err
	}
	return flush()
}

// clip shortens text to n characters for a table.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
