package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dir is where a test has its files.
type dir struct {
	t    *testing.T
	path string
}

func newDir(t *testing.T) dir {
	t.Helper()
	return dir{t, t.TempDir()}
}

func (d dir) file(name string) string { return filepath.Join(d.path, name) }

// put writes a file, over an old one if there is one, and gives its path.
func (d dir) put(name string, data []byte, perm os.FileMode) string {
	d.t.Helper()
	path := d.file(name)
	if err := os.WriteFile(path+".new", data, perm); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chmod(path+".new", perm); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func authority(t *testing.T, now time.Time) *Authority {
	t.Helper()
	a, err := NewAuthority("a CA of a test", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, now time.Time, hosts ...string) *Issued {
	t.Helper()
	i, err := a.Issue(hosts[0], hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// files writes all three.
func (d dir) files(a *Authority, i *Issued) Files {
	return Files{d.put("cert.pem", i.Cert, 0o644), d.put("key.pem", i.Key, 0o600), d.put("ca.pem", certPEM(a.cert), 0o644)}
}

// custom signs a certificate of any shape, for a key of its own.
func custom(t *testing.T, a *Authority, change func(c *x509.Certificate)) *Issued {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "custom"}, DNSNames: []string{"custom"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(c)
	signed, err := sign(c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return &Issued{Cert: certPEM(signed), Key: k}
}

func TestLoad(t *testing.T) {
	d := newDir(t)
	a := authority(t, time.Now())
	f := d.files(a, issue(t, a, time.Now(), "node1", "10.0.0.1", "::1"))
	s, err := Load(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"node1": true, "10.0.0.1": true, "::1": true, "node2": false, "10.0.0.2": false} {
		if err := s.CheckHost(host); (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		} else if err != nil && !strings.Contains(err.Error(), "is for node1, 10.0.0.1, ::1, and not for "+host) {
			t.Errorf("%v", err)
		}
	}
	if left := time.Until(s.Expires()); left < 824*24*time.Hour || left > 825*24*time.Hour {
		t.Errorf("ends in %s", left)
	}
	if !s.Mutual() {
		t.Error("not mutual")
	}
	// Without a CA it is the certificate alone that counts.
	f.CA = ""
	if s, err = Load(f, nil); err != nil || s.Mutual() {
		t.Errorf("%v", err)
	}
}

// TestKindsOfKeys: the files of other tools.
func TestKindsOfKeys(t *testing.T) {
	d := newDir(t)
	a := authority(t, time.Now())
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		key crypto.Signer
		pem []byte
	}{
		{ec, append([]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"),
			pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ecDER})...)},
		{rsaKey, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})},
	} {
		i, err := a.issue("other", []string{"other"}, k.key.Public(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		i.Key = k.pem
		// A text before the block is usual too.
		i.Cert = append([]byte("Certificate of other\n"), i.Cert...)
		if _, err := Load(d.files(a, i), nil); err != nil {
			t.Errorf("%T: %v", k.key, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	now := time.Now()
	a := authority(t, now)
	other := authority(t, now)
	good := issue(t, a, now, "node1")
	second := issue(t, a, now, "node2")
	der, _ := pem.Decode(good.Cert)
	noEKU := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }
	for name, c := range map[string]struct {
		change func(d dir, f *Files)
		want   []string
	}{
		"no certificate file": {func(d dir, f *Files) { f.Cert = d.file("none.pem") }, []string{"certificate file", "none.pem", "no such file"}},
		"no key file":         {func(d dir, f *Files) { f.Key = d.file("none.pem") }, []string{"key file", "none.pem", "no such file"}},
		"no CA file":          {func(d dir, f *Files) { f.CA = d.file("none.pem") }, []string{"CA file", "none.pem", "no such file"}},
		"a directory":         {func(d dir, f *Files) { f.Cert = d.path }, []string{"certificate file", "is a directory"}},
		"empty":               {func(d dir, f *Files) { d.put("cert.pem", nil, 0o644) }, []string{"cert.pem is not PEM"}},
		"text":                {func(d dir, f *Files) { d.put("ca.pem", []byte("hello\n"), 0o644) }, []string{"ca.pem is not PEM"}},
		"DER":                 {func(d dir, f *Files) { d.put("cert.pem", der.Bytes, 0o644) }, []string{"cert.pem is not PEM", "DER", "openssl x509"}},
		"cut short": {func(d dir, f *Files) {
			d.put("ca.pem", append(certPEM(a.cert), good.Cert[:100]...), 0o644)
		}, []string{"CA file", "ca.pem is damaged or cut short: 1 of 2"}},
		"damaged": {func(d dir, f *Files) {
			d.put("cert.pem", pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: der.Bytes[:50]}), 0o644)
		}, []string{"cert.pem: certificate 1 in it is damaged"}},
		"too large":      {func(d dir, f *Files) { d.put("cert.pem", make([]byte, maxFile+1), 0o644) }, []string{"cert.pem is larger than"}},
		"mixed up":       {func(d dir, f *Files) { f.Cert, f.Key = d.put("k", good.Key, 0o600), d.put("c", good.Cert, 0o600) }, []string{"private key and no certificate", "mixed up"}},
		"a cert for key": {func(d dir, f *Files) { d.put("key.pem", good.Cert, 0o600) }, []string{"key.pem holds a certificate and no private key"}},
		"neither":        {func(d dir, f *Files) { d.put("key.pem", pem.EncodeToMemory(&pem.Block{Type: "X"}), 0o600) }, []string{"key.pem holds no private key"}},
		"no certificate": {func(d dir, f *Files) { d.put("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "X"}), 0o600) }, []string{"cert.pem holds no certificate"}},
		"another key":    {func(d dir, f *Files) { d.put("key.pem", second.Key, 0o600) }, []string{"key.pem", "is not that of", "cert.pem"}},
		"wrong order":    {func(d dir, f *Files) { d.put("cert.pem", append(certPEM(a.cert), good.Cert...), 0o644) }, []string{"does not come first"}},
		"another CA":     {func(d dir, f *Files) { d.put("ca.pem", certPEM(other.cert), 0o644) }, []string{"cert.pem is not accepted with the CA file", "another CA"}},
		"open to all":    {func(d dir, f *Files) { d.put("key.pem", good.Key, 0o644) }, []string{"key.pem has mode 0644", "chmod 640"}},
		"a group writes": {func(d dir, f *Files) { d.put("key.pem", good.Key, 0o660) }, []string{"mode 0660", "chmod 640"}},
		"an encrypted": {func(d dir, f *Files) {
			d.put("key.pem", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"}), 0o600)
		}, []string{"key.pem is encrypted", "pass phrase"}},
		"a legacy one": {func(d dir, f *Files) {
			d.put("key.pem", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}}), 0o600)
		}, []string{"key.pem is encrypted"}},
		"a damaged key": {func(d dir, f *Files) {
			d.put("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no key")}), 0o600)
		}, []string{"key.pem is damaged, or of an unknown kind"}},
		"no name":   {func(d dir, f *Files) { *f = d.files(a, custom(t, a, func(c *x509.Certificate) { c.DNSNames = nil })) }, []string{"cert.pem", "subjectAltName"}},
		"no server": {func(d dir, f *Files) { *f = d.files(a, custom(t, a, noEKU)) }, []string{"cert.pem", "serverAuth"}},
		"no client": {func(d dir, f *Files) {
			*f = d.files(a, custom(t, a, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
		}, []string{"cert.pem", "clientAuth"}},
		"ended": {func(d dir, f *Files) {
			*f = d.files(a, custom(t, a, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }))
		}, []string{"cert.pem", "for custom ended on " + date(now.Add(-time.Minute))}},
		"to come": {func(d dir, f *Files) {
			*f = d.files(a, custom(t, a, func(c *x509.Certificate) { c.NotBefore = now.Add(30 * time.Minute) }))
		}, []string{"begins on " + date(now.Add(30*time.Minute)), "clock"}},
		"an ended CA": {func(d dir, f *Files) { *f = ended(t, d) }, []string{"not accepted", "a CA of a test is good from"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			f := d.files(a, good)
			c.change(d, &f)
			_, err := Load(f, nil)
			if err == nil {
				t.Fatal("was loaded")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
			if key, _ := pem.Decode(good.Key); bytes.Contains([]byte(err.Error()), key.Bytes[:8]) || strings.Contains(err.Error(), "PRIVATE KEY-----\nM") {
				t.Error("the key shows")
			}
		})
	}
}

// ended is a certificate that is still good, of a CA that is not.
func ended(t *testing.T, d dir) Files {
	a := authority(t, time.Now().Add(-authorityLife-time.Hour))
	return d.files(a, custom(t, a, func(*x509.Certificate) {}))
}
