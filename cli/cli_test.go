package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// ran is what one command line did.
type ran struct {
	code           int
	stdout, stderr string
}

// run carries out a command line, away from the user's files and variables.
func run(t *testing.T, ctx context.Context, stdin io.Reader, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	code := Run(ctx, Process{Args: args, Stdin: stdin, Stdout: &out, Stderr: &errs, Version: "1.2.3"})
	return ran{code, out.String(), errs.String()}
}

// fakeNode holds values in memory, for what a command does with a node's
// answers. What a node answers is tested with real ones.
type fakeNode struct {
	url string

	mu     sync.Mutex // guards all below
	uuid   string
	values map[string]string
	puts   int
	refuse func(key string) (status int) // nil or 0: take it
	before func()                        // called without the lock before a batch is carried out
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	n := &fakeNode{uuid: "node-1", values: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		json.NewEncoder(w).Encode(map[string]any{"status": "ok", "mode": "normal", "member_count": 1, "node_id": "fake", "uuid": n.uuid})
	})
	mux.HandleFunc("POST /kv/_batch", n.batch)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	n.url = server.URL
	t.Setenv("KVS_URL", n.url)
	t.Setenv("KVS_TOKEN", "")
	return n
}

func (n *fakeNode) batch(w http.ResponseWriter, r *http.Request) {
	var b struct {
		Ops []struct {
			Key  string
			Data json.RawMessage
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	n.mu.Lock()
	before := n.before
	n.mu.Unlock()
	if before != nil {
		before()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	results := []map[string]any{}
	for _, op := range b.Ops {
		if n.refuse != nil {
			if status := n.refuse(op.Key); status != 0 {
				results = append(results, map[string]any{"status": status, "code": "value_too_large", "detail": "the value is too large"})
				continue
			}
		}
		n.puts++
		n.values[op.Key] = string(op.Data)
		results = append(results, map[string]any{"status": 201, "uuid": "u", "timestamp": 1})
	}
	json.NewEncoder(w).Encode(map[string]any{"results": results})
}

func (n *fakeNode) count() (values, puts int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.values), n.puts
}

func TestUsage(t *testing.T) {
	t.Setenv("KVS_URL", "")
	for _, tt := range []struct {
		args string
		code int
		want string // in what is printed
	}{
		{"--version", exitOK, "kvs 1.2.3\n"},
		{"--help", exitOK, "Exit codes:"},
		{"get", exitUsage, "See kvs get --help."},
		{"get a b", exitUsage, "accepts 1 arg"},
		{"get --bogus", exitUsage, "unknown flag: --bogus"},
		{"get a -o yaml", exitUsage, "text or json"},
		{"get a --url ftp://x", exitUsage, "ftp://x"},
		{"put a 1 --ttl 5x", exitUsage, "--ttl"},
		{"a b", exitUsage, "accepts at most 1 arg"},
		{"ls --limit -1", exitUsage, "--limit"},
		{"import f --from-line 0", exitUsage, "--from-line"},
		{"get a//b", exitFailed, "empty segment"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := run(t, t.Context(), nil, strings.Fields(tt.args)...)
			if r.code != tt.code || !strings.Contains(r.stdout+r.stderr, tt.want) {
				t.Errorf("%+v", r)
			}
			if tt.code == exitOK && r.stderr != "" || tt.code != exitOK && r.stdout != "" {
				t.Errorf("on the wrong stream: %+v", r)
			}
		})
	}
}
