package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"kvs/auth"
	"kvs/client"
)

func newToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke tokens of clients",
		Long: `Make, list and revoke the tokens by which clients show who they are.

"create" needs no node, only the cluster secret: so the first token comes from it.
The other commands ask a node, with KVS_TOKEN or with a token of their own where
this machine has the secret.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(), newTokenLs(), newTokenShow(), newTokenRevoke())
	return cmd
}

func newTokenCreate() *cobra.Command {
	var (
		scopes []string
		user   string
	)
	expires := 24 * time.Hour
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token from the cluster secret and print it",
		Long: `Make a token from the cluster secret, without a node, and print it alone.

A scope is read, write, jobs or admin; with a colon and a prefix it is for the
keys (of jobs: queues) under that prefix only. Several are given by commas or by
repeating the flag. admin includes all others and passes every permission.

  kvs token create --scope admin
  kvs token create --scope read,write:users/ --expires 30d --user Ada
  export KVS_TOKEN=$(kvs token create --scope read --expires 1h)

Such a token is in no list of a node. It can be revoked like any other: keep its
jti, which "kvs token show" tells. Where there is no secret yet, this user's
automatic secret file is made, which nodes of this user then use.`,
		Args: args(cobra.NoArgs),
	}
	r := remoteFlags(cmd)
	cmd.Flags().StringArrayVar(&scopes, "scope", nil, "what the token is for, such as admin or read:users/ (repeatable)")
	cmd.Flags().Var(durationFlag{&expires}, "expires", "how long it is good, such as 15m, 24h or 30d")
	cmd.Flags().StringVar(&user, "user", "", "whose it is: a UUID, or a nickname, which a node is asked for (default root)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		granted, err := parseScopes(scopes)
		if err != nil {
			return err
		}
		subject, err := tokenSubject(cmd, r, user)
		if err != nil {
			return err
		}
		return createToken(cmd, r, subject, granted, expires)
	}
	return cmd
}

func parseScopes(flags []string) (auth.Scopes, error) {
	var list []string
	for _, f := range flags {
		for s := range strings.SplitSeq(f, ",") {
			list = append(list, strings.TrimSpace(s))
		}
	}
	scopes, err := auth.ParseScopes(list)
	if err != nil {
		return nil, usagef("--scope: %w", err)
	}
	return scopes, nil
}

// tokenSubject gives the subject that --user names.
func tokenSubject(cmd *cobra.Command, r *remote, user string) (string, error) {
	if user == "" || user == auth.Root {
		return auth.Root, nil
	}
	if id, err := uuid.Parse(user); err == nil {
		return id.String(), nil
	}
	c, err := r.connect()
	if err != nil {
		return "", err
	}
	defer c.Close()
	u, err := c.User(cmd.Context(), user)
	if err != nil {
		return "", fmt.Errorf("--user: only a node knows who %q is (a UUID needs none): %w", user, err)
	}
	return u.UUID, nil
}

func createToken(cmd *cobra.Command, r *remote, subject string, scopes auth.Scopes, life time.Duration) error {
	place, err := findSecretPlace(r.config)
	if err != nil {
		return err
	}
	missing := place.missing()
	secrets, err := place.load(true)
	if err != nil {
		return err
	}
	token, claims, err := auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(secrets)}).Issue(subject, scopes, life)
	if err != nil {
		return usageError{err}
	}
	if missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "made %s, the cluster secret of this user's nodes; nodes of other machines need a copy of it\n", place)
	}
	if !place.cfg.AuthEnabled {
		fmt.Fprintln(cmd.ErrOrStderr(), "auth_enabled is false here: nodes that are configured so ask for no token")
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), client.NewToken{Token: token, Expires: claims.Expires.UnixMilli(), ID: claims.ID})
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
	return err
}

func newTokenLs() *cobra.Command {
	cmd := onNode("ls", "List the tokens that were made by nodes and are good still", cobra.NoArgs,
		func(cmd *cobra.Command, c *client.Client, r *remote, _ []string) error {
			tokens, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), tokens)
			}
			row, flush := table(cmd.OutOrStdout(), "JTI", "SUBJECT", "SCOPES", "CREATED", "EXPIRES")
			for _, t := range tokens {
				row(t.ID, t.Subject, strings.Join(t.Scopes, ","), when(t.Created), when(t.Expires))
			}
			return flush()
		})
	cmd.Long = `List the tokens that were made by nodes (POST /auth/tokens) and are good still.
Those that "kvs token create" made are not among them.`
	return cmd
}

func newTokenRevoke() *cobra.Command {
	cmd := onNode("revoke JTI|TOKEN", "Make a token worthless on every node", cobra.ExactArgs(1),
		func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error {
			jti, err := tokenArgument(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			if isToken(jti) {
				claims, err := decodeToken(jti)
				if err != nil {
					return err
				}
				jti = claims.ID
			}
			if err := c.RevokeToken(cmd.Context(), jti); err != nil {
				return err
			}
			return said(cmd, r, "revoked", jti)
		})
	cmd.Long = `Make a token worthless on every node, for ever; on nodes that cannot be reached
now, as soon as they can. - reads the TOKEN from standard input, which keeps it
out of the list of processes. Put -- before a JTI that begins with a dash.`
	return cmd
}

// said tells of one thing that was done.
func said(cmd *cobra.Command, r *remote, verb, what string) error {
	if r.json() {
		return printJSON(cmd.OutOrStdout(), map[string]string{verb: what})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", verb, what)
	return err
}
