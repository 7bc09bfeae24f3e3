package server

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/auth"
	"kvs/config"
	"kvs/storage"
	"kvs/types"
	"kvs/utils/oneport"
)

// BenchmarkGet compares a read of a small document over HTTP with a bare handler
// that answers the same bytes, 64 connections each.
func BenchmarkGet(b *testing.B) {
	doc := `{"name":"libexample","text":"` + strings.Repeat("x", 165) + `"}`
	cfg := benchConfig(b)
	n, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler), Network: oneport.Real()})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	n.api.write(b.Context(), storage.Op{Kind: storage.OpPut, Ref: types.DataRef("a"), Value: []byte(doc)})
	go n.http.Serve(n.listener)
	defer n.http.Close()
	answer := fetch(b, "http://"+n.Addr()+"/kv/a")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, answer)
	})}
	go bare.Serve(ln)
	defer bare.Close()

	token, _, err := n.api.tokens.Issue(auth.Root, auth.Scopes{{Scope: auth.ScopeAdmin}}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for _, again := range []string{"", " again"} {
		b.Run("bare"+again, func(b *testing.B) { load(b, ln.Addr().String(), "") })
		b.Run("kvs, anonymous"+again, func(b *testing.B) { load(b, n.Addr(), "") })
		b.Run("kvs, with a token"+again, func(b *testing.B) { load(b, n.Addr(), "Authorization: Bearer "+token+"\r\n") })
	}
}

func fetch(b *testing.B, url string) string {
	resp, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		b.Fatal(resp.Status, err)
	}
	return string(body)
}

// load sends b.N requests over raw connections, which cost the client little.
func load(b *testing.B, addr, header string) {
	const conns = 64
	request := []byte("GET /kv/a HTTP/1.1\r\nHost: bench\r\n" + header + "\r\n")
	var wg sync.WaitGroup
	start := time.Now()
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for range b.N/conns + min(1, max(0, b.N%conns-i)) {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				// An answer comes in one piece: it fits net/http's buffer.
				if _, err := c.Read(buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "req/s")
}

func benchConfig(b *testing.B) config.Config {
	cfg := config.Default()
	cfg.NodeID, cfg.Port, cfg.DataDir = "n1", 0, b.TempDir()
	cfg.SyncWrites, cfg.MinFreeDisk, cfg.ClusteringEnabled = false, 0, false
	cfg.ClusterSecret, cfg.AllowAnonymousRead, cfg.RateLimitRequests = testSecret, true, 1_000_000_000
	return cfg
}
