package server

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/auth"
	"kvs/config"
	"kvs/features/tamperlog"
	"kvs/storage"
	"kvs/types"
	"kvs/utils/oneport"
)

// secureNode asks its clients for tokens and keeps a tamper log.
func secureNode(t *testing.T, adjust ...func(*config.Config)) *testNode {
	t.Helper()
	return startNode(t, append([]func(*config.Config){func(c *config.Config) {
		c.AuthEnabled, c.TamperLoggingEnabled = true, true
	}}, adjust...)...)
}

// token makes a token for a subject that is good for an hour.
func (n *testNode) token(subject string, scopes ...string) string {
	n.t.Helper()
	token, _ := n.tokenAndID(subject, scopes...)
	return token
}

func (n *testNode) tokenAndID(subject string, scopes ...string) (token, id string) {
	n.t.Helper()
	return issue(n.t, n.tokens, subject, scopes...)
}

func issue(t *testing.T, tokens *auth.ClientTokens, subject string, scopes ...string) (token, id string) {
	t.Helper()
	parsed, err := auth.ParseScopes(scopes)
	if err != nil {
		t.Fatal(err)
	}
	token, claims, err := tokens.Issue(subject, parsed, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token, claims.ID
}

// root makes an admin's token.
func (n *testNode) root() string { n.t.Helper(); return n.token(auth.Root, "admin") }

// as is do with a token; "" is nobody's.
func (n *testNode) as(token, method, path, body string, headers ...string) answer {
	n.t.Helper()
	if token != "" {
		headers = append([]string{"Authorization", "Bearer " + token}, headers...)
	}
	return n.do(method, path, body, headers...)
}

// addUser makes a user and gives the UUID.
func (n *testNode) addUser(nickname string) string { n.t.Helper(); return n.add("users", nickname) }

// addGroup makes a group with these members.
func (n *testNode) addGroup(nickname string, members ...string) string {
	n.t.Helper()
	id := n.add("groups", nickname)
	for _, m := range members {
		n.want(n.as(n.root(), "PUT", "/auth/groups/"+id+"/members/"+m, ""), 204, "")
	}
	return id
}

func (n *testNode) add(what, nickname string) string {
	n.t.Helper()
	a := n.as(n.root(), "POST", "/auth/"+what, `{"nickname":"`+nickname+`"}`)
	if n.want(a, 201, ""); a.member("uuid") == "" {
		n.t.Fatalf("no uuid in %s", a.body)
	}
	return a.member("uuid")
}

// have stores a record as if it had always been there.
func (n *testNode) have(key, value string, meta types.Meta, ttl ...time.Duration) types.Record {
	n.t.Helper()
	op := storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(key)), Value: []byte(value), Guard: setMeta(meta)}
	if len(ttl) > 0 {
		op.TTL = ttl[0]
	}
	res, err := n.write(n.t.Context(), op)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.Record
}

func setMeta(meta types.Meta) guard {
	return func(v *storage.View) error { v.Meta = meta; return nil }
}

func metaOf(t *testing.T, owner, group, permissions string) types.Meta {
	t.Helper()
	return types.Meta{Owner: owner, Group: group, Mode: mode(t, permissions)}
}

// mode is permissions as a number.
func mode(t *testing.T, text string) uint16 {
	t.Helper()
	m, err := auth.ParseMode(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// audited gives the tamper log, what waits to be written included.
func (n *testNode) audited() []tamperlog.Entry {
	n.t.Helper()
	if err := n.store.CommitHooks(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	return entries(n.t, n.store)
}

// since gives the entries behind the first of a log.
func (n *testNode) since(first int) []tamperlog.Entry { n.t.Helper(); return n.audited()[first:] }

// entries gives a store's tamper log.
func entries(t *testing.T, store *storage.Store) []tamperlog.Entry {
	t.Helper()
	var all []tamperlog.Entry
	for f := (tamperlog.Filter{Limit: 1000}); ; {
		page, next, err := tamperlog.Entries(t.Context(), store, f)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, page...); next == 0 {
			return all
		}
		f.After = next
	}
}

// fullNode is a whole node that runs until the test ends, or until stop.
func fullNode(t *testing.T, cfg config.Config, network oneport.Network, log io.Writer) (n *Node, stop func()) {
	t.Helper()
	n, err := New(cfg, Options{Network: network, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return n, stop
}

// askAs is ask with a token.
func askAs(t *testing.T, n *Node, token, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// lockedBuffer is a log that many write to.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// statusOnly is an answer of which the status and the headers matter.
type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.header }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// requestAs is a request for what is below the routes.
func requestAs(t *testing.T, who *auth.Principal) *request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return &request{Request: r, who: who, gate: &gate{}}
}
