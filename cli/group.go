package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "group",
		Short: "Work on groups of users",
		Long: `Work on groups of users. A value has one group, whose members have the rights of
the middle part of its mode (see "kvs chmod"). Groups and users are named by UUID,
or by a nickname that only one has.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		onNode("add NICKNAME", "Make a group and print its UUID", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
				id, err := c.AddGroup(cmd.Context(), args[0])
				return added(cmd, r, id, err)
			}),
		onNode("ls", "List the groups", cobra.NoArgs, listGroups),
		onNode("show GROUP", "Show a group and its members", cobra.ExactArgs(1), showGroup),
		onNode("rm GROUP", "Delete a group for ever", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
				if err := c.DeleteGroup(cmd.Context(), args[0]); err != nil {
					return err
				}
				return said(cmd, r, "deleted", args[0])
			}),
		onNode("join GROUP USER", "Put a user into a group", cobra.ExactArgs(2),
			func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
				if err := c.AddMember(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				return saidMember(cmd, r, "joined", args)
			}),
		onNode("leave GROUP USER", "Take a user out of a group", cobra.ExactArgs(2),
			func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
				if err := c.RemoveMember(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				return saidMember(cmd, r, "left", args)
			}),
	)
	return cmd
}

func saidMember(cmd *cobra.Command, r *remote, verb string, args []string) error {
	if r.json() {
		return printJSON(cmd.OutOrStdout(), map[string]string{verb: args[0], "user": args[1]})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", args[1], verb, args[0])
	return err
}

func listGroups(cmd *cobra.Command, c *client.Client, r *remote, _ []string) error {
	groups, err := c.Groups(cmd.Context())
	if err != nil {
		return err
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), groups)
	}
	row, flush := table(cmd.OutOrStdout(), "UUID", "NICKNAME", "CREATED", "MEMBERS")
	for _, g := range groups {
		row(g.UUID, visible(g.Nickname), when(g.Created), strconv.Itoa(len(g.Members)))
	}
	return flush()
}

func showGroup(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
	g, err := c.Group(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), g)
	}
	users, err := c.Users(cmd.Context())
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, u := range users {
		names[u.UUID] = u.Nickname
	}
	return details(cmd.OutOrStdout(), append([]string{
		"uuid", g.UUID, "nickname", visible(g.Nickname), "created", when(g.Created),
	}, named("member", g.Members, names)...)...)
}
