package server

import (
	"io"
	"strings"
	"testing"

	"kvs/auth"
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
		n, _ := fullNode(t, cfg, nil, io.Discard)
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
