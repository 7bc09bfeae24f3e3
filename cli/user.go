package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Work on users",
		Long: `Work on users. A user has a UUID, by which it owns values and is a member of
groups, and a nickname, by which these commands also take it as long as only one
has it. It comes in by tokens: "kvs token create --user".`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		onNode("add NICKNAME", "Make a user and print its UUID", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
				id, err := c.AddUser(cmd.Context(), args[0])
				return added(cmd, r, id, err)
			}),
		onNode("ls", "List the users", cobra.NoArgs, listUsers),
		onNode("show USER", "Show a user, by UUID or nickname", cobra.ExactArgs(1), showUser),
		onNode("rm USER", "Delete a user, by UUID or nickname, for ever", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
				if err := c.DeleteUser(cmd.Context(), args[0]); err != nil {
					return err
				}
				return said(cmd, r, "deleted", args[0])
			}),
	)
	return cmd
}

// added prints the UUID of what was made, alone.
func added(cmd *cobra.Command, r *remote, id string, err error) error {
	if err != nil {
		return err
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), map[string]string{"uuid": id})
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), id)
	return err
}

func listUsers(cmd *cobra.Command, c *client.Client, r *remote, _ []string) error {
	users, err := c.Users(cmd.Context())
	if err != nil {
		return err
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), users)
	}
	row, flush := table(cmd.OutOrStdout(), "UUID", "NICKNAME", "CREATED", "GROUPS")
	for _, u := range users {
		row(u.UUID, visible(u.Nickname), when(u.Created), strconv.Itoa(len(u.Groups)))
	}
	return flush()
}

func showUser(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
	u, err := c.User(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), u)
	}
	groups, err := c.Groups(cmd.Context())
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, g := range groups {
		names[g.UUID] = g.Nickname
	}
	return details(cmd.OutOrStdout(), append([]string{
		"uuid", u.UUID, "nickname", visible(u.Nickname), "created", when(u.Created),
	}, named("group", u.Groups, names)...)...)
}

// named makes a pair of details of each UUID, with the name that it has.
func named(what string, ids []string, names map[string]string) (pairs []string) {
	for _, id := range ids {
		text := id
		if name := names[id]; name != "" {
			text += " (" + visible(name) + ")"
		}
		pairs = append(pairs, what, text)
	}
	return pairs
}
