package cli

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"kvs/auth"
)

const userID = "0192f0c1-1111-7000-8000-000000000001"

func TestTokenCreate(t *testing.T) {
	for name, tt := range map[string]struct {
		args    string
		subject string
		scopes  string
		life    time.Duration
	}{
		"admin":       {"--scope admin", "root", "admin", 24 * time.Hour},
		"prefix":      {"--scope read:pub/ --expires 1s", "root", "read:pub/", time.Second},
		"several":     {"--scope read --scope write:users/", "root", "read,write:users/", 24 * time.Hour},
		"commas":      {"--scope read,write:users/,jobs:mail --expires 30d", "root", "read,write:users/,jobs:mail", 30 * 24 * time.Hour},
		"a user":      {"--scope read --user " + userID, userID, "read", 24 * time.Hour},
		"upper case":  {"--scope read --user " + strings.ToUpper(userID), userID, "read", 24 * time.Hour},
		"no dashes":   {"--scope read --user " + strings.ReplaceAll(userID, "-", ""), userID, "read", 24 * time.Hour},
		"root":        {"--scope read --user root --expires 10m", "root", "read", 10 * time.Minute},
		"a nickname":  {"--scope read --user Ada", userID, "read", 24 * time.Hour},
		"from a file": {"--scope read --config n.yaml", "root", "read", 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, away(t), testSecret+"\n")
			writeFile(t, "n.yaml", "cluster_secret: "+otherSecret+"\n")
			n := newAnswering(t, map[string]string{"GET /auth/users/Ada": `{"uuid":"` + userID + `","nickname":"Ada"}`})
			r := runCommand(t, newToken(), "", append([]string{"create"}, strings.Fields(tt.args)...)...)
			if r.code != exitOK || r.stderr != "" || strings.Count(r.stdout, "\n") != 1 || !strings.HasSuffix(r.stdout, "\n") {
				t.Fatalf("%d, %q, %q", r.code, r.stdout, r.stderr)
			}
			secret := auth.Secret(testSecret)
			if name == "from a file" {
				secret = otherSecret
			}
			c, err := tokensOf(secret).Verify(strings.TrimSuffix(r.stdout, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Scopes.Strings(), ","); c.Subject != tt.subject || got != tt.scopes || c.Expires.Sub(c.Issued) != tt.life {
				t.Errorf("%+v", c)
			}
			if sent := n.sent(); (sent != "") != (name == "a nickname") {
				t.Errorf("a node was asked: %q", sent)
			}
		})
	}
}

func TestTokenCreateJSON(t *testing.T) {
	writeFile(t, away(t), testSecret+"\n")
	r := runCommand(t, newToken(), "", "create", "--scope", "admin", "-o", "json")
	var got struct {
		Token, JTI string
		Expires    int64 `json:"expires_at"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatal(err, r)
	}
	c, err := tokensOf(testSecret).Verify(got.Token)
	if err != nil || c.ID != got.JTI || c.Expires.UnixMilli() != got.Expires {
		t.Errorf("%+v, %v", c, err)
	}
}

// The first token is made before the first start, and the first node finds the
// secret that it was made from.
func TestTokenCreateMakesTheSecret(t *testing.T) {
	automatic := away(t)
	r := runCommand(t, newToken(), "", "create", "--scope", "admin")
	if r.code != exitOK || !strings.Contains(r.stderr, "made "+automatic) {
		t.Fatalf("%+v", r)
	}
	info, err := os.Stat(automatic)
	if err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Fatal(info, err)
	}
	secrets, err := auth.LoadSecret(auth.SecretOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokensOf(secrets.Current).Verify(strings.TrimSpace(r.stdout)); err != nil {
		t.Error(err)
	}
	if strings.Contains(r.stdout+r.stderr, string(secrets.Current)) {
		t.Error("the secret was printed")
	}
	if r := runCommand(t, newToken(), "", "create", "--scope", "admin"); r.code != exitOK || r.stderr != "" {
		t.Errorf("the second time: %+v", r)
	}
	// But not for a command line that is wrong.
	automatic = away(t)
	for _, args := range []string{"create", "create --scope all", "create --scope read:", "create --scope read,read", "create --scope admin --expires 5x",
		"create --scope admin more", "create --scope admin --user Ada"} {
		r := runCommand(t, newToken(), "", strings.Fields(args)...)
		if want := map[bool]int{true: exitUnreachable, false: exitUsage}[strings.HasSuffix(args, "Ada")]; r.code != want || r.stdout != "" || r.stderr == "" {
			t.Errorf("%s: %+v", args, r)
		}
		if _, err := os.Stat(automatic); err == nil {
			t.Fatalf("%s: made a secret", args)
		}
	}
}

func TestTokenCreateRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		args   string
		config string
		code   int
		want   string
	}{
		"too short":      {"--scope admin --expires 0", "", exitUsage, "1s"},
		"too long":       {"--scope admin --expires 4000d", "", exitUsage, "3650 days"},
		"no such user":   {"--scope read --user Bob", "", exitNotFound, "Bob"},
		"the nil UUID":   {"--scope read --user 00000000-0000-0000-0000-000000000000", "", exitUsage, "UUID of a user"},
		"anonymous":      {"--scope read --user anonymous", "", exitNotFound, "anonymous"},
		"broken config":  {"--scope read", "services: []", exitFailed, "config.yaml:1"},
		"no secret file": {"--scope read", "cluster_secret_file: none", exitFailed, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, away(t), testSecret+"\n")
			newAnswering(t, nil)
			if tt.config != "" {
				writeFile(t, "config.yaml", tt.config+"\n")
			}
			r := runCommand(t, newToken(), "", append([]string{"create"}, strings.Fields(tt.args)...)...)
			if r.code != tt.code || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("%+v", r)
			}
			noSecrets(t, r)
		})
	}
	writeFile(t, away(t), testSecret+"\n")
	t.Setenv("KVS_AUTH_ENABLED", "false")
	if r := runCommand(t, newToken(), "", "create", "--scope", "admin"); r.code != exitOK || !strings.Contains(r.stderr, "auth_enabled") {
		t.Errorf("%+v", r)
	}
}

// made gives a token, as of some time ago.
func made(t *testing.T, secret auth.Secret, ago, life time.Duration) (string, auth.Claims) {
	t.Helper()
	tokens := auth.NewClientTokens(auth.ClientTokensOptions{
		Keys: auth.DeriveKeys(auth.Secrets{Current: secret}),
		Now:  func() time.Time { return time.Now().Add(-ago) },
	})
	token, c, err := tokens.Issue(userID, auth.Scopes{{Scope: auth.ScopeRead}, {Scope: auth.ScopeWrite, Prefix: "users/"}}, life)
	if err != nil {
		t.Fatal(err)
	}
	return token, c
}

func TestTokenShow(t *testing.T) {
	for name, tt := range map[string]struct {
		secret string // of this machine
		ago    time.Duration
		code   int
		valid  *bool
		want   []string
	}{
		"good":      {testSecret, 0, exitOK, new(true), []string{"good by", "only a node knows"}},
		"expired":   {testSecret, 2 * time.Hour, exitFailed, new(false), []string{"NOT GOOD", "has expired", "which is past"}},
		"foreign":   {otherSecret, 0, exitFailed, new(false), []string{"NOT GOOD", "cluster_secret"}},
		"no secret": {"", 0, exitOK, nil, []string{"not checked: there is no cluster secret here"}},
	} {
		t.Run(name, func(t *testing.T) {
			automatic := away(t)
			if tt.secret != "" {
				writeFile(t, automatic, tt.secret+"\n")
			}
			token, c := made(t, testSecret, tt.ago, time.Hour)
			for _, args := range [][]string{{"show", token}, {"show", "-"}} {
				r := runCommand(t, newToken(), " "+token+"\n", args...)
				if r.code != tt.code {
					t.Errorf("%+v", r)
				}
				for _, want := range append(tt.want, c.ID, userID, "read,write:users/") {
					if !strings.Contains(r.stdout+r.stderr, want) {
						t.Errorf("%q is not in\n%s%s", want, r.stdout, r.stderr)
					}
				}
				notShown(t, r, token)
			}
			r := runCommand(t, newToken(), token, "show", "-", "-o", "json")
			var got shownToken
			if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != tt.code {
				t.Fatalf("%v: %+v", err, r)
			}
			if got.ID != c.ID || got.Subject != userID || len(got.Scopes) != 2 || got.Issued != c.Issued.UnixMilli() || got.Expires != c.Expires.UnixMilli() {
				t.Errorf("%+v, want %+v", got, c)
			}
			if (got.Valid == nil) != (tt.valid == nil) || got.Valid != nil && *got.Valid != *tt.valid {
				t.Errorf("valid: %v", r.stdout)
			}
			notShown(t, r, token)
			if _, err := os.Stat(automatic); (err == nil) != (tt.secret != "") {
				t.Errorf("the automatic file: %v", err)
			}
		})
	}
}

// notShown looks for a token, and for its signature alone.
func notShown(t *testing.T, r ran, token string) {
	t.Helper()
	signature := token[strings.LastIndexByte(token, '.')+1:]
	if out := r.stdout + r.stderr; signature == "" || strings.Contains(out, signature) || strings.Contains(out, token[:20]) {
		t.Errorf("the token was printed:\n%s", out)
	}
	noSecrets(t, r)
}

// Anybody can write a token, and somebody else looks at it on a terminal.
func TestTokenShowForged(t *testing.T) {
	away(t)
	payload := base64.RawURLEncoding.EncodeToString([]byte(`{"jti":"\u001b[2J","sub":"a\tb","scopes":["\u202e"],"iat":1e300,"exp":-5}`))
	r := runCommand(t, newToken(), "", "show", "x."+payload+".sig")
	if r.code != exitOK || strings.ContainsAny(r.stdout, "\x1b\u202e") || !strings.Contains(r.stdout, `\x1b[2J`) || !strings.Contains(r.stdout, `a\tb`) {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"", ".", "a.b", "a.b.c", "a.!.c", "a." + base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + ".c",
		strings.Repeat("x", maxJTI+1), strings.Repeat("x.", maxToken)} {
		for _, command := range []string{"show", "revoke"} {
			r := runCommand(t, newToken(), bad, command, "-")
			if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "was it copied whole?") && !strings.Contains(r.stderr, "more than") {
				t.Errorf("%s %.20s: %+v", command, bad, r)
			}
			if len(bad) > 10 && strings.Contains(r.stderr, bad[:10]) {
				t.Errorf("it was printed: %s", r.stderr)
			}
		}
	}
}

func TestTokensOnANode(t *testing.T) {
	writeFile(t, away(t), testSecret+"\n")
	token, c := made(t, testSecret, 0, time.Hour)
	const known = `{"jti":"j1","subject":"root","scopes":["read","jobs:a"],"created":1700000000000,"expires_at":1700000001000}`
	n := newAnswering(t, map[string]string{
		"GET /auth/tokens":               `{"tokens":[` + known + `]}`,
		"GET /auth/tokens/j1":            known,
		"DELETE /auth/tokens/j1":         "",
		"DELETE /auth/tokens/-j":         "",
		"DELETE /auth/tokens/" + c.ID:    "",
		"GET /auth/tokens/none/../other": "",
	})
	for _, tt := range []struct {
		args, stdin, sent, want string
	}{
		{"ls", "", "GET /auth/tokens", "j1   root     read,jobs:a"},
		{"ls -o json", "", "GET /auth/tokens", "[" + known + "]\n"},
		{"show j1", "", "GET /auth/tokens/j1", "which is past"},
		{"show j1 -o json", "", "GET /auth/tokens/j1", known + "\n"},
		{"revoke j1", "", "DELETE /auth/tokens/j1", "revoked j1\n"},
		{"revoke j1 -o json", "", "DELETE /auth/tokens/j1", `{"revoked":"j1"}` + "\n"},
		{"revoke -- -j", "", "DELETE /auth/tokens/-j", "revoked -j\n"},
		{"revoke -", "j1\n", "DELETE /auth/tokens/j1", "revoked j1\n"},
		{"revoke -", token + "\n", "DELETE /auth/tokens/" + c.ID, "revoked " + c.ID + "\n"},
		{"revoke " + token, "", "DELETE /auth/tokens/" + c.ID, "revoked " + c.ID + "\n"},
	} {
		r := runCommand(t, newToken(), tt.stdin, strings.Fields(tt.args)...)
		if r.code != exitOK || !strings.Contains(r.stdout, tt.want) || r.stderr != "" {
			t.Errorf("%.20s: %+v", tt.args, r)
		}
		if sent := n.sent(); sent != tt.sent {
			t.Errorf("%.20s: sent %s", tt.args, sent)
		}
		notShown(t, r, token)
	}
	if r := runCommand(t, newToken(), "", "revoke", "other"); r.code != exitNotFound || r.stdout != "" {
		t.Errorf("%+v", r)
	}
}
