package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvs/auth"
)

func newTokenShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show JTI|TOKEN",
		Short: "Show what a token is for",
		Long: `Show what a token is for. A JTI is looked up on a node. A TOKEN is decoded here,
and checked where this machine has the cluster secret; - reads it from standard
input, which keeps it out of the list of processes. The token itself is not shown.

The exit code is 1 for a token that is not good. Put -- before a JTI that begins
with a dash.`,
		Args: args(cobra.ExactArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given, err := tokenArgument(cmd.InOrStdin(), args[0])
		if err != nil {
			return err
		}
		if isToken(given) {
			return showToken(cmd.OutOrStdout(), r, given)
		}
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		t, err := c.Token(cmd.Context(), given)
		if err != nil {
			return err
		}
		if r.json() {
			return printJSON(cmd.OutOrStdout(), t)
		}
		return details(cmd.OutOrStdout(), "jti", t.ID, "subject", t.Subject, "scopes", strings.Join(t.Scopes, ","),
			"created", when(t.Created), "expires", expiry(t.Expires))
	}
	return cmd
}

const (
	maxToken = 8 << 10 // bytes; nodes take less
	maxJTI   = 64      // bytes; they have 32
)

// tokenArgument gives a JTI or a token. No error shows it.
func tokenArgument(stdin io.Reader, arg string) (string, error) {
	if arg == "-" {
		b, err := readAll(stdin, maxToken)
		if err != nil {
			return "", err
		}
		arg = string(b)
	}
	arg = strings.TrimSpace(arg)
	if arg == "" || len(arg) > maxToken || !isToken(arg) && len(arg) > maxJTI {
		return "", errors.New("that is neither the jti of a token nor a token; was it copied whole?")
	}
	return arg, nil
}

// isToken tells a token from a JTI, which has no dots.
func isToken(s string) bool { return strings.Contains(s, ".") }

// shownToken is what a token says. It is anybody's word until it is verified.
type shownToken struct {
	ID      string   `json:"jti"`
	Subject string   `json:"subject"`
	Scopes  []string `json:"scopes"`
	Issued  int64    `json:"issued"`     // Unix milliseconds
	Expires int64    `json:"expires_at"` // Unix milliseconds
	// Valid is absent where there is no secret to tell by.
	Valid  *bool  `json:"valid,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// decodeToken reads a token without verifying it.
func decodeToken(token string) (shownToken, error) {
	var wire struct {
		ID      string   `json:"jti"`
		Subject string   `json:"sub"`
		Scopes  []string `json:"scopes"`
		Issued  float64  `json:"iat"`
		Expires float64  `json:"exp"`
	}
	parts := strings.Split(token, ".")
	ok := len(parts) == 3
	if ok {
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		ok = err == nil && json.Unmarshal(payload, &wire) == nil && wire.ID != ""
	}
	if !ok {
		return shownToken{}, errors.New("that is no token of a client; was it copied whole?")
	}
	return shownToken{
		ID: wire.ID, Subject: wire.Subject, Scopes: append([]string{}, wire.Scopes...),
		Issued: int64(wire.Issued * 1000), Expires: int64(wire.Expires * 1000),
	}, nil
}

func showToken(out io.Writer, r *remote, token string) error {
	shown, err := decodeToken(token)
	if err != nil {
		return err
	}
	status, invalid := shown.verify(token, r.config)
	if r.json() {
		err = printJSON(out, shown)
	} else {
		err = details(out, "jti", visible(shown.ID), "subject", visible(shown.Subject), "scopes", visible(strings.Join(shown.Scopes, ",")),
			"issued", when(shown.Issued), "expires", expiry(shown.Expires), "status", status)
	}
	return errors.Join(err, invalid)
}

// verify judges the token where there is a secret to do so; the error is that
// the token is not good.
func (s *shownToken) verify(token, configFile string) (status string, invalid error) {
	place, err := findSecretPlace(configFile)
	var secrets auth.Secrets
	if err == nil {
		secrets, err = place.load(false)
	}
	if err != nil {
		s.Reason = "not checked: " + err.Error()
		return s.Reason, nil
	}
	_, err = auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(secrets)}).Verify(token)
	s.Valid = new(err == nil)
	if err != nil {
		s.Reason = err.Error()
		return fmt.Sprintf("NOT GOOD by %s", place), fmt.Errorf("checked by %s: %w", place, err)
	}
	return fmt.Sprintf("good by %s; whether it was revoked, only a node knows", place), nil
}

// expiry shows when something ends, Unix milliseconds, and how far off that is.
func expiry(ms int64) string {
	if ms <= 0 {
		return "never"
	}
	left := time.Until(time.UnixMilli(ms)).Round(time.Second)
	if left <= 0 {
		return when(ms) + ", which is past"
	}
	return fmt.Sprintf("%s, in %s", when(ms), left)
}
