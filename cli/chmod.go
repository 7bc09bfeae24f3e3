package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kvs/auth"
	"kvs/client"
)

func newStat() *cobra.Command {
	cmd := onNode("stat KEY", "Show the metadata of a key", cobra.ExactArgs(1),
		func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
			m, err := c.Metadata(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), m)
			}
			kind := m.ContentType
			if kind == "" {
				kind = "JSON"
			}
			return details(cmd.OutOrStdout(), "key", args[0], "version", m.UUID, "written", when(m.Timestamp), "owner", m.Owner,
				"group", m.Group, "mode", m.Mode, "expires", expiry(m.ExpiresAt), "size", count(m.Size, "byte"), "type", kind, "node", m.Origin)
		})
	cmd.Long = `Show the metadata of a key: its owner, group and mode, when it was written and
expires, its size and type, and the node that took it.`
	return cmd
}

func newChmod() *cobra.Command {
	return metadataCommand("chmod MODE KEY", "Set who may do what with a key", `Set the rights of a key. MODE has three parts, for the owner, the group and all
others, and in each the letters cdwr (create below it, delete, write, read) or a
dash for what is not allowed:

  kvs chmod cdwr:--wr:---r notes/7     all read, the group writes too
  kvs chmod cdwr:----:---- notes/7     the owner alone

The owner may change it, and whoever has the admin scope. Put -- before a MODE
that begins with a dash.`,
		func(mode string) (client.MetadataChange, error) {
			_, err := auth.ParseMode(mode)
			return client.MetadataChange{Mode: &mode}, err
		})
}

func newChown() *cobra.Command {
	return metadataCommand("chown OWNER[:GROUP] KEY", "Give a key another owner or group", `Give a key another owner, group or both, each by UUID or by a nickname that only
one has:

  kvs chown Ada notes/7          another owner
  kvs chown Ada:staff notes/7    another owner and group
  kvs chown :staff notes/7       another group`,
		func(who string) (change client.MetadataChange, err error) {
			owner, group, both := strings.Cut(who, ":")
			if owner != "" {
				change.Owner = &owner
			}
			if both && group != "" {
				change.Group = &group
			}
			if both && group == "" || owner == "" && group == "" {
				return change, fmt.Errorf("%q is not OWNER, OWNER:GROUP or :GROUP", who)
			}
			return change, nil
		})
}

// metadataCommand makes a command of a change and a key.
func metadataCommand(use, short, long string, parse func(string) (client.MetadataChange, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: args(cobra.ExactArgs(2))}
	r := remoteFlags(cmd)
	var write writeFlags
	write.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := parse(args[0])
		if err != nil {
			return usageError{err}
		}
		change.IfMatch, change.Replicas = write.ifMatch, write.replicas()
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		written, err := c.SetMetadata(cmd.Context(), args[1], change)
		if err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), written)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (version %s)\n", args[1], args[0], written.UUID)
		return err
	}
	return cmd
}
