package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"kvs/auth"
)

// Secrets that are good for nothing but these tests.
const (
	testSecret  = "test-secret-0123456789-0123456789-0123456789"
	otherSecret = "other-secret-0123456789-0123456789-012345678"
)

// away puts a test into an empty directory of a user without a secret, and gives
// where that user's automatic file would be.
func away(t *testing.T) (automatic string) {
	t.Helper()
	t.Chdir(t.TempDir())
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "KVS_") {
			t.Setenv(name, "") // so that it comes back
			os.Unsetenv(name)
		}
	}
	automatic, err := auth.AutomaticFile()
	if err != nil || !strings.HasPrefix(automatic, home) {
		t.Fatal(automatic, err)
	}
	return automatic
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// runCommand carries out one command as Run does, with Run's own commands around
// it.
func runCommand(t *testing.T, cmd *cobra.Command, stdin string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot(Process{Version: "1.2.3"})
	for _, c := range root.Commands() {
		if c.Name() == cmd.Name() {
			root.RemoveCommand(c)
		}
	}
	root.AddCommand(cmd)
	root.SetArgs(append([]string{cmd.Name()}, args...))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	code := exitOK
	if err := root.ExecuteContext(t.Context()); err != nil {
		code = exitCode(err)
		fmt.Fprintf(&errs, "kvs: %v\n", err)
	}
	return ran{code, out.String(), errs.String()}
}

// tokensOf gives what a node with this secret checks tokens with.
func tokensOf(secret auth.Secret) *auth.ClientTokens {
	return auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(auth.Secrets{Current: secret})})
}

// answering is a node that answers calls by a table of "METHOD path".
type answering struct {
	url string

	mu     sync.Mutex // guards all below
	calls  []string   // "METHOD URI body"
	tokens []string   // the Authorization headers
}

func newAnswering(t *testing.T, table map[string]string) *answering {
	n := &answering{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.calls = append(n.calls, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		n.tokens = append(n.tokens, r.Header.Get("Authorization"))
		answer, ok := table[r.Method+" "+r.URL.Path]
		switch {
		case !ok:
			w.WriteHeader(404)
			io.WriteString(w, `{"status":404,"code":"user_not_found","detail":"nobody has that name"}`)
		case answer == "":
			w.WriteHeader(204)
		case strings.HasPrefix(answer, "401"):
			w.WriteHeader(401)
			io.WriteString(w, `{"status":401,"code":"unauthorized","detail":"a token is needed"}`)
		default:
			io.WriteString(w, answer)
		}
	}))
	t.Cleanup(server.Close)
	n.url = server.URL
	t.Setenv("KVS_URL", n.url)
	return n
}

// sent gives the calls since the last time.
func (n *answering) sent() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := strings.Join(n.calls, " | ")
	n.calls = nil
	return s
}

func (n *answering) token() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.tokens) == 0 {
		return "(no call)"
	}
	return n.tokens[len(n.tokens)-1]
}

const healthy = `{"status":"ok","mode":"normal","member_count":1,"node_id":"n","uuid":"u"}`

func TestFindSecretPlace(t *testing.T) {
	for name, tt := range map[string]struct {
		env    map[string]string
		files  map[string]string // besides the automatic one
		auto   bool
		config string // --config
		want   string // of place.String, AUTO for the automatic file
		secret string // "": none
		err    string
	}{
		"nothing":                {want: "AUTO"},
		"the automatic file":     {auto: true, want: "AUTO", secret: "automatic"},
		"environment":            {env: map[string]string{"KVS_CLUSTER_SECRET": testSecret}, auto: true, want: "KVS_CLUSTER_SECRET", secret: testSecret},
		"a file by environment":  {env: map[string]string{"KVS_CLUSTER_SECRET_FILE": "s"}, files: map[string]string{"s": testSecret}, want: "s", secret: testSecret},
		"./config.yaml":          {files: map[string]string{"config.yaml": "cluster_secret: " + testSecret}, auto: true, want: "cluster_secret in config.yaml", secret: testSecret},
		"./config.yaml's file":   {files: map[string]string{"config.yaml": "cluster_secret_file: s", "s": testSecret}, auto: true, want: "s", secret: testSecret},
		"./config.yaml, silent":  {files: map[string]string{"config.yaml": "port: 1"}, auto: true, want: "AUTO", secret: "automatic"},
		"--config":               {files: map[string]string{"config.yaml": "cluster_secret: " + otherSecret, "n.yaml": "cluster_secret: " + testSecret}, config: "n.yaml", want: "cluster_secret in n.yaml", secret: testSecret},
		"environment wins":       {env: map[string]string{"KVS_CLUSTER_SECRET": testSecret}, files: map[string]string{"n.yaml": "cluster_secret_file: s"}, config: "n.yaml", want: "KVS_CLUSTER_SECRET", secret: testSecret},
		"environment, not ours":  {env: map[string]string{"KVS_CLUSTER_SECRET": testSecret}, files: map[string]string{"config.yaml": "services: []"}, want: "KVS_CLUSTER_SECRET", secret: testSecret},
		"./config.yaml, broken":  {files: map[string]string{"config.yaml": "services: []"}, auto: true, err: "config.yaml:1"},
		"--config, broken":       {env: map[string]string{"KVS_CLUSTER_SECRET": testSecret}, files: map[string]string{"n.yaml": "services: []"}, config: "n.yaml", err: "n.yaml:1"},
		"--config, missing":      {auto: true, config: "n.yaml", err: "n.yaml"},
		"a secret too short":     {env: map[string]string{"KVS_CLUSTER_SECRET": "short"}, err: "KVS_CLUSTER_SECRET"},
		"a file that is missing": {files: map[string]string{"config.yaml": "cluster_secret_file: s"}, auto: true, want: "s", err: "s: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			automatic := away(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			for file, text := range tt.files {
				writeFile(t, file, text+"\n")
			}
			if tt.auto {
				writeFile(t, automatic, strings.Repeat("automatic", 5)+"\n")
			}
			place, err := findSecretPlace(tt.config)
			var secrets auth.Secrets
			if err == nil {
				if got := strings.Replace(place.String(), automatic, "AUTO", 1); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
				secrets, err = place.load(false)
			}
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want %s", err, tt.err)
				}
			case tt.secret == "":
				if err == nil || !place.missing() {
					t.Errorf("a secret was found, or made: %v", err)
				}
			case err != nil || !strings.HasPrefix(string(secrets.Current), tt.secret):
				t.Errorf("another secret, %v", err)
			}
			if _, err := os.Stat(automatic); (err == nil) != tt.auto {
				t.Errorf("the automatic file: %v", err)
			}
		})
	}
}

// What a command that talks to a node sends.
func TestWhatCommandsSend(t *testing.T) {
	automatic := away(t)
	n := newAnswering(t, map[string]string{"GET /health": healthy})
	health := func(args ...string) {
		t.Helper()
		r := run(t, t.Context(), nil, append([]string{"health"}, args...)...)
		if r.code != exitOK || r.stderr != "" {
			t.Errorf("%+v", r)
		}
	}
	health()
	if got := n.token(); got != "" {
		t.Errorf("without a secret it sent %q", got)
	}
	if entries, err := os.ReadDir(filepath.Dir(automatic)); err == nil {
		t.Errorf("a command that asks a node made %v", entries)
	}
	minted := func(secret auth.Secret) {
		t.Helper()
		token, _ := strings.CutPrefix(n.token(), "Bearer ")
		c, err := tokensOf(secret).Verify(token)
		if err != nil {
			t.Errorf("a token of another secret: %v", err)
			return
		}
		if life := c.Expires.Sub(c.Issued); c.Subject != auth.Root || c.Scopes.Strings()[0] != "admin" || len(c.Scopes) != 1 || life != mintedLife {
			t.Errorf("%+v", c)
		}
	}
	writeFile(t, automatic, testSecret+"\n")
	health()
	minted(testSecret)
	writeFile(t, "n.yaml", "cluster_secret: "+otherSecret+"\n")
	health("--config", "n.yaml")
	minted(otherSecret)
	t.Setenv("KVS_CLUSTER_SECRET", otherSecret)
	health()
	minted(otherSecret)
	t.Setenv("KVS_TOKEN", "a.b.c")
	health("--config", "n.yaml")
	if got := n.token(); got != "Bearer a.b.c" {
		t.Errorf("sent %q", got)
	}
	// A configuration that is named is one, or it is an error.
	t.Setenv("KVS_TOKEN", "")
	n.sent()
	if r := run(t, t.Context(), nil, "health", "--config", "none.yaml"); r.code != exitFailed || !strings.Contains(r.stderr, "none.yaml") || n.sent() != "" {
		t.Errorf("%+v", r)
	}
	// One that merely lies about is not: the node may ask for no token.
	os.Unsetenv("KVS_CLUSTER_SECRET")
	writeFile(t, "config.yaml", "services: []\n")
	health()
	if got := n.token(); got != "" {
		t.Errorf("sent %q", got)
	}
}

func TestRefusalsTellTheRemedy(t *testing.T) {
	for name, tt := range map[string]struct {
		env   map[string]string
		file  string
		wants []string
	}{
		"no secret":     {nil, "", []string{"No token was sent: there is no cluster secret here", "kvs token create", "KVS_TOKEN", "--config"}},
		"no good file":  {nil, "services: []", []string{"No token was sent: config.yaml:1:", "kvs token create"}},
		"wrong secret":  {map[string]string{"KVS_CLUSTER_SECRET": testSecret}, "", []string{"made from KVS_CLUSTER_SECRET", "another secret", "clock", "--config"}},
		"another place": {nil, "cluster_secret: " + testSecret, []string{"made from cluster_secret in config.yaml"}},
		"wrong token":   {map[string]string{"KVS_TOKEN": "eyJhbGciOi.secret.part"}, "", []string{"KVS_TOKEN was sent", "kvs token create"}},
	} {
		t.Run(name, func(t *testing.T) {
			away(t)
			n := newAnswering(t, map[string]string{"GET /kv/k": "401", "POST /kv/_batch": "401", "GET /health": healthy})
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if tt.file != "" {
				writeFile(t, "config.yaml", tt.file+"\n")
			}
			for _, args := range [][]string{{"get", "k"}, {"import", "-"}} {
				r := run(t, t.Context(), strings.NewReader(`{"key":"k","value":1}`+"\n"), args...)
				if r.code != exitFailed {
					t.Errorf("%+v", r)
				}
				for _, want := range append(tt.wants, "a token is needed (unauthorized, status 401)") {
					if strings.Count(r.stderr, want) != 1 {
						t.Errorf("%q is not there once:\n%s", want, r.stderr)
					}
				}
				noSecrets(t, r)
			}
			if n.sent() == "" {
				t.Error("nothing was sent")
			}
		})
	}
}

// noSecrets looks for what must not be printed.
func noSecrets(t *testing.T, r ran) {
	t.Helper()
	for _, s := range []string{testSecret, otherSecret, "eyJhbGciOi"} {
		if strings.Contains(r.stdout+r.stderr, s) {
			t.Errorf("a secret or a token was printed:\n%s%s", r.stdout, r.stderr)
		}
	}
}

func TestMinter(t *testing.T) {
	now := time.Now()
	m := newMinter(auth.Secrets{Current: testSecret}, func() time.Time { return now })
	checker := auth.NewClientTokens(auth.ClientTokensOptions{
		Keys: auth.DeriveKeys(auth.Secrets{Current: testSecret}),
		Now:  func() time.Time { return now },
	})
	last := ""
	step := func(by time.Duration, same bool) {
		t.Helper()
		now = now.Add(by)
		token, err := m.Token()
		if err != nil {
			t.Fatal(err)
		}
		c, err := checker.Verify(token)
		if err != nil {
			t.Fatal(err)
		}
		if left := c.Expires.Sub(now); left < mintedLife/2 {
			t.Errorf("%v are left", left)
		}
		if (token == last) != same {
			t.Errorf("the same token: %v", token == last)
		}
		last = token
	}
	step(0, false)
	step(time.Minute, true)
	step(89*time.Second, true)
	step(time.Second, false)
	step(time.Hour, false)
	step(time.Second, true)
	step(-time.Minute, false) // or it would be kept for a minute too long
	step(0, true)

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if token, err := m.Token(); err != nil || token != last {
				t.Error("another token", err)
			}
		})
	}
	wg.Wait()
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"":                   "",
		`plain "é" \ text`:   `plain "é" \ text`,
		"a\tb\n\x1b[2J":      `a\tb\n\x1b[2J`,
		"\u202egnp.exe":      `\u202egnp.exe`,
		"\xff \"q\" \\ \x00": `\xff "q" \\ \x00`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
