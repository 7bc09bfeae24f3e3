package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"regexp"
	"slices"
	"time"

	"kvs/utils/atomicfile"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// certificateLife is the most that all systems take of a server's
	// certificate by a CA of one's own.
	certificateLife = 825 * 24 * time.Hour
	// backdate lets machines take a new certificate whose clocks are behind.
	backdate = time.Hour
	// maxCommonName is X.520's bound.
	maxCommonName = 64
)

// Authority makes certificates: for servers that are clients of each other too,
// with keys of ECDSA on P-256, and with no authority below itself.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Issued is a certificate with its key, as PEM.
type Issued struct {
	Cert    []byte
	Key     []byte // nil for a renewed certificate, whose key stays
	Names   []string
	Expires time.Time
}

// NewAuthority makes a CA with a new key. Programs show its name where they list
// CAs, and look it up by that: it should be like no other's.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

// LoadAuthority reads what Save wrote, or what another tool made.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	chain, err := readCertificates("CA file", certFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	a := &Authority{chain[0], key}
	if !isKeyOf(key, a.cert) {
		return nil, fmt.Errorf("the key in %s is not that of the CA in %s", keyFile, certFile)
	}
	if !a.cert.IsCA || a.cert.KeyUsage != 0 && a.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("CA file %s: its certificate is not one of a CA, and what it signed would not be accepted", certFile)
	}
	return a, nil
}

// Save writes the CA to files that do not exist yet; the key first, with mode
// 0600. Of two that save at once one succeeds.
func (a *Authority) Save(certFile, keyFile string) error {
	key, err := keyPEM(a.key)
	if err != nil {
		return err
	}
	return save(certFile, certPEM(a.cert), keyFile, key)
}

// Expires is when the CA ends, and all that it signed with it.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// Issue makes a certificate with a new key, for hosts that are DNS names or IP
// addresses. name is for people.
func (a *Authority) Issue(name string, hosts []string, now time.Time) (*Issued, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	issued, err := a.issue(name, hosts, key.Public(), now)
	if err != nil {
		return nil, err
	}
	issued.Key, err = keyPEM(key)
	return issued, err
}

// Renew makes a certificate for the key of an old one of this CA, which may have
// ended: the key need not be at hand, and stays where it is. Without hosts they
// are those of the old one.
func (a *Authority) Renew(old *x509.Certificate, hosts []string, now time.Time) (*Issued, error) {
	if err := old.CheckSignatureFrom(a.cert); err != nil {
		return nil, fmt.Errorf("the certificate for %s was signed by another CA", holder(old))
	}
	if len(hosts) == 0 {
		hosts = Names(old)
	}
	return a.issue(old.Subject.CommonName, hosts, old.PublicKey, now)
}

func (a *Authority) issue(name string, hosts []string, public crypto.PublicKey, now time.Time) (*Issued, error) {
	if err := checkDates(a.cert, now); err != nil {
		return nil, fmt.Errorf("the CA cannot sign: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              earlier(now.Add(certificateLife), a.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if len(name) <= maxCommonName {
		template.Subject.CommonName = name
	}
	for _, host := range hosts {
		if err := CheckName(host); err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); ip == nil {
			if !slices.Contains(template.DNSNames, host) {
				template.DNSNames = append(template.DNSNames, host)
			}
		} else if !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	if len(template.DNSNames)+len(template.IPAddresses) == 0 {
		return nil, errors.New("a certificate must be for at least one host")
	}
	cert, err := sign(template, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return &Issued{Cert: certPEM(cert), Names: Names(cert), Expires: cert.NotAfter}, nil
}

// Save writes both to files that do not exist yet; the key first, with mode
// 0600.
func (i *Issued) Save(certFile, keyFile string) error {
	return save(certFile, i.Cert, keyFile, i.Key)
}

// SaveRenewed puts a renewed certificate in the place of the old one, at once: a
// program that reads the file has the one or the other.
func (i *Issued) SaveRenewed(certFile string) error {
	return atomicfile.Write(certFile, i.Cert, 0o644)
}

// ReadCertificate reads the first certificate of a file.
func ReadCertificate(path string) (*x509.Certificate, error) {
	chain, err := readCertificates("certificate file", path)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// dnsName is looser than the rules for hosts: names with an underscore are
// common inside of networks, and one certificate may be for all hosts of a
// domain.
var dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

// number is what no top-level domain is: more likely an IP address with a slip.
var number = regexp.MustCompile(`(^|\.)[0-9]+$`)

// CheckName refuses what no certificate can be for.
func CheckName(host string) error {
	// The length is that of a DNS name (RFC 1035).
	if net.ParseIP(host) != nil || len(host) <= 253 && dnsName.MatchString(host) && !number.MatchString(host) {
		return nil
	}
	return fmt.Errorf("%q is neither a host name nor an IP address (without a port)", host)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	id, err := keyID(public)
	if err != nil {
		return nil, err
	}
	template.SubjectKeyId = id
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// keyID tells keys apart: it is a part of the key's hash, as RFC 7093 has it.
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("a key of a kind that cannot be certified: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

// serial is random, so that no record of given ones is needed.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return new(big.Int).SetBytes(b[:])
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: c.Raw})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("the private key cannot be written as PKCS #8")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// save creates both files. The key is first: whoever gets to create it may go on,
// and of two at once nobody mixes a key with the other's certificate.
func save(certFile string, cert []byte, keyFile string, key []byte) error {
	if err := atomicfile.Create(keyFile, key, 0o600); err != nil {
		return saving(keyFile, err)
	}
	if err := atomicfile.Create(certFile, cert, 0o644); err != nil {
		return fmt.Errorf("%w (%s was made, and is of no use without it: remove it)", saving(certFile, err), keyFile)
	}
	return nil
}

func saving(path string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already, and is left as it is: %w", path, fs.ErrExist)
	}
	return fmt.Errorf("write %s: %w", path, err)
}
