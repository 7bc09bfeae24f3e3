package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/auth"
	"kvs/cluster"
	"kvs/config"
	"kvs/storage"
	"kvs/types"
)

// fakePeers is a cluster of one's choosing.
type fakePeers struct {
	alone
	mu     sync.Mutex // guards what follows
	state  types.Mode
	roster int
	ahead  time.Duration
	peer   string
	await  func(ctx context.Context, n int) (int, error)
	heal   func(ref types.Ref) (bool, error)
	called []string // Join, Remove and Depart, with their argument
	failed error    // what those three give
}

func (p *fakePeers) set(change func(p *fakePeers)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func get[T any](p *fakePeers, field *T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *field
}

func (p *fakePeers) Mode() types.Mode { return get(p, &p.state) }
func (p *fakePeers) RosterCount() int { return get(p, &p.roster) }
func (p *fakePeers) LiveCount() int   { return get(p, &p.roster) }
func (p *fakePeers) Skewed() (time.Duration, bool) {
	ahead := get(p, &p.ahead)
	return ahead, ahead > 5*time.Second
}

func (p *fakePeers) NormalPeer() (string, bool) {
	addr := get(p, &p.peer)
	return addr, addr != ""
}

func (p *fakePeers) Await(ctx context.Context, _ types.Record, _ uint64, n int) (int, error) {
	if f := get(p, &p.await); f != nil {
		return f(ctx, n)
	}
	return n, nil
}

func (p *fakePeers) Heal(_ context.Context, ref types.Ref) (bool, error) {
	if f := get(p, &p.heal); f != nil {
		return f(ref)
	}
	return false, nil
}

func (p *fakePeers) call(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called = append(p.called, what)
	return p.failed
}

func (p *fakePeers) Join(_ context.Context, addr string) error { return p.call("join " + addr) }
func (p *fakePeers) Remove(_ context.Context, id string) error { return p.call("remove " + id) }
func (p *fakePeers) Depart(context.Context) error              { return p.call("depart") }
func (p *fakePeers) Status() cluster.Status {
	return cluster.Status{Peers: []cluster.PeerStatus{{NodeID: "other"}}}
}

// testNode is the HTTP side of a node over a real store, behind a real server.
type testNode struct {
	*api
	t     *testing.T
	peers *fakePeers
	conns *limitListener
	addr  string
	left  chan struct{} // closed when the node was asked to stop
}

// testSecret is the secret of all test nodes.
const testSecret = auth.Secret("a secret of thirty-two bytes or more")

// testConfig is a configuration for tests: no fsync, no watermark.
func testConfig(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.NodeID, cfg.Port, cfg.DataDir = "n1", 0, t.TempDir()
	cfg.SyncWrites, cfg.MinFreeDisk = false, 0
	cfg.BackupPath = t.TempDir()
	cfg.ClusterSecret = testSecret
	// What these are for has tests of its own.
	cfg.AuthEnabled, cfg.RateLimitingEnabled, cfg.TamperLoggingEnabled = false, false, false
	return cfg
}

func startNode(t *testing.T, adjust ...func(*config.Config)) *testNode {
	t.Helper()
	cfg := testConfig(t)
	for _, f := range adjust {
		f(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	trust, err := newTrust(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	o := storeOptions(cfg, log)
	o.ScrubEvery = -1
	watches := newWatches(log)
	o.Hooks = append(o.Hooks, trust.hooks()...)
	o.Hooks = append(o.Hooks, watches.hub.Hook())
	store, err := storage.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(trust.start(t.Context(), store), watches.start(t.Context(), store)); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- watches.hub.Run(running) }()
	t.Cleanup(func() {
		watches.end()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	n := &testNode{t: t, api: newAPI(cfg, store, trust, watches, Options{Log: log, Version: "test"}), left: make(chan struct{})}
	n.peers = &fakePeers{alone: alone{api: n.api, address: "127.0.0.1:1"}, state: types.ModeNormal, roster: 3}
	n.api.peers = n.peers
	n.api.leave = func() { close(n.left) }
	n.forward = newForwarder("self", func(ctx context.Context, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	})
	t.Cleanup(n.forward.close)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.conns = newLimitListener(ln, cfg.MaxConnections)
	if n.backups, err = newBackups(n.api, cfg, Options{Version: "test"}); err != nil {
		t.Fatal(err)
	}
	n.metrics.registry.MustRegister(&collector{n.api, n.conns})
	n.mux = n.routes()
	n.addr = ln.Addr().String()
	srv := newHTTPServer(n.api, log)
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(n.conns) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return n
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string { return a.member("code") }

func (a answer) member(name string) string {
	var m map[string]any
	_ = json.Unmarshal([]byte(a.body), &m)
	s, _ := m[name].(string)
	return s
}

// do sends a request; headers come in pairs.
func (n *testNode) do(method, path, body string, headers ...string) answer {
	n.t.Helper()
	req, err := http.NewRequest(method, "http://"+n.addr+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return readAnswer(n.t, resp)
}

func readAnswer(t *testing.T, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, string(b)}
	if a.status >= 300 && a.status < 400 && a.status != http.StatusNotModified {
		t.Errorf("a redirect: %d to %s", a.status, a.header.Get("Location"))
	}
	if a.status >= 400 && resp.Request != nil && resp.Request.Method != "HEAD" && !strings.HasSuffix(resp.Request.URL.Path, "/ready") {
		checkProblem(t, a)
	}
	return a
}

// checkProblem checks the shape that every refusal has.
func checkProblem(t *testing.T, a answer) {
	t.Helper()
	var p struct {
		Title, Detail, Code string
		Status              int
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("status %d has content type %q", a.status, ct)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Errorf("status %d: %v in %s", a.status, err, a.body)
	} else if p.Status != a.status || p.Title == "" || p.Detail == "" || p.Code == "" {
		t.Errorf("an incomplete problem: %s", a.body)
	}
	if (a.status == 503 || a.status == 507) && a.header.Get("Retry-After") == "" {
		t.Errorf("status %d without Retry-After: %s", a.status, a.body)
	}
}

// raw sends bytes as they are, which http.Client would correct, and reads one
// answer. The method says whether that has a body.
func (n *testNode) raw(method, request string) answer {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		n.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		n.t.Fatalf("%.80q: %v", request, err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatalf("%.80q: %v", request, err)
	}
	a.body = string(b)
	return a
}

// want fails unless the answer has this status and, where it is not empty, code.
func (n *testNode) want(a answer, status int, code string) {
	n.t.Helper()
	if a.status != status || code != "" && a.code() != code {
		n.t.Errorf("got %d %s, want %d %s: %s", a.status, a.code(), status, code, a.body)
	}
}

// object reads an answer as JSON, numbers as they are written.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return m
}
