package cli

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kvs/utils/certs"
)

// tlsRun runs `kvs tls ARGS...`.
func tlsRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newTLS()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

func TestTLSInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "tls")
	out, err := tlsRun(t, "init", "--dir", dir, "node1.example", "n2=node2,10.0.0.2", "fd00::3")
	if err != nil {
		t.Fatal(err)
	}
	all := contents(t, dir)
	for name, hosts := range map[string][]string{
		"node1.example": {"node1.example", "localhost", "127.0.0.1", "::1"},
		"n2":            {"node2", "10.0.0.2", "localhost", "127.0.0.1", "::1"},
		"fd00--3":       {"fd00::3", "localhost", "127.0.0.1", "::1"},
	} {
		f := certs.Files{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem"), CA: filepath.Join(dir, "ca.pem")}
		s, err := certs.Load(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range hosts {
			if err := s.CheckHost(host); err != nil {
				t.Error(err)
			}
		}
		for _, want := range []string{"made " + f.Cert + " and " + f.Key, "tls_cert_file: " + f.Cert + "\n", "tls_key_file: " + f.Key + "\n", "tls_ca_file: " + f.CA + "\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
	if len(all) != 8 {
		t.Errorf("%d files", len(all))
	}
	for name := range all {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]os.FileMode{true: 0o600, false: 0o644}[strings.HasSuffix(name, "-key.pem")]; info.Mode() != want {
			t.Errorf("%s has mode %s", name, info.Mode())
		}
	}
	for _, want := range []string{"curl --cacert " + filepath.Join(dir, "ca.pem") + " https://node1.example:8080/health", "Keep " + filepath.Join(dir, "ca-key.pem") + " off the nodes"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "PRIVATE KEY") {
		t.Error("a key is printed")
	}

	// More nodes, of the same CA; those that are there are left alone, and nothing
	// is made beside them.
	if out, err = tlsRun(t, "init", "--dir", dir, "node4", "n2"); err == nil || !strings.Contains(err.Error(), "n2.pem exists already, and nothing was made") || out != "" {
		t.Errorf("%v %s", err, out)
	}
	if out, err = tlsRun(t, "init", "--dir", dir, "node4"); err != nil || strings.Contains(out, "a CA") {
		t.Errorf("%v %s", err, out)
	}
	for name, was := range all {
		if now := contents(t, dir); now[name] != was {
			t.Errorf("%s changed", name)
		}
	}
	if _, err := certs.Load(certs.Files{Cert: filepath.Join(dir, "node4.pem"), Key: filepath.Join(dir, "node4-key.pem"), CA: filepath.Join(dir, "ca.pem")}, nil); err != nil {
		t.Error(err)
	}
}

func TestTLSRenew(t *testing.T) {
	dir := t.TempDir()
	// A cluster that was made two years ago.
	past := tlsInit{dir: dir, out: new(bytes.Buffer), now: time.Now().Add(-800 * 24 * time.Hour)}
	nodes, err := parseTLSNodes([]string{"n1=node1,10.0.0.1", "n2"})
	if err != nil {
		t.Fatal(err)
	}
	if err := past.run(nodes); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	read := func(name string) *x509.Certificate {
		t.Helper()
		c, err := certs.ReadCertificate(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if left := time.Until(read("n1.pem").NotAfter); left > 26*24*time.Hour {
		t.Fatalf("%s is left", left)
	}
	os.Remove(filepath.Join(dir, "n1-key.pem")) // it is on the node
	out, err := tlsRun(t, "init", "--dir", dir, "--renew", "n1", "n2=node2")
	if err != nil || !strings.Contains(out, "renewed "+filepath.Join(dir, "n1.pem")) {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range map[string][]string{
		"n1.pem": {"node1", "localhost", "10.0.0.1", "127.0.0.1", "::1"},
		"n2.pem": {"node2", "localhost", "127.0.0.1", "::1"},
	} {
		c := read(name)
		if got := certs.Names(c); !slices.Equal(got, want) {
			t.Errorf("%s is for %q", name, got)
		}
		if left := time.Until(c.NotAfter); left < 824*24*time.Hour {
			t.Errorf("%s is left", left)
		}
	}
	// The keys are the old ones, and the rest is untouched.
	after := contents(t, dir)
	for _, name := range []string{"ca.pem", "ca-key.pem", "n2-key.pem"} {
		if after[name] != before[name] {
			t.Errorf("%s changed", name)
		}
	}
	for _, name := range []string{"n1", "n2"} {
		key := filepath.Join(dir, name+"-key.pem")
		if err := os.WriteFile(key, []byte(before[name+"-key.pem"]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := certs.Load(certs.Files{Cert: filepath.Join(dir, name+".pem"), Key: key, CA: filepath.Join(dir, "ca.pem")}, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := tlsRun(t, "init", "--dir", dir, "--renew", "n3"); err == nil || !strings.Contains(err.Error(), "n3.pem to renew") {
		t.Errorf("%v", err)
	}
	other := t.TempDir()
	if _, err := tlsRun(t, "init", "--dir", other, "x"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "n1.pem"), []byte(after["n1.pem"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tlsRun(t, "init", "--dir", other, "--renew", "n1"); err == nil || !strings.Contains(err.Error(), "another CA") {
		t.Errorf("%v", err)
	}
}

func TestTLSInitRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "requires at least 1 arg"},
		{"node1:8080", "(without a port)"},
		{"n=node1:8080", "(without a port)"},
		{"n=", "neither a host name"},
		{"n=a,,b", "neither a host name"},
		{"=a", "cannot be the name"},
		{"../x=a", "cannot be the name"},
		{"*.example", "NAME=*.example"},
		{"_a", "NAME=_a"},
		{"::1", "NAME=::1"},
		{"ca", "others have it"},
		{"CA=a", "others have it"},
		{"a-key", "others have it"},
		{"a A", "twice"},
	} {
		dir := t.TempDir()
		_, err := tlsRun(t, append([]string{"init", "--dir", dir}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != exitUsage {
			t.Errorf("%s: %v", c.args, err)
		}
		if made := contents(t, dir); len(made) > 0 {
			t.Errorf("%s: %d files were made", c.args, len(made))
		}
	}
	// A half of a CA.
	for missing, want := range map[string]string{"ca.pem": "ca-key.pem without", "ca-key.pem": "the key of the CA"} {
		dir := t.TempDir()
		if _, err := tlsRun(t, "init", "--dir", dir, "a"); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, missing))
		for _, args := range [][]string{{"b"}, {"--renew", "a"}} {
			if _, err := tlsRun(t, append([]string{"init", "--dir", dir}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "b.pem")); err == nil {
			t.Error("a certificate was made")
		}
	}
}
