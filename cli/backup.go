package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/server"
)

func newBackup() *cobra.Command {
	var kind string
	cmd := onNode("backup", "Make a backup of a node, in its backup_path", cobra.NoArgs,
		func(cmd *cobra.Command, c *client.Client, r *remote, _ []string) error {
			if kind != "full" && kind != "incremental" {
				return usagef("--type takes full or incremental, not %q", kind)
			}
			b, err := c.MakeBackup(cmd.Context(), kind)
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), b)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "made %s: %s, %s, up to sequence %d\n", b.Name, count(b.Records, "record"), size(b.Size), b.Sequence)
			if err == nil && kind != b.Type {
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "it is a full one: there is none here that an incremental one could follow\n")
			}
			if b.Damaged > 0 {
				err = errors.Join(err, fmt.Errorf("%s could not be read by the node, and the backup lacks them; the node's log names them", count(b.Damaged, "record")))
			}
			return err
		})
	cmd.Long = `Make a backup of the node that is asked: everything at one moment, written into its
backup_path, read back and verified. It is made even if this command is
interrupted; "kvs backup ls" shows when it is there.

An incremental one holds what changed since the last backup. The node makes them
by itself, by its backup_schedule, and removes those older than backup_retention.

"kvs restore" brings a backup back.`
	cmd.Flags().StringVar(&kind, "type", "full", "full or incremental")
	cmd.AddCommand(newBackupLs(), newBackupVerify())
	return cmd
}

func newBackupLs() *cobra.Command {
	return onNode("ls", "List the backups in a node's backup_path, oldest first", cobra.NoArgs,
		func(cmd *cobra.Command, c *client.Client, r *remote, _ []string) error {
			list, err := c.Backups(cmd.Context())
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), list)
			}
			row, flush := table(cmd.OutOrStdout(), "NAME", "NODE", "CREATED", "TYPE", "RECORDS", "SIZE", "SEQUENCE", "SINCE")
			for _, b := range list {
				since := "-"
				if b.Since > 0 {
					since = strconv.FormatUint(b.Since, 10)
				}
				row(visible(b.Name), visible(b.Node), when(b.Created), visible(b.Type), strconv.FormatUint(b.Records, 10), size(b.Size), strconv.FormatUint(b.Sequence, 10), since)
			}
			return flush()
		})
}

func newBackupVerify() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Read backups as a whole and tell whether they are as they were written",
		Args:  args(cobra.MinimumNArgs(1)),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text for people, or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if output != "text" && output != "json" {
			return usagef("--output takes text or json, not %q", output)
		}
		var failed []error
		for _, path := range args {
			b, err := server.VerifyBackup(cmd.Context(), path)
			switch {
			case cmd.Context().Err() != nil:
				return cmd.Context().Err()
			case err != nil:
				failed = append(failed, err)
			case output == "json":
				err = printJSON(cmd.OutOrStdout(), b)
			default:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %s of %s at %s, %s, %s\n", path, b.Type, b.Node, when(b.Created), count(b.Records, "record"), size(b.Size))
			}
			if err != nil && len(failed) == 0 {
				return err
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}

// size shows a number of bytes.
func size(bytes int64) string {
	const kib = 1 << 10
	if bytes < kib {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/kib, 0
	for value >= kib && unit < 3 {
		value, unit = value/kib, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit])
}
