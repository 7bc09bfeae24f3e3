package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"kvs/config"
)

// TestOwnRefusals: what net/http refuses before any handler is a problem too.
func TestOwnRefusals(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct {
		request string
		status  int
		code    string
	}{
		{"nonsense\r\n\r\n", 400, "bad_request"},
		{"GET /kv/a HTTP/1.1\r\n\r\n", 400, "bad_request"}, // no Host
		{"GET /kv/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"},
		{"GET /kv/a HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n", 400, "bad_request"},
		{"GET /kv/a HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431, "headers_too_large"},
		{"GET /kv/a HTTP/9.9\r\nHost: h\r\n\r\n", 505, "bad_request"},
		{"PUT /kv/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: nonsense\r\n\r\n", 501, "not_implemented"},
		{"PUT /kv/a HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400, "bad_request"},
		{"PUT /kv/a HTTP/1.1\r\nHost: h\r\nExpect: nonsense\r\nContent-Length: 1\r\n\r\n1", 417, "bad_request"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, "not_found"},
		{"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 404, "not_found"},
		{"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nConnection: close\r\n\r\n", 404, "not_found"},
		{"CONNECT /kv/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 405, "method_not_allowed"},
		{"PUT /kv/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nxyz\r\n", 400, "bad_request"},
		{"GET /kv/a HTTP/1.0\r\n\r\n", 404, "key_not_found"},
	} {
		a := n.raw("GET", c.request)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%.60q: %d %s", c.request, a.status, a.body)
		}
		checkProblem(t, a)
	}
}

// TestOwnRefusalsOfLaterRequests: on a connection that was kept as well.
func TestOwnRefusalsOfLaterRequests(t *testing.T) {
	n := startNode(t)
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	for _, request := range []string{"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", "GET /health HTTP/1.1\r\nHost: h\r\n\r\n", "nonsense\r\n\r\n"} {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := readAnswer(t, resp)
		if want := map[bool]int{true: 200, false: 400}[strings.HasPrefix(request, "GET")]; a.status != want {
			t.Errorf("%.20q: %d %s", request, a.status, a.body)
		}
	}
}

// deadlines notes the write deadlines that are set.
type deadlines struct {
	net.Conn
	set []time.Time
}

func (d *deadlines) Write(b []byte) (int, error)   { return len(b), nil }
func (d *deadlines) SetDeadline(t time.Time) error { return d.SetWriteDeadline(t) }
func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// TestWriteDeadline: every answer has one, not just a connection's first, until
// somebody takes the deadlines over.
func TestWriteDeadline(t *testing.T) {
	for _, secure := range []*tls.Conn{nil, {}} {
		d := &deadlines{}
		c := &conn{Conn: d, tls: secure}
		write := func() {
			t.Helper()
			if _, err := c.Write(make([]byte, 3*writeChunk)); err != nil {
				t.Fatal(err)
			}
		}
		last := func() time.Time { return d.set[len(d.set)-1] }
		for range 3 {
			write()
			if left := time.Until(last()); left < writeTimeout/2 || left > writeTimeout {
				t.Errorf("%s is left", left)
			}
			_ = c.SetWriteDeadline(time.Time{}) // net/http, after the answer
			c.writeBy = time.Now().Add(-time.Second)
		}
		_ = c.SetDeadline(time.Time{}) // net/http, when it hands the connection over
		write()
		own := time.Now().Add(time.Second)
		_ = c.SetWriteDeadline(own)
		write()
		_ = c.SetWriteDeadline(time.Time{})
		write()
		if tail := d.set[len(d.set)-3:]; !tail[0].IsZero() || !tail[1].Equal(own) || !tail[2].IsZero() {
			t.Errorf("%v", d.set)
		}
	}
}

// TestValuesThatLookLikeAnswers are left alone on their way out.
func TestValuesThatLookLikeAnswers(t *testing.T) {
	n := startNode(t)
	fake := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request\n"
	value := strings.Repeat(fake, 5000)
	n.want(n.do("PUT", "/kv/a", value, "Content-Type", "text/plain"), 201, "")
	for range 3 {
		if a := n.do("GET", "/kv/a?raw", ""); a.body != value {
			t.Fatalf("%d bytes came back as %d", len(value), len(a.body))
		}
	}
}

func TestSlowBody(t *testing.T) {
	n := startNode(t)
	n.bodyGrace = 50 * time.Millisecond // before the first request: the server goroutines see it
	a := n.raw("PUT", "PUT /kv/a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n1")
	n.want(a, 408, "body_timeout")
	n.want(n.do("GET", "/kv/a", ""), 404, "key_not_found")
}

// TestUnreadBody: one that no handler wants cannot hold the connection either.
func TestUnreadBody(t *testing.T) {
	n := startNode(t)
	n.bodyGrace = 50 * time.Millisecond
	for _, line := range []string{"PUT /kv/a//b", "GET /kv/a", "PUT /kv/a?x", "POST /nothing", "PATCH /kv/a"} {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n1", line)
		// The server answers and closes, without the other 99 bytes.
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 4") {
			t.Errorf("%s: %v %.100s", line, err, b)
		}
		c.Close()
	}
}

// TestBodyBudget: large bodies share a bound, small ones do not need it, and
// what an answered request had is free again.
func TestBodyBudget(t *testing.T) {
	n := startNode(t)
	large := `"` + strings.Repeat("x", 200<<10) + `"`
	n.bodies.used.Store(maxBodies)
	n.want(n.do("PUT", "/kv/a", large), 503, "overloaded")
	n.want(n.do("PUT", "/kv/a", `1`), 201, "")
	n.bodies.used.Store(0)
	n.want(n.do("PUT", "/kv/a", large), 200, "")
	eventually(t, "the memory is free again", func() bool { return n.bodies.used.Load() == 0 })
}

// TestFullDisk: writes are refused, reads are not.
func TestFullDisk(t *testing.T) {
	n := startNode(t, func(c *config.Config) { c.MinFreeDisk = 1 << 60 })
	n.want(n.do("PUT", "/kv/a", `1`), 507, "disk_full")
	n.want(n.do("POST", "/kv/_batch", `{"ops":[{"op":"put","key":"a","data":1}]}`), 507, "disk_full")
	n.want(n.do("POST", "/kv/_batch", `{"ops":[{"op":"get","key":"a"}]}`), 200, "")
	n.want(n.do("GET", "/kv/a", ""), 404, "key_not_found")
	if a := n.do("GET", "/ready", ""); a.status != 503 || !strings.Contains(a.member("reason"), "disk") {
		t.Errorf("ready: %d %s", a.status, a.body)
	}
	n.want(n.do("GET", "/health", ""), 200, "")
}

// TestSlowButSteadyBody takes longer than the grace and is let through: what
// has come buys time.
func TestSlowButSteadyBody(t *testing.T) {
	n := startNode(t)
	n.bodyGrace = 500 * time.Millisecond
	r, w := io.Pipe()
	go func() {
		_, err := io.WriteString(w, `"`+strings.Repeat("x", 10<<10)) // worth ten seconds
		time.Sleep(800 * time.Millisecond)                           // the slowness is the test
		if err == nil {
			_, err = io.WriteString(w, `"`)
		}
		w.CloseWithError(err)
	}()
	req, _ := http.NewRequest("PUT", "http://"+n.addr+"/kv/a", r)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	n.want(readAnswer(t, resp), 201, "")
}

// TestDeadlineIsLifted: a body's deadline must not end what comes after it.
func TestDeadlineIsLifted(t *testing.T) {
	n := startNode(t)
	n.bodyGrace = 50 * time.Millisecond
	n.peers.set(func(p *fakePeers) {
		p.await = func(ctx context.Context, others int) (int, error) {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(300 * time.Millisecond): // longer than the body's deadline
				return others, nil
			}
		}
	})
	n.want(n.do("PUT", "/kv/a?w=2", `1`), 201, "")
}

func TestConnectionCap(t *testing.T) {
	n := startNode(t, func(c *config.Config) { c.MaxConnections = 2 })
	open := func() net.Conn {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	ask := func(c net.Conn, path string) answer {
		t.Helper()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{resp.StatusCode, resp.Header, string(b)}
	}
	held := []net.Conn{open(), open()}
	for _, c := range held {
		n.want(ask(c, "/health"), 200, "")
	}
	// Beyond the cap: clients are told, other nodes are served.
	over := open()
	a := ask(over, "/health")
	n.want(a, 503, "too_many_connections")
	checkProblem(t, a)
	n.want(ask(open(), "/sync/push"), 404, "feature_disabled") // what serves nodes here

	// Beyond what is kept for nodes as well: told at once, without a request.
	var more []net.Conn
	for range reservedConns + 4 {
		more = append(more, open())
	}
	resp, err := http.ReadResponse(bufio.NewReader(more[len(more)-1]), nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("%v %v", resp, err)
	}
	for _, c := range more {
		c.Close()
	}
	for _, c := range held {
		c.Close()
	}
	over.Close()
	// Room again, as soon as the server has seen the ends.
	for deadline := time.Now().Add(10 * time.Second); ; {
		c := open()
		a := ask(c, "/health")
		c.Close()
		if a.status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room again: %d %s", a.status, a.body)
		}
	}
	if n.conns.refused.Load() == 0 {
		t.Error("refusals are not counted")
	}
}

// TestStopping: no new request is taken.
func TestStopping(t *testing.T) {
	n := startNode(t)
	n.stopping.Store(true)
	a := n.do("GET", "/kv/a", "")
	n.want(a, 503, "shutting_down")
	n.want(n.do("GET", "/sync/push", ""), 404, "feature_disabled") // what serves nodes here
}

// TestPanic: a handler's panic is an answer, and the node goes on.
func TestPanic(t *testing.T) {
	n := startNode(t)
	n.peers.set(func(p *fakePeers) { p.await = func(context.Context, int) (int, error) { panic("oops") } })
	n.want(n.do("PUT", "/kv/a?w=2", `1`), 500, "internal")
	n.want(n.do("GET", "/kv/a", ""), 200, "")
}
