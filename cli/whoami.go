package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newWhoami() *cobra.Command {
	cmd := onNode("whoami", "Show whom a node takes you for", cobra.NoArgs,
		func(cmd *cobra.Command, c *client.Client, r *remote, _ []string) error {
			me, err := c.Me(cmd.Context())
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), me)
			}
			pairs := []string{"subject", me.Subject}
			if me.Nickname != "" {
				pairs = append(pairs, "nickname", visible(me.Nickname))
			}
			pairs = append(pairs, named("group", me.Groups, nil)...)
			pairs = append(pairs, "scopes", strings.Join(me.Scopes, ","))
			if me.ID != "" {
				pairs = append(pairs, "token", me.ID, "expires", expiry(me.Expires))
			}
			return details(cmd.OutOrStdout(), pairs...)
		})
	cmd.Long = `Show whom a node takes you for, by KVS_TOKEN or by the token that commands make for
themselves where this machine has the cluster secret.`
	return cmd
}
