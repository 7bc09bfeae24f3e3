package server

import (
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
	"strings"
	"sync"
	"syscall"
	"time"

	"kvs/utils/certs"
)

// tlsPort is TLS on the node's one port: on the connections that it takes, and
// on those to other nodes. A nil one is a node without TLS.
//
// Clients show who they are by a token, nodes by a node token and, where there
// is a CA (tls_ca_file), by a certificate of it too. Whether they have a good
// one is asked when they call what is for nodes, and not in the handshake, which
// is before anybody knows who calls: see certs.Source.ServerConfig.
type tlsPort struct {
	source *certs.Source
	config *tls.Config // of the server's side; one for all, for the sake of its session keys
	log    *slog.Logger
	wrong  complaints
}

// newTLSPort reads the files; without a certificate file there is no TLS.
func newTLSPort(files certs.Files, log *slog.Logger) (*tlsPort, error) {
	if files.Cert == "" {
		return nil, nil
	}
	source, err := certs.Load(files, log)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &tlsPort{source: source, config: source.ServerConfig(), log: log, wrong: complaints{log: log}}, nil
}

// scheme is that of the node's URLs.
func (p *tlsPort) scheme() string {
	if p == nil {
		return "http"
	}
	return "https"
}

// warnHost says that others will not reach this node at the address that they
// are told, host:port.
func (p *tlsPort) warnHost(address string) {
	if p == nil {
		return
	}
	host, _, err := net.SplitHostPort(address)
	if err == nil {
		err = p.source.CheckHost(host)
	}
	if err != nil {
		p.log.Warn("other nodes, which verify this one, cannot call it at its address: make a certificate that is for it too, or set advertise_address to what the certificate is for",
			"address", address, "error", err)
	}
}

func (p *tlsPort) server(c net.Conn) *tls.Conn { return tls.Server(c, p.config) }

// handshake reports whether c may be read from. The deadline for reading is set
// already, by net/http.
func (p *tlsPort) handshake(c *conn) bool {
	_ = c.tls.SetWriteDeadline(time.Now().Add(headerTimeout)) // Write sets its own from here on
	err := c.tls.Handshake()
	if err == nil {
		state := c.tls.ConnectionState()
		c.state = &state
		return true
	}
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
		p.wrong.note(c.RemoteAddr().String(), "a request without TLS was refused: whoever sent it must use https://; if it was a node, TLS must be set up on it too (tls_cert_file)")
		_ = plain.Conn.SetDeadline(time.Now().Add(time.Second))
		sayLast(plain.Conn, badRequest.refuse("this port takes TLS alone: use https:// (and between nodes, tls_cert_file on every one of them)"))
		return false
	}
	if cause := handshakeCause(err); cause != "" {
		p.wrong.note(c.RemoteAddr().String(), cause, "error", fmt.Sprintf("%.300s", err))
	} else {
		p.log.Debug("a TLS handshake was broken off", "from", c.RemoteAddr(), "error", err)
	}
	return false
}

// looksLikeHTTP tells whether these are the first bytes of a request line: in a
// TLS record they are no letters.
func looksLikeHTTP(first [5]byte) bool {
	for _, b := range first[:3] {
		if b < 'A' || b > 'Z' {
			return false
		}
	}
	return true
}

// handshakeCause puts a failed handshake into words for the log; "" where there
// is nothing to say: a client that went away, a probe of the port.
func handshakeCause(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, new(tls.RecordHeaderError)):
		return ""
	case errors.As(err, &op) && (strings.Contains(err.Error(), "certificate") ||
		strings.Contains(err.Error(), "bad record MAC")): // OpenSSL says it in the clear, where that is not expected any more
		return "a caller does not accept this node's certificate: the CA that it trusts (a node's tls_ca_file, a client's --ca-file) did not sign it, or it is not for the host by which this node was called"
	}
	return "a TLS handshake failed"
}

// nodesOnly puts the check of the caller's certificate before what is between
// nodes. The node token is checked after it, by the handler.
func (p *tlsPort) nodesOnly(h http.Handler) http.Handler {
	if p == nil || !p.source.Mutual() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.nodeVerified(r); err != nil {
			p.wrong.note(r.RemoteAddr, "a call for nodes was refused: if it comes from a node of this cluster, its tls_cert_file was not signed by the CA in this node's tls_ca_file, has ended, or is missing",
				"path", r.URL.Path, "error", err)
			// Its next connection may show a better one: nodes follow their files.
			w.Header().Set("Connection", "close")
			writeProblem(w, certificateRequired.refuse("this is between nodes, which show a certificate of the cluster's CA (tls_ca_file): %s", err))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// certificateRequired is between nodes only, and so not in the table that
// clients see. It is no 401, which says that the cluster's secret differs.
var certificateRequired = &problem{http.StatusForbidden, "certificate_required", "A node's certificate is required", 0}

// nodeVerified tells whether a request came over a connection whose client has
// a certificate of the cluster's CA. Without TLS, or without a CA, nothing is
// asked.
func (p *tlsPort) nodeVerified(r *http.Request) error {
	if p == nil || !p.source.Mutual() {
		return nil
	}
	c := connOf(r.Context())
	if c == nil || c.state == nil {
		return errors.New("the caller's connection is not TLS")
	}
	return c.peer.Check(p.source, c.state.PeerCertificates)
}

// dialFunc opens a connection to host:port.
type dialFunc = func(ctx context.Context, addr string) (net.Conn, error)

// dial is how this node calls others, given how it reaches them.
func (p *tlsPort) dial(reach dialFunc) dialFunc {
	if p == nil {
		return reach
	}
	return tlsDial(reach, p.source.ClientConfig)
}

// tlsDialTimeout bounds a handshake whose context has no earlier end.
const tlsDialTimeout = 5 * time.Second

// tlsDial gives connections on which the handshake was made: the other side has
// a certificate for the host that was dialled, of a CA that conf trusts. conf is
// asked for each connection, and gives a configuration to keep.
func tlsDial(dial dialFunc, conf func() *tls.Config) dialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", addr, err)
		}
		raw, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, tlsDialTimeout)
		defer cancel()
		own := conf()
		own.ServerName = host
		c := tls.Client(raw, own)
		if err := c.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS with %s: %w", addr, dialCause(err))
		}
		return c, nil
	}
}

// dialCause says what is likely to be wrong with the node that was called.
func dialCause(err error) error {
	var name x509.HostnameError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("its certificate was signed by a CA that is not in this node's tls_ca_file (every node needs the same): %w", err)
	case errors.As(err, &name):
		return fmt.Errorf("its certificate is not for the address by which it was called (its advertise_address, or an entry of seed_nodes): %w", err)
	case errors.As(err, new(x509.CertificateInvalidError)):
		return fmt.Errorf("its certificate is not good, or a clock is wrong: %w", err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("it closed the connection in the handshake: %w", err)
	case errors.As(err, new(tls.RecordHeaderError)):
		return fmt.Errorf("it does not speak TLS (set tls_cert_file on every node, or on none): %w", err)
	}
	return err
}

// The node warns expiryAhead of its certificate's end, every expiryEvery.
const (
	expiryAhead = 30 * 24 * time.Hour
	expiryEvery = 24 * time.Hour
)

// watchExpiry warns until ctx ends.
func (p *tlsPort) watchExpiry(ctx context.Context) {
	if p == nil {
		return
	}
	for {
		const remedy = "renew it (`kvs tls init --renew NAME`, if that made it) and put it in the old one's place; no restart is needed"
		at := p.source.Expires()
		switch left := time.Until(at); {
		case left <= 0:
			p.log.Error("this node's certificate has ended, and neither nodes nor clients accept it: "+remedy, "ended", at.UTC())
		case left < expiryAhead:
			p.log.Warn("this node's certificate ends soon: "+remedy, "ends", at.UTC(), "days", int(left/(24*time.Hour)))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(expiryEvery):
		}
	}
}

// complaints logs what is wrong with connections: often enough to find the
// reason, not so often that anybody can fill the log.
type complaints struct {
	log *slog.Logger
	mu  sync.Mutex // guards all below
	// since is when said was begun; it holds what was said of each host.
	since time.Time
	said  map[complaint]bool
}

type complaint struct{ host, what string }

const (
	complainEvery = 10 * time.Minute
	maxComplaints = 100 // within complainEvery, of all hosts
)

func (c *complaints) note(from, what string, args ...any) {
	host, _, _ := net.SplitHostPort(from)
	if c.due(complaint{host, what}, time.Now()) {
		c.log.Warn(what, append([]any{"from", from}, args...)...)
	}
}

func (c *complaints) due(one complaint, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said == nil || now.Sub(c.since) > complainEvery {
		c.since, c.said = now, map[complaint]bool{}
	}
	if c.said[one] || len(c.said) >= maxComplaints {
		return false
	}
	c.said[one] = true
	return true
}
