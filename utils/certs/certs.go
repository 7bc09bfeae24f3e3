// Package certs holds the certificates of a program that is a TLS server and a
// TLS client of its own kind at once.
//
// A Source reads a certificate, its key and the CA that all of the kind trust,
// and follows the files as they change. An Authority makes such files where
// there is no other CA.
//
// Invariants:
//   - What a Source gives fits together: the key is the certificate's, nothing
//     was expired when it was read, and whoever has the same CA accepts the
//     certificate in both roles. Files that change into something else are
//     reported, and what was in use stays in use.
//   - A key never shows in an error or a log. A key file that others may read is
//     refused; the ones made here have mode 0600.
//   - Nothing that exists is overwritten, but a certificate by SaveRenewed.
//
// It knows nothing of what is said over the connections. Certificates that were
// revoked are not looked for: take the CA out of the file, or wait for the end.
package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// Files name PEM files.
type Files struct {
	Cert string // the certificate, and after it those between it and the CA
	Key  string // of the first certificate
	CA   string // one or more certificates to trust; "": those of the system, and no client is verified
}

// pair is what the files held at one time.
type pair struct {
	chain   []*x509.Certificate // the own one first
	key     crypto.Signer
	ca      *x509.CertPool // nil: no CA file
	expires time.Time      // the first end on the way to the CA
	stamps  []os.FileInfo  // of the files, as they were before they were read
}

func (f Files) paths() []string {
	if f.CA == "" {
		return []string{f.Cert, f.Key}
	}
	return []string{f.Cert, f.Key, f.CA}
}

// read reads the files and checks what they hold, alone and together.
func (f Files) read(now time.Time) (*pair, error) {
	p := &pair{stamps: f.stamps()}
	var err error
	if p.chain, err = readCertificates("certificate file", f.Cert); err != nil {
		return nil, err
	}
	if p.key, err = readKey(f.Key); err != nil {
		return nil, err
	}
	leaf := p.chain[0]
	if !isKeyOf(p.key, leaf) {
		return nil, fmt.Errorf("the key in %s is not that of the first certificate in %s: they are of two different pairs, or the certificate of this machine does not come first",
			f.Key, f.Cert)
	}
	if err := checkDates(leaf, now); err != nil {
		return nil, fmt.Errorf("certificate file %s: %w", f.Cert, err)
	}
	if len(Names(leaf)) == 0 {
		return nil, fmt.Errorf("certificate file %s: the certificate names no host (subjectAltName), so that nobody can verify it", f.Cert)
	}
	if !allows(leaf, x509.ExtKeyUsageServerAuth) {
		return nil, fmt.Errorf("certificate file %s: the certificate is not one for servers (extended key usage serverAuth)", f.Cert)
	}
	p.expires = leaf.NotAfter
	for _, c := range p.chain[1:] {
		p.expires = earlier(p.expires, c.NotAfter)
	}
	if f.CA == "" {
		return p, nil
	}
	return p, p.trust(f, now)
}

// trust reads the CA and makes sure that others with the same CA will accept the
// certificate.
func (p *pair) trust(f Files, now time.Time) error {
	authorities, err := readCertificates("CA file", f.CA)
	if err != nil {
		return err
	}
	p.ca = x509.NewCertPool()
	for _, c := range authorities {
		p.ca.AddCert(c)
	}
	if !allows(p.chain[0], x509.ExtKeyUsageClientAuth) {
		return fmt.Errorf("certificate file %s: the certificate is not one for clients (extended key usage clientAuth), and one for both is needed where there is a CA file: it is shown to the others when they are called",
			f.Cert)
	}
	if _, err := verify(p.chain, p.ca, now, x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("the certificate in %s is not accepted with the CA file %s, and others with the same CA would not accept it either: %w", f.Cert, f.CA, err)
	}
	if p.expires, err = verify(p.chain, p.ca, now, x509.ExtKeyUsageClientAuth); err != nil {
		return fmt.Errorf("the certificate in %s is not accepted with the CA file %s as one of a client: %w", f.Cert, f.CA, err)
	}
	return nil
}

// verify tells until when a chain, the own certificate first, is accepted.
func verify(chain []*x509.Certificate, ca *x509.CertPool, now time.Time, role x509.ExtKeyUsage) (until time.Time, err error) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: ca, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{role},
	})
	if err != nil {
		return time.Time{}, plain(err)
	}
	for _, way := range chains { // any of them will do
		end := way[0].NotAfter
		for _, c := range way[1:] {
			end = earlier(end, c.NotAfter)
		}
		if end.After(until) {
			until = end
		}
	}
	return until, nil
}

// plain puts package x509's most likely refusals into words that help.
func plain(err error) error {
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return errors.New("it was signed by another CA")
	}
	if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil {
		return fmt.Errorf("the one for %s is good from %s to %s only", holder(invalid.Cert), date(invalid.Cert.NotBefore), date(invalid.Cert.NotAfter))
	}
	return errors.New(short(err.Error()))
}

func checkDates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate for %s ended on %s: put a new one in its place", holder(c), date(c.NotAfter))
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate for %s begins on %s only: is this machine's clock right? It says %s",
			holder(c), date(c.NotBefore), date(now))
	}
	return nil
}

// allows tells whether a certificate may be used in a role. One that names no
// role may be used in any.
func allows(c *x509.Certificate, role x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, role) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func isKeyOf(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// Names are the hosts that a certificate is for, as Issue takes them.
func Names(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, net.IP(ip).String())
	}
	return names
}

// holder says whose certificate it is, in so many words as a line of a log
// bears: a stranger's may name thousands of hosts.
func holder(c *x509.Certificate) string {
	if names := Names(c); len(names) > 0 {
		return short(strings.Join(names, ", "))
	}
	return short(c.Subject.String())
}

func short(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
