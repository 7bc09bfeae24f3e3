package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAuthority(t *testing.T) {
	d := newDir(t)
	now := time.Now()
	made := authority(t, now)
	if err := made.Save(d.file("ca.pem"), d.file("ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.file("ca-key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	a, err := LoadAuthority(d.file("ca.pem"), d.file("ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c := a.cert
	if !c.IsCA || !c.BasicConstraintsValid || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("the CA: CA %v, valid %v, path %d %v, usage %b", c.IsCA, c.BasicConstraintsValid, c.MaxPathLen, c.MaxPathLenZero, c.KeyUsage)
	}
	if life := c.NotAfter.Sub(now); life < authorityLife-time.Minute || life > authorityLife {
		t.Errorf("the CA is good for %s", life)
	}

	issued := issue(t, a, now, "node1", "node1", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "*.nodes.example", "under_score")
	if err := issued.Save(d.file("node1.pem"), d.file("node1-key.pem")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.file("node1-key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	leaf, err := ReadCertificate(d.file("node1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Names(leaf), []string{"node1", "*.nodes.example", "under_score", "10.0.0.1", "fd00::1"}; !slices.Equal(got, want) || !slices.Equal(issued.Names, want) {
		t.Errorf("for %q, want %q", got, want)
	}
	if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve.Params().Name != "P-256" {
		t.Errorf("the key is a %T", leaf.PublicKey)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 2 ||
		len(leaf.SubjectKeyId) != 20 || !bytes.Equal(leaf.AuthorityKeyId, c.SubjectKeyId) || leaf.Subject.CommonName != "node1" {
		t.Errorf("the certificate of %s: CA %v, usage %b %v, key %x of %x", leaf.Subject, leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage, leaf.SubjectKeyId, leaf.AuthorityKeyId)
	}
	for _, number := range []*x509.Certificate{c, leaf} {
		if bits := number.SerialNumber.BitLen(); bits < 90 || bits > 128 {
			t.Errorf("a serial of %d bits", bits)
		}
	}
	if life := leaf.NotAfter.Sub(now); life < certificateLife-time.Minute || life > certificateLife {
		t.Errorf("good for %s", life)
	}
	if _, err := Load(Files{d.file("node1.pem"), d.file("node1-key.pem"), d.file("ca.pem")}, nil); err != nil {
		t.Error(err)
	}

	// What a certificate signs is worth nothing.
	key, err := readKey(d.file("node1-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	fake := &Authority{leaf, key}
	if _, err := LoadAuthority(d.file("node1.pem"), d.file("node1-key.pem")); err == nil || !strings.Contains(err.Error(), "not one of a CA") {
		t.Errorf("%v", err)
	}
	below, err := x509.ParseCertificate(decodeOne(t, issue(t, fake, now, "x").Cert))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	if _, err := verify([]*x509.Certificate{below, leaf}, pool, now, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a certificate signed another one")
	}
}

func decodeOne(t *testing.T, data []byte) []byte {
	t.Helper()
	blocks, err := decode(data)
	if err != nil || len(blocks) != 1 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	return blocks[0].Bytes
}

func TestNothingIsOverwritten(t *testing.T) {
	d := newDir(t)
	a := authority(t, time.Now())
	for _, save := range []func(cert, key string) error{a.Save, issue(t, a, time.Now(), "x").Save} {
		for _, name := range []string{"c.pem", "k.pem"} {
			d.put(name, []byte("mine"), 0o600)
			err := save(d.file("c.pem"), d.file("k.pem"))
			if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), name+" exists already") {
				t.Errorf("%v", err)
			}
			if name == "c.pem" { // the key was free
				if !strings.Contains(err.Error(), "k.pem was made, and is of no use") {
					t.Errorf("%v", err)
				}
				os.Remove(d.file("k.pem"))
			}
			if b, err := os.ReadFile(d.file(name)); err != nil || string(b) != "mine" {
				t.Errorf("%s: %q, %v", name, b, err)
			}
			os.Remove(d.file(name))
		}
	}
}

// TestSaveAtOnce: of several that make the same files, one does.
func TestSaveAtOnce(t *testing.T) {
	d := newDir(t)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		a := authority(t, time.Now())
		wg.Go(func() { errs <- a.Save(d.file("ca.pem"), d.file("ca-key.pem")) })
	}
	wg.Wait()
	close(errs)
	saved := 0
	for err := range errs {
		if err == nil {
			saved++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if _, err := LoadAuthority(d.file("ca.pem"), d.file("ca-key.pem")); saved != 1 || err != nil {
		t.Errorf("%d saved; %v", saved, err)
	}
}

func TestRenew(t *testing.T) {
	d := newDir(t)
	then := time.Now().Add(-certificateLife - 24*time.Hour)
	a := authority(t, then)
	f := d.files(a, issue(t, a, then, "node1", "10.0.0.1"))
	if _, err := Load(f, nil); err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Fatalf("%v", err)
	}
	old, err := ReadCertificate(f.Cert)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := a.Renew(old, nil, time.Now())
	if err != nil || renewed.Key != nil || !slices.Equal(renewed.Names, []string{"node1", "10.0.0.1"}) {
		t.Fatalf("%+v, %v", renewed, err)
	}
	if err := renewed.SaveRenewed(f.Cert); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(f, nil); err != nil {
		t.Error(err)
	}
	if renewed, err = a.Renew(old, []string{"node2"}, time.Now()); err != nil || !slices.Equal(renewed.Names, []string{"node2"}) {
		t.Errorf("%+v, %v", renewed, err)
	}
	if _, err := authority(t, time.Now()).Renew(old, nil, time.Now()); err == nil || !strings.Contains(err.Error(), "another CA") {
		t.Errorf("%v", err)
	}
	// No certificate outlives its CA.
	late := a.Expires().Add(-time.Hour)
	if renewed, err = a.Renew(old, nil, late); err != nil || !renewed.Expires.Equal(a.Expires()) {
		t.Errorf("%+v, %v", renewed, err)
	}
	if _, err := a.Renew(old, nil, a.Expires().Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("%v", err)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "node1", "node-1.example", "*.example", "10.0.0.1", "::1", "fd00::1", "a_b", "_a", "1a", "3com.com", strings.Repeat("a", 63) + ".b"} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "a.", "a..b", "-a", "a-", "a b", "a:1", "10.0.0.1:8080", "10.0.0.300", "10", "[::1]", "fe80::1%eth0", "*", "a.*", "é", "a/b", "a,b", strings.Repeat("a.", 127) + "b"} {
		if err := CheckName(bad); err == nil && bad != strings.Repeat("a.", 127)+"b" {
			t.Errorf("%q was taken", bad)
		}
	}
	a := authority(t, time.Now())
	for _, hosts := range [][]string{nil, {"a", "b:1"}} {
		if _, err := a.Issue("n", hosts, time.Now()); err == nil {
			t.Errorf("issued for %q", hosts)
		}
	}
}
