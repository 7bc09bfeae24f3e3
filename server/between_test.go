package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"kvs/auth"
	"kvs/auth/authtest"
	"kvs/features/tamperlog"
)

// betweenPaths are the calls between nodes. Which of them a node has is seen by
// asking with its own token.
var betweenPaths = []string{
	"/sync/hello", "/sync/gossip", "/sync/push", "/sync/stream", "/sync/merkle/compare", "/sync/merkle/nodes", "/sync/merkle/buckets",
	"/sync/merkle/exchange", "/sync/fetch", "/sync/x/witness",
}

// TestBetweenNodes: no client token opens a call between nodes, no node token
// one of the clients', with authentication and without.
func TestBetweenNodes(t *testing.T) {
	for _, on := range []bool{true, false} {
		cfg := nodeConfig(t, "one")
		cfg.AuthEnabled, cfg.TamperLoggingEnabled = on, true
		logged := &lockedBuffer{}
		n, _ := fullNode(t, cfg, nil, logged)
		admin, _ := issue(t, n.api.tokens, auth.Root, "admin")
		nodes := auth.NewNodeTokens(auth.NodeTokensOptions{Keys: n.trust.keys, Node: n.store.Identity().UUID})
		for _, path := range append([]string{"/sync/nothing", "/sync/", "/sync/merkle/root/", "/sync/x/", "/sync/x/nothing", "/sync/%70ush"}, betweenPaths...) {
			for _, method := range []string{"POST", "GET"} {
				tokens := map[string]string{
					"none": "", "an admin's": admin, "for another path": nodes.Sign(method, "/sync/other"), "for another method": nodes.Sign("PUT", path),
					"garbage": "garbage",
				}
				for name, token := range tokens {
					a := askAs(t, n, token, method, path, "")
					if a.status != 401 || a.code() != "unauthorized" || a.header.Get("Www-Authenticate") == "" {
						t.Errorf("auth %v, %s %s with a token %s: %d %v %s", on, method, path, name, a.status, a.header, a.body)
					}
				}
			}
		}
		for _, path := range betweenPaths {
			method := "POST"
			if path == "/sync/gossip" {
				method = "GET"
			}
			if a := askAs(t, n, nodes.Sign(method, path), method, path, ""); a.status == 401 || a.status == 404 || a.status == 405 || a.status == 0 {
				t.Errorf("auth %v, %s as a node: %d %s", on, path, a.status, a.body)
			}
		}
		for pattern, calls := range routeTable {
			for method, who := range calls {
				if who == "open" || !on {
					continue
				}
				path := pathOf(pattern)
				if a := askAs(t, n, nodes.Sign(method, path), method, path, ""); a.status != 401 {
					t.Errorf("%s %s with a node token: %d %s", method, path, a.status, a.body)
				}
			}
		}
		// Forged ones neither, each from a host of its own, so that each is logged.
		if on {
			i := 0
			forged := authtest.Forgeries(string(cfg.ClusterSecret), n.store.Now())
			for name, token := range forged {
				req, err := http.NewRequest("POST", "http://h/sync/push", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.RemoteAddr = fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)
				i++
				req.Header.Set("Authorization", "Bearer "+token)
				w := &statusOnly{header: http.Header{}}
				if n.api.ServeHTTP(w, req); w.status != 401 {
					t.Errorf("%s between nodes: %d", name, w.status)
				}
			}
			text := logged.String()
			if !strings.Contains(text, "10.0.1.1") {
				t.Error("strangers are not in the log")
			}
			for name, token := range forged {
				for _, part := range append(strings.Split(token, "."), token) {
					if len(part) >= 12 && strings.Contains(text, part) {
						t.Errorf("%s: a part of it is in the log", name)
					}
				}
			}
		}
		if err := n.store.CommitHooks(t.Context()); err != nil {
			t.Fatal(err)
		}
		noted := 0
		for _, e := range entries(t, n.store) {
			if e.Action == tamperlog.ActionRefused && strings.HasSuffix(e.Key, " /sync/push") && e.Detail == "unauthorized" && e.By.Address == "127.0.0.1" && e.By.Subject == "" {
				noted++
			}
		}
		if noted == 0 {
			t.Errorf("auth %v: a stranger at /sync/push is not in the tamper log", on)
		}
	}
}
