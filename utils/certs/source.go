package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often the files are looked at, at most. A look is a stat of
// each.
const checkEvery = 3 * time.Second

// Source gives TLS configurations that follow the files. It is safe for
// concurrent use.
type Source struct {
	files Files
	log   *slog.Logger
	now   func() time.Time

	current atomic.Pointer[state]
	due     atomic.Int64 // when to look at the files again, Unix ns

	mu     sync.Mutex // guards failed and told, and lets one look at a time; no handshake waits for it
	failed []os.FileInfo
	told   bool
}

// state is a pair in use.
type state struct {
	*pair
	server, client *tls.Config
}

// Load reads the files. log, nil for none, is told when they change and whether
// what they change into is any good.
func Load(f Files, log *slog.Logger) (*Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{files: f, log: log, now: time.Now}
	p, err := f.read(s.now())
	if err != nil {
		return nil, err
	}
	s.use(p)
	s.due.Store(s.now().Add(checkEvery).UnixNano())
	return s, nil
}

func (s *Source) use(p *pair) {
	own := tls.Certificate{PrivateKey: p.key, Leaf: p.chain[0]}
	for _, c := range p.chain {
		own.Certificate = append(own.Certificate, c.Raw)
	}
	st := &state{pair: p}
	st.server = &tls.Config{
		MinVersion:   tls.VersionTLS12, // for the clients that have no newer one; 1.3 is used where both have it
		NextProtos:   []string{"http/1.1"},
		Certificates: []tls.Certificate{own},
		Time:         s.now,
	}
	if p.ca != nil {
		// Asked for, but not verified in the handshake: see Peer.
		st.server.ClientAuth = tls.RequestClientCert
		st.server.ClientCAs = p.ca
	}
	st.client = &tls.Config{
		MinVersion: tls.VersionTLS13, // both ends are of this kind
		NextProtos: []string{"http/1.1"},
		RootCAs:    p.ca,
		Time:       s.now,
		// Shown to whoever asks. Package tls would silently keep back one that is
		// not of a CA the server names, and the server would miss it instead of
		// saying that it is of the wrong CA.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil },
	}
	s.current.Store(st)
}

// state gives what is in use, after a look at the files if one is due.
func (s *Source) state() *state {
	now := s.now()
	if due := s.due.Load(); now.UnixNano() >= due && s.due.CompareAndSwap(due, now.Add(checkEvery).UnixNano()) && s.mu.TryLock() {
		s.look(now)
		s.mu.Unlock()
	}
	return s.current.Load()
}

// Reload looks at the files now. With an error, which it does not log, what was
// in use stays so.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reread(s.now())
}

// look rereads the files, and reports once what is wrong with them. It does so
// at the second look: the first may have come between the writing of the
// certificate and of the key.
func (s *Source) look(now time.Time) {
	if sameFiles(s.files.stamps(), s.current.Load().stamps) {
		s.failed = nil
		return
	}
	before := s.failed
	err := s.reread(now)
	switch {
	case err == nil:
	case before == nil || !sameFiles(before, s.failed):
		s.told = false
	case !s.told:
		s.told = true
		s.log.Error("the certificates changed and cannot be used; those from before stay in use", "error", err, "until", date(s.current.Load().expires))
	}
}

func (s *Source) reread(now time.Time) error {
	stamps := s.files.stamps()
	if sameFiles(stamps, s.current.Load().stamps) {
		s.failed = nil
		return nil
	}
	p, err := s.files.read(now)
	if err != nil {
		s.failed = stamps
		return err
	}
	s.failed = nil
	s.use(p)
	s.log.Info("the certificates changed; the new ones are in use for new connections", "file", s.files.Cert, "until", date(p.expires))
	return nil
}

// ServerConfig is for the server's side: TLS 1.2 or later, HTTP/1.1 only.
//
// Where there is a CA, clients are asked for a certificate, but none is refused
// for the lack of a good one in the handshake: who must have one is for Peer to
// check. A refusal in the handshake would lock out a browser or a proxy that
// offers a certificate of something else to every server that asks, and would
// tell a client with an expired one no more than "bad certificate".
func (s *Source) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.state().server, nil },
	}
}

// ClientConfig is for a call to another of the kind: TLS 1.3, verified with the
// CA (the system's, where there is none). The caller sets ServerName, in a copy
// that is its own. It is for one call: the next may find other files.
func (s *Source) ClientConfig() *tls.Config { return s.state().client.Clone() }

// Mutual tells whether there is a CA to verify clients with.
func (s *Source) Mutual() bool { return s.files.CA != "" }

// Expires is when the certificate, or one on the way from it to the CA, ends.
func (s *Source) Expires() time.Time { return s.state().expires }

// CheckHost tells whether others that reach this machine as host, a name or an
// IP address, will find a certificate for it.
func (s *Source) CheckHost(host string) error {
	leaf := s.state().chain[0]
	if leaf.VerifyHostname(host) != nil {
		return fmt.Errorf("the certificate in %s is for %s, and not for %s", s.files.Cert, holder(leaf), host)
	}
	return nil
}

// Peer is what is known of the client of one connection. The zero value knows
// nothing.
type Peer struct {
	verified *state // with whose CA
	until    time.Time
}

// ErrNoCertificate is a client that showed none.
var ErrNoCertificate = errors.New("the caller showed no certificate")

// Check tells whether the client, who showed these certificates in the
// handshake, has one of the CA. It may be asked again and again: what it found
// holds until a certificate ends or the files change. A Peer is for one
// goroutine at a time.
func (p *Peer) Check(s *Source, shown []*x509.Certificate) error {
	st, now := s.state(), s.now()
	if p.verified == st && !now.After(p.until) {
		return nil
	}
	p.verified = nil
	switch {
	case st.ca == nil:
		return errors.New("there is no CA to verify the caller's certificate with")
	case len(shown) == 0:
		return ErrNoCertificate
	case !allows(shown[0], x509.ExtKeyUsageClientAuth):
		return errors.New("the caller's certificate is not one for clients (extended key usage clientAuth)")
	}
	until, err := verify(shown, st.ca, now, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return fmt.Errorf("the caller's certificate, for %s, is not accepted: %w", holder(shown[0]), err)
	}
	p.verified, p.until = st, until
	return nil
}

func (f Files) stamps() []os.FileInfo {
	var list []os.FileInfo
	for _, path := range f.paths() {
		info, err := os.Stat(path)
		if err != nil {
			info = nil // reading it will say why
		}
		list = append(list, info)
	}
	return list
}

func sameFiles(a, b []os.FileInfo) bool {
	for i := range a {
		x, y := a[i], b[i]
		if x == nil || y == nil {
			if x != y {
				return false
			}
			continue
		}
		if x.Size() != y.Size() || !x.ModTime().Equal(y.ModTime()) || !os.SameFile(x, y) {
			return false
		}
	}
	return true
}
