package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvs/cluster/rpc"
	"kvs/types"
	"kvs/utils/certs"
)

// testCA signs the certificates of one test's nodes.
type testCA struct {
	*certs.Authority
	t   *testing.T
	dir string
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	a, err := certs.NewAuthority("a CA of a test", time.Now().Add(-900*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{a, t, t.TempDir()}
	if err := a.Save(ca.file("ca.pem"), ca.file("ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	return ca
}

func (ca *testCA) file(name string) string { return filepath.Join(ca.dir, name) }

// node makes the files of a node; those of the same name are replaced.
func (ca *testCA) node(name string, hosts ...string) certs.Files {
	ca.t.Helper()
	f := certs.Files{Cert: ca.file(name + ".pem"), Key: ca.file(name + "-key.pem"), CA: ca.file("ca.pem")}
	issued, err := ca.Issue(name, hosts, time.Now())
	if err != nil {
		ca.t.Fatal(err)
	}
	os.Remove(f.Cert)
	os.Remove(f.Key)
	if err := issued.Save(f.Cert, f.Key); err != nil {
		ca.t.Fatal(err)
	}
	return f
}

// shown is a certificate that a client shows, whether it is any good or not.
func (ca *testCA) shown(made time.Time) func() *tls.Config {
	ca.t.Helper()
	issued, err := ca.Issue("client", []string{"client"}, made)
	if err != nil {
		ca.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(issued.Cert, issued.Key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return func() *tls.Config {
		return &tls.Config{RootCAs: ca.pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
	}
}

// trusting is the configuration of a client without a certificate.
func (ca *testCA) trusting() *tls.Config { return &tls.Config{RootCAs: ca.pool()} }

func (ca *testCA) pool() *x509.CertPool {
	b, err := os.ReadFile(ca.file("ca.pem"))
	if err != nil {
		ca.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return pool
}

// safeBuffer is a log that several goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// tlsServer is the HTTP side of a node with TLS, with next to nothing behind it.
type tlsServer struct {
	t     *testing.T
	port  *tlsPort
	conns *limitListener
	http  *http.Server
	addr  string
	log   *safeBuffer
}

// serveTLS serves calls between nodes under /sync/, which are echoed, and others.
func serveTLS(t *testing.T, f certs.Files, adjust ...func(s *tlsServer)) *tlsServer {
	t.Helper()
	s := &tlsServer{t: t, log: &safeBuffer{}}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	var err error
	if s.port, err = newTLSPort(f, log); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	echo := func(_ context.Context, body []byte) ([]byte, error) { return body, nil }
	mux.Handle("/sync/", s.port.nodesOnly(rpc.Handler(0, log, echo)))
	mux.HandleFunc("/kv/", func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || !r.TLS.HandshakeComplete {
			t.Error("the request does not know that it came over TLS")
		}
		if connOf(r.Context()).taken.Load() {
			t.Error("the time-out of writing is off")
		}
		if r.Method == "PUT" {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Write(b)
			return
		}
		io.WriteString(w, "hello")
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	s.conns = newLimitListener(ln, 100)
	s.conns.port = s.port
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connOf(r.Context()).begin(r)
			mux.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
	}
	followConns(s.http)
	for _, f := range adjust {
		f(s)
	}
	served := make(chan struct{})
	go func() { defer close(served); s.http.Serve(s.conns) }()
	t.Cleanup(func() { s.http.Close(); <-served })
	return s
}

// call calls the server as another node with this configuration would.
func (s *tlsServer) call(conf func() *tls.Config) error {
	s.t.Helper()
	return s.callAt(s.addr, conf)
}

func (s *tlsServer) callAt(addr string, conf func() *tls.Config) error {
	s.t.Helper()
	c := rpc.New(rpc.Options{Dial: tlsDial(reach(s.addr), conf)})
	defer c.Close()
	b, err := c.Call(s.t.Context(), addr, "/sync/echo", []byte("hi"))
	if err == nil && string(b) != "hi" {
		s.t.Errorf("the answer is %q", b)
	}
	return err
}

// reach dials one address, whatever it is asked for: names need no resolver.
func reach(addr string) dialFunc {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
}

// open makes a connection that the test speaks on by itself.
func (s *tlsServer) open(conf *tls.Config) *tls.Conn {
	s.t.Helper()
	conf.ServerName = "127.0.0.1"
	c, err := tls.Dial("tcp", s.addr, conf)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func (s *tlsServer) ask(c net.Conn, request string) answer {
	s.t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	return s.hear(c)
}

func (s *tlsServer) hear(c net.Conn) answer {
	s.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return readAnswer(s.t, resp)
}

const askHello = "GET /kv/a HTTP/1.1\r\nHost: h\r\n\r\n"

func TestMutualTLS(t *testing.T) {
	ca, foreign := newTestCA(t), newTestCA(t)
	s := serveTLS(t, ca.node("node1", "node1", "127.0.0.1"))
	caller, err := certs.Load(ca.node("node2", "node2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{s.addr, "node1:8080"} {
		if err := s.callAt(addr, caller.ClientConfig); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}

	// Who calls as a node without being one.
	trustless := func(conf func() *tls.Config) func() *tls.Config {
		return func() *tls.Config {
			c := conf()
			c.RootCAs = ca.pool() // it knows the CA, but is not of it
			return c
		}
	}
	for name, c := range map[string]struct {
		conf func() *tls.Config
		want string
	}{
		"no certificate": {ca.trusting, "the caller showed no certificate"},
		"another CA":     {trustless(foreign.shown(time.Now())), "for client, is not accepted: it was signed by another CA"},
		"ended":          {ca.shown(time.Now().Add(-890 * 24 * time.Hour)), "for client, is not accepted: the one for client is good from"},
	} {
		err := s.call(c.conf)
		var refused *rpc.Error
		if !errors.As(err, &refused) || refused.Status != 403 || refused.Code != "certificate_required" || !strings.Contains(refused.Detail, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := s.log.String(); strings.Count(got, "a call for nodes was refused") != 1 || !strings.Contains(got, "from=127.0.0.1") || !strings.Contains(got, "path=/sync/echo") {
		t.Errorf("the log:\n%s", got)
	}

	// Clients with a token need no certificate, and one of something else does no harm.
	for _, conf := range []*tls.Config{ca.trusting(), trustless(foreign.shown(time.Now()))()} {
		if a := s.ask(s.open(conf), askHello); a.status != 200 || a.body != "hello" {
			t.Errorf("%+v", a)
		}
	}
	// A refused connection is not kept: the next may show a better certificate.
	c := s.open(ca.trusting())
	a := s.ask(c, "POST /sync/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
	checkProblem(t, a)
	if _, err := c.Read(make([]byte, 1)); a.status != 403 || err != io.EOF {
		t.Errorf("%d, then %v", a.status, err)
	}
}

// TestServerIsVerified: the caller makes sure of whom it talks to, and says what
// may be wrong.
func TestServerIsVerified(t *testing.T) {
	ca, foreign := newTestCA(t), newTestCA(t)
	s := serveTLS(t, ca.node("node1", "node1"))
	caller, err := certs.Load(ca.node("node2", "node2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := certs.Load(foreign.node("node3", "node3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	alone := ca.node("node4", "node4")
	alone.CA = "" // verifies with the system's CAs
	system, err := certs.Load(alone, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr   string
		source *certs.Source
		want   string
	}{
		{s.addr, caller, "its certificate is not for the address"},
		{"node2:1", caller, "is valid for node1, not node2"},
		{"node1:1", other, "signed by a CA that is not in this node's tls_ca_file"},
		{"node1:1", system, "signed by a CA that is not in this node's tls_ca_file"},
	} {
		err := s.callAt(c.addr, c.source.ClientConfig)
		if !errors.Is(err, types.ErrUnreachable) || !strings.Contains(err.Error(), "TLS with "+c.addr) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.addr, err)
		}
	}
	// The called node's log says what to look at, once.
	eventually(t, "the refusal is logged", func() bool {
		return strings.Contains(s.log.String(), "a caller does not accept this node's certificate")
	})
	if n := strings.Count(s.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, s.log.String())
	}
	// A node without TLS, and one that ends every connection.
	plain := httpServer(t)
	dial := tlsDial(reach(plain), caller.ClientConfig)
	if _, err := dial(t.Context(), plain); err == nil || !strings.Contains(err.Error(), "does not speak TLS (set tls_cert_file") {
		t.Errorf("%v", err)
	}
	if _, err := dial(t.Context(), "no port"); err == nil {
		t.Error("dialled an address without a port")
	}
}

func httpServer(t *testing.T) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return ln.Addr().String()
}

// alertInTheClear makes the alert of a client that refuses a certificate one
// without encryption, as OpenSSL sends it.
type alertInTheClear struct {
	net.Conn
	wrote bool
}

func (c *alertInTheClear) Write(b []byte) (int, error) {
	if c.wrote {
		_, err := c.Conn.Write([]byte{21, 3, 3, 0, 2, 2, 48}) // unknown_ca
		return len(b), err
	}
	c.wrote = true
	return c.Conn.Write(b)
}

func TestRefusedByOpenSSL(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"))
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conf := newTestCA(t).trusting()
	conf.ServerName = "127.0.0.1"
	if err := tls.Client(&alertInTheClear{Conn: raw}, conf).Handshake(); !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Fatalf("%v", err)
	}
	eventually(t, "the refusal is logged", func() bool {
		return strings.Contains(s.log.String(), "a caller does not accept this node's certificate")
	})
}

// TestDialEnds: a server that says nothing does not hold the caller.
func TestDialEnds(t *testing.T) {
	ca := newTestCA(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := tlsDial(reach(ln.Addr().String()), ca.trusting)(ctx, "node1:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestOneWayTLS: without a CA nodes are known by their token alone.
func TestOneWayTLS(t *testing.T) {
	ca := newTestCA(t)
	f := ca.node("node1", "127.0.0.1")
	f.CA = ""
	s := serveTLS(t, f)
	if err := s.call(ca.trusting); err != nil {
		t.Error(err)
	}
}

// TestNoTLS: what a node without TLS does with the same calls.
func TestNoTLS(t *testing.T) {
	p, err := newTLSPort(certs.Files{CA: "ca.pem"}, nil)
	if p != nil || err != nil {
		t.Fatalf("%v, %v", p, err)
	}
	h := http.NotFoundHandler()
	if fmt.Sprint(p.nodesOnly(h)) != fmt.Sprint(h) || p.nodeVerified(nil) != nil || p.scheme() != "http" {
		t.Error("something is asked for")
	}
	reached := false
	p.dial(func(context.Context, string) (net.Conn, error) { reached = true; return nil, nil })(t.Context(), "no port")
	if !reached {
		t.Error("dial is not passed on")
	}
	p.watchExpiry(t.Context()) // ends by itself
	p.warnHost("node1:1")
	if _, err := newTLSPort(certs.Files{Cert: "none.pem"}, nil); err == nil || !strings.Contains(err.Error(), "TLS: certificate file: open none.pem") {
		t.Errorf("%v", err)
	}
}

func TestWarnHost(t *testing.T) {
	s := serveTLS(t, newTestCA(t).node("node1", "node1", "::1"))
	s.port.warnHost("node1:8080")
	s.port.warnHost("[::1]:8080")
	if got := s.log.String(); got != "" {
		t.Errorf("the log:\n%s", got)
	}
	s.port.warnHost("10.0.0.1:8080")
	if got := s.log.String(); !strings.Contains(got, "is for node1, ::1, and not for 10.0.0.1") || !strings.Contains(got, "advertise_address") {
		t.Errorf("the log:\n%s", got)
	}
}

// TestNodesOnlyWithoutConn: what is not known to be verified is refused.
func TestNodesOnlyWithoutConn(t *testing.T) {
	s := serveTLS(t, newTestCA(t).node("node1", "node1"))
	r, _ := http.NewRequest("POST", "https://node1/sync/echo", nil)
	if err := s.port.nodeVerified(r); err == nil {
		t.Error("verified")
	}
}

// TestRefusalsUnderTLS: net/http's own refusals are problems here too.
func TestRefusalsUnderTLS(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"))
	for _, c := range []struct {
		request string
		status  int
		code    string
	}{
		{"nonsense\r\n\r\n", 400, "bad_request"},
		{"GET /kv/a HTTP/1.1\r\n\r\n", 400, "bad_request"},
		{"GET /kv/a HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431, "headers_too_large"},
		{"GET /kv/a HTTP/9.9\r\nHost: h\r\n\r\n", 505, "bad_request"},
		{"PUT /kv/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: nonsense\r\n\r\n", 501, "not_implemented"},
	} {
		a := s.ask(s.open(ca.trusting()), c.request)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%.60q: %d %s", c.request, a.status, a.body)
		}
		checkProblem(t, a)
	}
	// A second request on a connection is refused as the first; answers that look
	// like refusals are not touched.
	c := s.open(ca.trusting())
	fake := strings.Repeat("HTTP/1.1 400 Bad Request\r\n\r\n", 10_000)
	for range 3 {
		if a := s.ask(c, fmt.Sprintf("PUT /kv/a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(fake), fake)); a.body != fake {
			t.Fatalf("%d bytes came back as %d", len(fake), len(a.body))
		}
	}
	checkProblem(t, s.ask(c, "nonsense\r\n\r\n"))
	if got := s.log.String(); got != "" {
		t.Errorf("the log:\n%s", got)
	}
}

// TestPlainHTTP on the TLS port is told what to do.
func TestPlainHTTP(t *testing.T) {
	s := serveTLS(t, newTestCA(t).node("node1", "127.0.0.1"))
	for _, request := range []string{askHello, "DELETE /kv/a HTTP/1.1\r\nHost: h\r\n\r\n", "PUT /kv/a HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("x", 50000)} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		a := s.ask(c, request)
		checkProblem(t, a)
		if a.status != 400 || a.code() != "bad_request" || !strings.Contains(a.member("detail"), "use https://") {
			t.Errorf("%.20q: %+v", request, a)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("then %v", err)
		}
	}
	// Another node without TLS reads it, and so does its log.
	c := rpc.New(rpc.Options{Dial: reach(s.addr)})
	defer c.Close()
	if _, err := c.Call(t.Context(), s.addr, "/sync/echo", nil); err == nil || !strings.Contains(err.Error(), "tls_cert_file on every one") {
		t.Errorf("%v", err)
	}
	if got := s.log.String(); strings.Count(got, "a request without TLS was refused") != 1 || strings.Count(got, "\n") != 1 {
		t.Errorf("the log:\n%s", got)
	}
	// Something else is closed without a word.
	for _, request := range []string{"SSH-2.0-x\r\n", "\x00\x01\x02\x03\x04\x05", "GE"} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, request)
		c.(*net.TCPConn).CloseWrite()
		if b, _ := io.ReadAll(c); bytes.Contains(b, []byte("HTTP")) != strings.HasPrefix(request, "SSH") {
			t.Errorf("%q is answered %q", request, b)
		}
	}
}

// TestStalledHandshake holds nobody else up, and is cut.
func TestStalledHandshake(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"), func(s *tlsServer) { s.http.ReadHeaderTimeout = 300 * time.Millisecond })
	var stalled []net.Conn
	for _, begin := range []string{"", "\x16\x03\x01\x02\x00\x01\x00"} { // silence, and a part of a hello
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, begin)
		stalled = append(stalled, c)
	}
	// One that goes silent after the handshake.
	silent := s.open(ca.trusting())
	if a := s.ask(s.open(ca.trusting()), askHello); a.status != 200 {
		t.Errorf("%+v", a)
	}
	for i, c := range append(stalled, silent) {
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("%d ends with %q, %v", i, b, err)
		}
	}
	eventually(t, "the connections are counted out", func() bool { return s.conns.open.Load() == 1 })
	if got := s.log.String(); got != "" {
		t.Errorf("the log:\n%s", got)
	}
}

// TestCapUnderTLS: whoever is one too many is told so, over TLS.
func TestCapUnderTLS(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"), func(s *tlsServer) { s.conns.most = 1 - reservedConns })
	if a := s.ask(s.open(ca.trusting()), askHello); a.status != 200 {
		t.Errorf("%+v", a)
	}
	for range 3 {
		a := s.hear(s.open(ca.trusting()))
		if a.status != 503 || a.code() != "too_many_connections" || a.header.Get("Retry-After") == "" {
			t.Errorf("%+v", a)
		}
	}
	// One that does not even shake hands is not waited for.
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if n := s.conns.refused.Load(); n != 4 {
		t.Errorf("%d refusals are counted", n)
	}
}

// TestReloadUnderTLS: a connection lives on, and new ones see the new certificate.
func TestReloadUnderTLS(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1", "before"))
	c := s.open(ca.trusting())
	if a := s.ask(c, askHello); a.status != 200 {
		t.Fatalf("%+v", a)
	}
	caller, err := certs.Load(ca.node("node2", "node2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := rpc.New(rpc.Options{Dial: tlsDial(reach(s.addr), caller.ClientConfig)})
	defer client.Close()
	call := func() {
		t.Helper()
		if _, err := client.Call(t.Context(), s.addr, "/sync/echo", nil); err != nil {
			t.Error(err)
		}
	}
	call()
	ca.node("node1", "127.0.0.1", "after")
	if err := s.port.source.Reload(); err != nil {
		t.Fatal(err)
	}
	if a := s.ask(c, askHello); a.status != 200 {
		t.Errorf("%+v", a)
	}
	call()
	if n := s.conns.open.Load(); n != 2 {
		t.Errorf("%d connections: some were not kept", n)
	}
	for conn, want := range map[*tls.Conn]string{c: "before", s.open(ca.trusting()): "after"} {
		if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(want); err != nil {
			t.Error(err)
		}
	}
	// A broken file changes nothing.
	if err := os.WriteFile(ca.file("node1.pem"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.port.source.Reload(); err == nil {
		t.Error("a broken file was taken")
	}
	if a := s.ask(s.open(ca.trusting()), askHello); a.status != 200 {
		t.Errorf("%+v", a)
	}
}

// TestUpgradeUnderTLS: a stream that takes the connection over, as gossip does.
func TestUpgradeUnderTLS(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"), func(s *tlsServer) {
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connOf(r.Context()).begin(r)
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			io.Copy(c, buffered)
		})
	})
	c := s.open(ca.trusting())
	io.WriteString(c, "GET /sync/gossip HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	r := bufio.NewReader(c)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	sent := bytes.Repeat([]byte("HTTP/1.1 400 no refusal\r\n"), 20_000)
	go c.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v", err)
	}
}

// TestProtocols: what a client may and may not speak.
func TestProtocols(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"))
	conf := ca.trusting()
	conf.MaxVersion = tls.VersionTLS12
	conf.NextProtos = []string{"h2", "http/1.1"}
	c := s.open(conf)
	if st := c.ConnectionState(); st.Version != tls.VersionTLS12 || st.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%+v", st)
	}
	if a := s.ask(c, askHello); a.status != 200 {
		t.Errorf("%+v", a)
	}
	if st := s.open(ca.trusting()).ConnectionState(); st.Version != tls.VersionTLS13 {
		t.Errorf("%+v", st)
	}
	old := ca.trusting()
	old.MinVersion, old.MaxVersion, old.ServerName = tls.VersionTLS10, tls.VersionTLS11, "127.0.0.1"
	if _, err := tls.Dial("tcp", s.addr, old); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	eventually(t, "the old version is logged", func() bool { return strings.Contains(s.log.String(), "unsupported versions") })
}

func TestWatchExpiry(t *testing.T) {
	ca := newTestCA(t)
	f := ca.node("node1", "node1")
	synctest.Test(t, func(t *testing.T) {
		// A bubble's clock begins in 2000.
		now := time.Now()
		a, err := certs.NewAuthority("then", now)
		if err != nil {
			t.Fatal(err)
		}
		issued, err := a.Issue("node1", []string{"node1"}, now)
		if err != nil {
			t.Fatal(err)
		}
		f := certs.Files{Cert: f.Cert + ".then", Key: f.Key + ".then"}
		if err := issued.Save(f.Cert, f.Key); err != nil {
			t.Fatal(err)
		}
		var log safeBuffer
		p, err := newTLSPort(f, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		const day = 24 * time.Hour
		time.Sleep(day / 2) // so that a look is in the middle of each day that is left
		go func() { defer close(done); p.watchExpiry(ctx) }()
		time.Sleep(794*day + time.Hour)
		if got := log.String(); got != "" {
			t.Errorf("too early:\n%s", got)
		}
		time.Sleep(30 * day)
		if got := log.String(); strings.Count(got, "this node's certificate ends soon") != 30 || !strings.Contains(got, "days=29\n") || !strings.HasSuffix(got, "days=0\n") {
			t.Errorf("the log:\n%s", got)
		}
		time.Sleep(day)
		if got := log.String(); strings.Count(got, "this node's certificate has ended") != 1 {
			t.Errorf("the log:\n%s", got)
		}
		cancel()
		<-done
	})
}

// TestComplaints: however many strangers there are, the log stays small.
func TestComplaints(t *testing.T) {
	var log safeBuffer
	c := complaints{log: slog.New(slog.NewTextHandler(&log, nil))}
	for i := range 1000 {
		c.note(fmt.Sprintf("10.0.%d.%d:1234", i/250, i%250), "it is wrong")
		c.note("10.0.0.1:99", "it is wrong")
	}
	if n := strings.Count(log.String(), "\n"); n != maxComplaints {
		t.Errorf("%d lines", n)
	}
	if !c.due(complaint{"10.0.0.1", "it is wrong"}, time.Now().Add(complainEvery+time.Minute)) {
		t.Error("never again")
	}
}

// TestCallWithAnEndedCertificate: the caller's next connection shows the renewed
// one, although calls keep their connections.
func TestRenewedCaller(t *testing.T) {
	ca := newTestCA(t)
	s := serveTLS(t, ca.node("node1", "127.0.0.1"))
	foreign := newTestCA(t)
	bad, good := foreign.shown(time.Now()), ca.shown(time.Now())
	show := bad
	c := rpc.New(rpc.Options{Dial: tlsDial(reach(s.addr), func() *tls.Config {
		conf := show()
		conf.RootCAs = ca.pool()
		return conf
	})})
	defer c.Close()
	if _, err := c.Call(t.Context(), s.addr, "/sync/echo", nil); err == nil {
		t.Error("a foreign certificate was taken")
	}
	show = good
	if _, err := c.Call(t.Context(), s.addr, "/sync/echo", nil); err != nil {
		t.Error(err)
	}
}
