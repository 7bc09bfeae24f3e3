package client

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvs/types"
	"kvs/utils/certs"
)

// secureServer is a node with TLS, whose certificate is for example.com and
// 127.0.0.1; caFile holds its CA.
func secureServer(t *testing.T) (server *httptest.Server, caFile string) {
	t.Helper()
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"status":"ok","node_id":"n"}`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return server, caFile
}

func TestCAFile(t *testing.T) {
	server, caFile := secureServer(t)
	host := strings.TrimPrefix(server.URL, "https://")
	for _, url := range []string{server.URL, host} { // a CA means TLS
		c, err := New(Options{URL: url, CAFile: caFile})
		if err != nil || c.URL() != server.URL {
			t.Fatalf("%v, %v", c, err)
		}
		defer c.Close()
		if h, err := c.Health(t.Context()); err != nil || h.NodeID != "n" {
			t.Errorf("%s: %+v, %v", url, h, err)
		}
	}
	if c, err := New(Options{CAFile: caFile}); err != nil || c.URL() != "https://127.0.0.1:8080" {
		t.Errorf("%v, %v", c, err)
	}
	if c, err := New(Options{CAFile: caFile, URL: "http://127.0.0.1:1"}); err != nil || c.URL() != "http://127.0.0.1:1" {
		t.Errorf("%v, %v", c, err)
	}
	_, port, _ := strings.Cut(host, ":")
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{URL: server.URL}, "signed by a CA that this machine does not know: name the file with that CA (client.Options.CAFile; kvs: --ca-file or KVS_CA_FILE)"},
		{Options{URL: server.URL, CAFile: otherCA(t)}, "not signed by a CA in "},
		{Options{URL: "https://localhost:" + port, CAFile: caFile}, "its certificate is not for localhost"},
		{Options{URL: "https://" + plainServer(t)}, "it does not speak TLS; its URL begins with http://"},
	} {
		c, err := New(tt.o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err = c.Health(t.Context()); !errors.Is(err, types.ErrUnreachable) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v; want %q", tt.o, err, tt.want)
		}
	}
}

func plainServer(t *testing.T) string {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// otherCA is a file with a certificate that signed nothing.
func otherCA(t *testing.T) string {
	t.Helper()
	a, err := certs.NewAuthority("another", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "other.pem")
	if err := a.Save(path, filepath.Join(dir, "other-key.pem")); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCAFileRefuses(t *testing.T) {
	_, caFile := secureServer(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{CAFile: empty}, "empty.pem holds no certificate in PEM"},
		{Options{CAFile: "none.pem"}, "CA file: open none.pem"},
		{Options{CAFile: caFile, Transport: http.DefaultTransport}, "both a Transport and a CAFile"},
	} {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %q", err, tt.want)
		}
	}
}

// TestOldTLS: nothing below 1.2 is spoken.
func TestOldTLS(t *testing.T) {
	server, caFile := secureServer(t)
	server.TLS.MaxVersion = tls.VersionTLS11
	server.TLS.MinVersion = tls.VersionTLS10
	c, err := New(Options{URL: server.URL, CAFile: caFile})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Health(t.Context()); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}
