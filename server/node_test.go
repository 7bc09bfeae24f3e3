package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"kvs/config"
)

// runNode runs a whole node until the test ends, or until stop is called, which
// gives what Run gave.
func runNode(t *testing.T, cfg config.Config) (n *Node, stop func() error) {
	t.Helper()
	n, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var result error
	go func() {
		defer close(done)
		result = n.Run(ctx)
	}()
	stop = func() error {
		cancel()
		<-done
		return result
	}
	t.Cleanup(func() { stop() })
	return n, stop
}

// nodeConfig is that of a node of a test's own cluster.
func nodeConfig(t *testing.T, name string, seeds ...string) config.Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.NodeID, cfg.SeedNodes, cfg.ClusterSecret = name, seeds, "a secret of a test, of 32 bytes and more"
	return cfg
}

// ask sends a request to a node; the status is 0 where there is no answer.
func ask(t *testing.T, addr, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true // a node that stops is not to be held up
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// eventually polls.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestNodeKeepsItsData(t *testing.T) {
	cfg := nodeConfig(t, "solo")
	cfg.ClusteringEnabled = false
	n, stop := runNode(t, cfg)
	if a := ask(t, n.Addr(), "PUT", "/kv/a", `{"n": 1}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	// Alone there is nobody else to acknowledge anything.
	a := ask(t, n.Addr(), "PUT", "/kv/a?w=2", `{"n": 2}`)
	if a.status != 504 || !strings.Contains(a.body, "clustering_enabled") {
		t.Errorf("w=2 alone: %d %s", a.status, a.body)
	}
	for path, want := range map[string]int{"/members/": 200, "/health": 200, "/ready": 200, "/metrics": 200, "/sync/merkle/root": 200, "/sync/push": 404} {
		if a := ask(t, n.Addr(), "GET", path, ""); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, n.Addr(), "GET", "/kv/a", ""); a.status != 0 {
		t.Errorf("a stopped node answers %d", a.status)
	}
	again, _ := runNode(t, cfg)
	if a := ask(t, again.Addr(), "GET", "/kv/a?raw", ""); a.body != `{"n": 2}` {
		t.Errorf("after a restart: %d %s", a.status, a.body)
	}
}

// TestStopWaitsForRequests: what has begun is answered, and kept.
func TestStopWaitsForRequests(t *testing.T) {
	cfg := nodeConfig(t, "solo")
	n, stop := runNode(t, cfg)
	c, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(c, "PUT /kv/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatal(line, err) // the handler waits for the body
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	eventually(t, "the port is closed", func() bool { return ask(t, n.Addr(), "GET", "/health", "").status != 200 })
	fmt.Fprint(c, "1")
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), "201 Created") {
		t.Errorf("%v %s", err, rest)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	again, _ := runNode(t, cfg)
	if a := ask(t, again.Addr(), "GET", "/kv/a?raw", ""); a.body != "1" {
		t.Errorf("after the stop: %d %s", a.status, a.body)
	}
}

func TestNodesConverge(t *testing.T) {
	one, _ := runNode(t, nodeConfig(t, "one"))
	two, stopTwo := runNode(t, nodeConfig(t, "two", one.Addr()))
	three, _ := runNode(t, nodeConfig(t, "three", one.Addr(), two.Addr()))
	nodes := []*Node{one, two, three}
	for _, n := range nodes {
		eventually(t, "three live members", func() bool {
			var h struct {
				Mode    string
				Members int `json:"member_count"`
			}
			_ = json.Unmarshal([]byte(ask(t, n.Addr(), "GET", "/health", "").body), &h)
			return h.Members == 3 && h.Mode == "normal"
		})
	}
	for i, n := range nodes {
		a := ask(t, n.Addr(), "PUT", fmt.Sprintf("/kv/from/%d?w=all&timeout=10s", i), fmt.Sprint(i))
		if a.status != 201 || a.object(t)["replicas"] != json.Number("3") {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	for _, n := range nodes {
		for i := range nodes {
			if a := ask(t, n.Addr(), "GET", fmt.Sprintf("/kv/from/%d?raw", i), ""); a.body != fmt.Sprint(i) {
				t.Errorf("%s has %s under %d", n.cfg.NodeID, a.body, i)
			}
		}
	}
	eventually(t, "equal roots", func() bool {
		var roots []any
		for _, n := range nodes {
			roots = append(roots, ask(t, n.Addr(), "GET", "/sync/merkle/root", "").object(t)["root"])
		}
		return roots[0] == roots[1] && roots[1] == roots[2]
	})
	// Between nodes only.
	for _, path := range []string{"/sync/push", "/sync/gossip", "/sync/nothing"} {
		a := ask(t, one.Addr(), "POST", path, "")
		if checkProblem(t, a); a.status != 401 || a.code() != "unauthorized" {
			t.Errorf("%s without a token: %d %s", path, a.status, a.body)
		}
	}

	// One that stops is still on the roster, and is known to have left.
	if err := stopTwo(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two is known to have left", func() bool {
		return strings.Contains(ask(t, one.Addr(), "GET", "/members/", "").body, `"state":"left"`)
	})
	// One that leaves for good stops by itself, without an error.
	if a := ask(t, three.Addr(), "POST", "/members/leave", ""); a.status != 200 {
		t.Fatalf("leave: %d %s", a.status, a.body)
	}
	eventually(t, "three stops", func() bool { return ask(t, three.Addr(), "GET", "/health", "").status == 0 })
	eventually(t, "three is off the roster", func() bool {
		return !strings.Contains(ask(t, one.Addr(), "GET", "/members/", "").body, `"id":"three"`)
	})
}

// TestSecondNodeOfOneName must stop with an error, and the first go on.
func TestSecondNodeOfOneName(t *testing.T) {
	first, _ := runNode(t, nodeConfig(t, "same"))
	second, err := New(nodeConfig(t, "same", first.Addr()), Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), "same") || ctx.Err() != nil {
		t.Errorf("the second node ended with %v", err)
	}
	if a := ask(t, first.Addr(), "PUT", "/kv/a", "1"); a.status != 201 {
		t.Errorf("the first node: %d %s", a.status, a.body)
	}
}

func TestNewRefuses(t *testing.T) {
	log := Options{Log: slog.New(slog.DiscardHandler)}
	n, err := New(nodeConfig(t, "one"), log)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var port int
	fmt.Sscanf(n.Addr(), "127.0.0.1:%d", &port)

	taken := nodeConfig(t, "two")
	taken.Port = port
	if _, err := New(taken, log); err == nil || !strings.Contains(err.Error(), n.Addr()) {
		t.Errorf("a taken port: %v", err)
	}
	short := nodeConfig(t, "two")
	short.ClusterSecret = "short"
	if _, err := New(short, log); err == nil || !strings.Contains(err.Error(), "cluster_secret") {
		t.Errorf("a short secret: %v", err)
	}
	// What New had opened is closed again.
	short.ClusterSecret = "a secret of a test, of 32 bytes and more"
	if n, err := New(short, log); err != nil {
		t.Error(err)
	} else if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestTeardown(t *testing.T) {
	var order []string
	down := teardown{log: slog.New(slog.DiscardHandler)}
	for _, name := range []string{"first", "second", "third"} {
		down.push(name, func() error {
			order = append(order, name)
			if name == "first" {
				return nil
			}
			return errors.New("broken")
		})
	}
	if err := down.run(); err == nil || err.Error() != "third: broken" {
		t.Errorf("the first failure is %v", err)
	}
	if err := down.run(); err != nil || !slices.Equal(order, []string{"third", "second", "first"}) {
		t.Errorf("%v, %v", order, err)
	}
}

func TestAdvertised(t *testing.T) {
	for _, c := range []struct{ bind, advertise, want string }{
		{"127.0.0.1:8080", "", "127.0.0.1:8080"},
		{"127.0.0.1:8080", "kvs.example:80", "kvs.example:80"},
		{"[::1]:8080", "", "[::1]:8080"},
	} {
		got, err := advertised(config.Config{AdvertiseAddress: c.advertise}, stringAddr(c.bind))
		if err != nil || got != c.want {
			t.Errorf("%v: %s, %v", c, got, err)
		}
	}
	got, err := advertised(config.Config{}, stringAddr("0.0.0.0:8080"))
	if err != nil || !hostPort(got) || strings.HasPrefix(got, "0.") {
		t.Errorf("a node on every address advertises %s, %v", got, err)
	}
}

type stringAddr string

func (a stringAddr) Network() string { return "tcp" }
func (a stringAddr) String() string  { return string(a) }
