package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a source's time, which goes when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func load(t *testing.T, f Files, log io.Writer) (*Source, *clock) {
	t.Helper()
	s, err := Load(f, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{at: time.Now()}
	s.now = c.now
	s.use(s.current.Load().pair) // with the clock
	return s, c
}

// shake makes a handshake between two sources and gives what each saw of the
// other; offered replaces the client's certificate.
func shake(t *testing.T, server, client *Source, host string, offered ...tls.Certificate) (byServer, byClient *x509.Certificate, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	conf := client.ClientConfig()
	conf.ServerName = host
	if len(offered) > 0 {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &offered[0], nil }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	srv, cl := tls.Server(a, server.ServerConfig()), tls.Client(b, conf)
	done := make(chan error, 1)
	go func() { done <- srv.HandshakeContext(ctx) }()
	err = cl.HandshakeContext(ctx)
	if serr := <-done; err == nil {
		err = serr
	}
	if err != nil {
		return nil, nil, err
	}
	if peers := srv.ConnectionState().PeerCertificates; len(peers) > 0 {
		byServer = peers[0]
	}
	return byServer, cl.ConnectionState().PeerCertificates[0], nil
}

func TestHandshake(t *testing.T) {
	now := time.Now()
	a := authority(t, now)
	one, _ := load(t, newDir(t).files(a, issue(t, a, now, "node1", "127.0.0.1")), io.Discard)
	two, _ := load(t, newDir(t).files(a, issue(t, a, now, "node2")), io.Discard)
	stranger := authority(t, now)
	other, _ := load(t, newDir(t).files(stranger, issue(t, stranger, now, "other")), io.Discard)

	for _, host := range []string{"node1", "127.0.0.1"} {
		byServer, byClient, err := shake(t, one, two, host)
		if err != nil || byClient.DNSNames[0] != "node1" || byServer.DNSNames[0] != "node2" {
			t.Fatalf("%s: %v", host, err)
		}
		if err := new(Peer).Check(one, []*x509.Certificate{byServer}); err != nil {
			t.Error(err)
		}
	}
	// The client verifies the name and the CA.
	if _, _, err := shake(t, one, two, "node3"); !errors.As(err, new(x509.HostnameError)) {
		t.Errorf("%v", err)
	}
	if _, _, err := shake(t, one, other, "node1"); !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("%v", err)
	}
	// What the server makes of a client's certificate is no matter of the handshake.
	foreign := tls.Certificate{Certificate: [][]byte{other.current.Load().chain[0].Raw}, PrivateKey: other.current.Load().key}
	byServer, _, err := shake(t, one, two, "node1", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Peer).Check(one, []*x509.Certificate{byServer}); err == nil || !strings.Contains(err.Error(), "for other, is not accepted: it was signed by another CA") {
		t.Errorf("%v", err)
	}
	if byServer, _, err = shake(t, one, two, "node1", tls.Certificate{}); err != nil || byServer != nil {
		t.Errorf("%v", err)
	}
	if err := new(Peer).Check(one, nil); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("%v", err)
	}
	// A stolen certificate is nothing without its key.
	stolen := tls.Certificate{Certificate: [][]byte{two.current.Load().chain[0].Raw}, PrivateKey: other.current.Load().key}
	if _, _, err = shake(t, one, two, "node1", stolen); err == nil {
		t.Error("a certificate was taken without its key")
	}
}

func TestPeer(t *testing.T) {
	now := time.Now()
	d := newDir(t)
	a := authority(t, now)
	f := d.files(a, issue(t, a, now, "node1"))
	s, c := load(t, f, io.Discard)
	parse := func(i *Issued) []*x509.Certificate {
		leaf, err := x509.ParseCertificate(decodeOne(t, i.Cert))
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{leaf}
	}
	var p Peer
	short := parse(custom(t, a, func(c *x509.Certificate) { c.NotAfter = now.Add(30 * time.Minute) }))
	if err := p.Check(s, short); err != nil {
		t.Fatal(err)
	}
	// The verdict is not found anew: what is shown cannot change.
	if err := p.Check(s, nil); err != nil {
		t.Error(err)
	}
	c.add(31 * time.Minute)
	if err := p.Check(s, short); err == nil || !strings.Contains(err.Error(), "for custom is good from") {
		t.Errorf("an ended one: %v", err)
	}
	for name, shown := range map[string][]*x509.Certificate{
		"clientAuth":              parse(custom(t, a, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"another CA":              parse(issue(t, authority(t, now), now, "x")),
		"it is for no such thing": nil,
	} {
		err := new(Peer).Check(s, shown)
		if err == nil || shown != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A CA that is taken out of the file counts no more, on open connections too.
	mine := parse(issue(t, a, now, "node2"))
	p = Peer{}
	if err := p.Check(s, mine); err != nil {
		t.Fatal(err)
	}
	next := authority(t, now)
	d.files(next, issue(t, next, now, "node1"))
	c.add(checkEvery)
	if err := p.Check(s, mine); err == nil {
		t.Error("a CA that is gone still counts")
	}
	// A very long name does not make a very long line.
	long := custom(t, next, func(c *x509.Certificate) {
		for range 500 {
			c.DNSNames = append(c.DNSNames, strings.Repeat("x", 60))
		}
		c.NotAfter = now
	})
	if err := new(Peer).Check(s, parse(long)); err == nil || len(err.Error()) > 700 {
		t.Errorf("%v", err)
	}
	// Without a CA nobody is verified.
	f.CA = ""
	open, _ := load(t, f, io.Discard)
	if err := new(Peer).Check(open, mine); err == nil {
		t.Error("verified without a CA")
	}
}

func TestReload(t *testing.T) {
	now := time.Now()
	d := newDir(t)
	a := authority(t, now)
	var log bytes.Buffer
	s, c := load(t, d.files(a, issue(t, a, now, "first")), &log)
	serves := func(want string) {
		t.Helper()
		conf, err := s.ServerConfig().GetConfigForClient(nil)
		if err != nil || conf.Certificates[0].Leaf.DNSNames[0] != want {
			t.Errorf("serves %q, %v; want %s", conf.Certificates[0].Leaf.DNSNames, err, want)
		}
		shown, err := s.ClientConfig().GetClientCertificate(nil)
		if err != nil || shown.Leaf.DNSNames[0] != want {
			t.Errorf("shows %q, %v; want %s", shown.Leaf.DNSNames, err, want)
		}
	}
	told := func(want string, times int) {
		t.Helper()
		if n := strings.Count(log.String(), want); n != times {
			t.Errorf("%q is %d times in the log, want %d:\n%s", want, n, times, log.String())
		}
	}
	second := issue(t, a, now, "second")
	d.put("cert.pem", second.Cert, 0o644)
	serves("first") // nobody has looked yet
	c.add(checkEvery)
	serves("first") // the key is still that of the first
	told("level=", 0)
	d.put("key.pem", second.Key, 0o600)
	c.add(checkEvery)
	serves("second")
	told("level=INFO", 1)
	told("level=ERROR", 0)

	// A file that is and stays broken is reported, once.
	d.put("cert.pem", []byte("no PEM"), 0o644)
	for range 5 {
		c.add(checkEvery)
		serves("second")
	}
	told("level=ERROR", 1)
	told("cert.pem is not PEM", 1)
	if err := s.Reload(); err == nil {
		t.Error("reloaded a broken file")
	}
	// Broken in another way: again.
	os.Remove(d.file("cert.pem"))
	for range 5 {
		c.add(checkEvery)
		serves("second")
	}
	told("level=ERROR", 2)
	told("no such file", 1)
	d.put("cert.pem", second.Cert, 0o644)
	c.add(checkEvery)
	serves("second")
	told("level=ERROR", 2)
	told("level=INFO", 2)

	// The CA alone may change too: here to two, as on the way from one to the other.
	next := authority(t, now)
	d.put("ca.pem", append(certPEM(a.cert), certPEM(next.cert)...), 0o644)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	third := issue(t, next, now, "third")
	d.put("key.pem", third.Key, 0o600)
	d.put("cert.pem", third.Cert, 0o644)
	c.add(checkEvery)
	serves("third")
	if strings.Contains(log.String(), "PRIVATE") {
		t.Error("the key is in the log")
	}
}

// TestReloadWhileInUse: handshakes go on while the files change under them.
func TestReloadWhileInUse(t *testing.T) {
	now := time.Now()
	d := newDir(t)
	a := authority(t, now)
	s, c := load(t, d.files(a, issue(t, a, now, "node")), io.Discard)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := shake(t, s, s, "node"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		next := issue(t, a, now, "node")
		d.put("key.pem", next.Key, 0o600)
		c.add(checkEvery)
		d.put("cert.pem", next.Cert, 0o644)
		c.add(checkEvery)
	}
	close(stop)
	wg.Wait()
}
