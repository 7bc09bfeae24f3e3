package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"kvs/auth"
	"kvs/config"
	"kvs/types"
)

func TestAnonymous(t *testing.T) {
	for _, c := range []struct{ read, write bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		n := secureNode(t, func(cfg *config.Config) { cfg.AllowAnonymousRead, cfg.AllowAnonymousWrite = c.read, c.write })
		n.have("shown", "1", metaOf(t, "root", "root", "cdwr:cdwr:---r"))
		n.have("hidden", "1", metaOf(t, "root", "root", "cdwr:cdwr:----"))
		n.have("open", "1", metaOf(t, "root", "root", "----:----:cdwr"))
		is := func(allowed bool, a answer, status int) {
			t.Helper()
			if !allowed {
				status = 401
			}
			if a.status != status || status == 401 && a.header.Get("Www-Authenticate") != `Bearer realm="kvs"` {
				t.Errorf("anonymous read %v, write %v: %d %v %s, want %d", c.read, c.write, a.status, a.header, a.body, status)
			}
		}
		is(c.read, n.do("GET", "/kv/shown", ""), 200)
		is(c.read, n.do("HEAD", "/kv/shown", ""), 200)
		is(c.read, n.do("GET", "/kv/hidden", ""), 404)
		is(c.read, n.do("GET", "/kv/_conflicts", ""), 200)
		is(c.read, n.do("GET", "/kv/shown?metadata", ""), 200)
		a := n.do("GET", "/kv/_range", "")
		if is(c.read, a, 200); strings.Contains(a.body, "hidden") {
			t.Errorf("anonymous sees %s", a.body)
		}
		is(c.write, n.do("PUT", "/kv/shown", "2"), 403)
		is(c.write, n.do("PUT", "/kv/hidden", "2"), 403)
		is(c.write, n.do("PUT", "/kv/new", "2"), 201)
		is(c.write, n.do("PUT", "/kv/open", "2"), 200)
		is(c.write, n.do("DELETE", "/kv/_range?prefix=o", ""), 200)
		is(c.write, n.do("DELETE", "/kv/_conflicts/0190b6c2-0000-7000-8000-000000000000", ""), 404)
		is(c.read || c.write, n.do("POST", "/kv/_batch", `{"ops":[]}`), 200)
		if c.read != c.write {
			a := n.do("POST", "/kv/_batch", `{"ops":[{"op":"get","key":"shown"},{"op":"put","key":"b","data":1}]}`)
			want := map[bool]string{true: "200 403", false: "403 201"}[c.read]
			if got, _ := a.results(t); got != want {
				t.Errorf("anonymous batch, read %v: %s", c.read, a.body)
			}
		}
		// What wants a token does so still.
		for pattern, calls := range routeTable {
			for method, who := range calls {
				if who == "tokens" || who == "admin" {
					is(false, n.do(method, pathOf(pattern), ""), 401)
				}
			}
		}
		is(false, n.do("PATCH", "/kv/shown", ""), 401)
		is(false, n.do("GET", "/x", ""), 401)
		is(false, n.do("GET", "/kv//x", ""), 401)
		// A token that is shown must be good.
		expired, _, err := auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(auth.Secrets{Current: testSecret}),
			Now: func() time.Time { return time.Now().Add(-time.Hour) }}).Issue(auth.Root, auth.Scopes{{Scope: auth.ScopeAdmin}}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		revoked, id := n.tokenAndID(auth.Root, "admin")
		n.want(n.as(n.root(), "DELETE", "/auth/tokens/"+id, ""), 204, "")
		for name, token := range map[string]string{"garbage": "garbage", "expired": expired, "revoked": revoked} {
			for _, call := range [][2]string{{"GET", "/kv/shown"}, {"PUT", "/kv/open"}, {"GET", "/kv/_range"}, {"POST", "/kv/_batch"}} {
				if a := n.as(token, call[0], call[1], "1"); a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), "invalid_token") {
					t.Errorf("a token that is %s, anonymous read %v, write %v: %d %s", name, c.read, c.write, a.status, a.body)
				}
			}
		}
		n.want(n.do("GET", "/kv/shown", "", "Authorization", ""), 401, "unauthorized")
	}
}

// TestAuthenticationOff: everybody may do everything, and nobody is asked.
func TestAuthenticationOff(t *testing.T) {
	n := startNode(t)
	n.have("a", "1", metaOf(t, "nobody", "nobody", "----:----:----"))
	for _, headers := range [][]string{nil, {"Authorization", "Bearer garbage"}, {"Authorization", ""}, {"Authorization", "x", "Authorization", "y"}, {"Authorization", "Bearer " + n.token(auth.Root, "read:x")}} {
		n.want(n.do("GET", "/kv/a", "", headers...), 200, "")
		n.want(n.do("PUT", "/kv/a", "2", headers...), 200, "")
		n.want(n.do("GET", "/kv/a?metadata", "", headers...), 200, "")
		n.want(n.do("PUT", "/kv/a?metadata", `{"mode":"----:----:---r","owner":"root"}`, headers...), 200, "")
		n.want(n.do("PUT", "/kv/a/b", "1", headers...), 201, "")
		if got := n.owned("a/b"); got != "root root cdwr:--wr:---r" {
			t.Errorf("a new key has %s", got)
		}
		n.want(n.do("DELETE", "/kv/a/b", "", headers...), 204, "")
		n.want(n.do("GET", "/kv/_range", "", headers...), 200, "")
		n.want(n.do("GET", "/metrics", "", headers...), 200, "")
		n.want(n.do("GET", "/members/", "", headers...), 200, "")
		n.want(n.do("GET", "/sync/merkle/root", "", headers...), 200, "")
		n.want(n.do("GET", "/x", "", headers...), 404, "not_found")
		n.want(n.do("PATCH", "/kv/a", "", headers...), 405, "method_not_allowed")
		for pattern, calls := range routeTable {
			for method := range calls {
				if strings.HasPrefix(pattern, "/auth/") {
					n.want(n.do(method, pathOf(pattern), "", headers...), 404, "feature_disabled")
				}
			}
		}
	}
	n.want(n.do("GET", "/admin/audit", ""), 404, "feature_disabled") // no tamper log here
}

func limited(requests int, proxies ...string) func(*config.Config) {
	return func(c *config.Config) {
		c.RateLimitingEnabled, c.RateLimitRequests, c.RateLimitWindow, c.TrustedProxies = true, requests, time.Hour, proxies
		c.AllowAnonymousRead = true
	}
}

func TestRateLimit(t *testing.T) {
	const most = 5
	n := secureNode(t, limited(most))
	n.have("shown", "1", metaOf(t, "root", "root", "cdwr:cdwr:---r"))
	ann, bob := "0190b6c2-0000-7000-8000-00000000000a", "0190b6c2-0000-7000-8000-00000000000b"
	one, two, other := n.token(ann, "read"), n.token(ann, "read", "write"), n.token(bob, "read")
	for i := range most {
		n.want(n.as([]string{one, two}[i%2], "GET", "/kv/shown", ""), 200, "")
	}
	// Both tokens of one user have used up one bucket.
	for _, token := range []string{one, two} {
		a := n.as(token, "GET", "/kv/shown", "")
		n.want(a, 429, "rate_limited")
		h := a.header
		wait, err := strconv.Atoi(h.Get("Retry-After"))
		if err != nil || wait < 1 || wait > 3600/most || h.Get("Ratelimit-Limit") != fmt.Sprint(most) || h.Get("Ratelimit-Remaining") != "0" || h.Get("Ratelimit-Reset") == "" || h.Get("Ratelimit-Reset") == "0" {
			t.Errorf("headers: %v", h)
		}
		for _, call := range [][2]string{{"PUT", "/kv/x"}, {"PATCH", "/kv/x"}, {"GET", "/nothing"}, {"GET", "/kv//x"}, {"GET", "/members/"}, {"GET", "/auth/me"}, {"POST", "/kv/_batch"}} {
			n.want(n.as(token, call[0], call[1], ""), 429, "rate_limited")
		}
		for _, path := range []string{"/health", "/ready", "/metrics"} {
			n.want(n.as(token, "GET", path, ""), 200, "")
		}
	}
	// Another user at the same address has not; and the address has its own.
	n.want(n.as(other, "GET", "/kv/shown", ""), 200, "")
	n.want(n.do("GET", "/kv/shown", ""), 200, "")
	forged := one[:len(one)-2]
	n.want(n.as(forged, "GET", "/kv/shown", ""), 401, "unauthorized")
	n.want(n.as("garbage", "GET", "/kv/shown", "", "X-Forwarded-For", "198.51.100.1"), 401, "unauthorized") // believed of nobody
	n.want(n.as(n.expiredToken(), "GET", "/kv/shown", ""), 401, "unauthorized")
	n.want(n.do("GET", "/nothing", ""), 401, "unauthorized")
	for _, token := range []string{"", forged, "garbage", n.expiredToken()} {
		a := n.as(token, "GET", "/kv/shown", "", "X-Forwarded-For", "198.51.100.7")
		if n.want(a, 429, "rate_limited"); a.header.Get("Www-Authenticate") != "" {
			t.Errorf("%v", a.header)
		}
	}
	n.want(n.as(other, "GET", "/kv/shown", ""), 200, "") // forged tokens took nothing from whoever has a good one
	// A token named like an address, or without a user, shares no bucket with it.
	n.want(n.as(n.root(), "GET", "/kv/shown", ""), 200, "")
	n.want(n.do("GET", "/metrics", ""), 401, "unauthorized") // not counted, and not open
	n.want(n.do("GET", "/sync/push", ""), 404, "feature_disabled")
}

func (n *testNode) expiredToken() string {
	n.t.Helper()
	past := auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(auth.Secrets{Current: testSecret}), Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	token, _, err := past.Issue("0190b6c2-0000-7000-8000-00000000000a", auth.Scopes{{Scope: auth.ScopeRead}}, time.Minute)
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

// TestRateLimitBehindProxy: from a trusted proxy the header says who comes, and
// what stands to the left of that is the client's own word.
func TestRateLimitBehindProxy(t *testing.T) {
	const most = 3
	n := secureNode(t, limited(most, "127.0.0.0/8", "203.0.113.9"))
	n.have("shown", "1", metaOf(t, "root", "root", "cdwr:cdwr:---r"))
	get := func(status int, forwarded ...string) {
		t.Helper()
		var headers []string
		for _, f := range forwarded {
			headers = append(headers, "X-Forwarded-For", f)
		}
		n.want(n.do("GET", "/kv/shown", "", headers...), status, "")
	}
	get(200, "198.51.100.1")
	get(200, "1.2.3.4, 198.51.100.1")
	get(200, "1.2.3.5", "198.51.100.1, 203.0.113.9")
	get(429, "198.51.100.1")
	get(429, "anything, 198.51.100.1")
	get(200, "198.51.100.2")
	get(200, "2001:db8:0:1::1")
	get(200, "2001:db8:0:1:ffff::2")
	get(200, "[2001:db8:0:1::3]:443")
	get(429, "2001:db8:0:1::4")
	get(200, "2001:db8:0:2::1")
	// The tamper log has the client's address, not the proxy's.
	first := len(n.audited())
	n.want(n.as("garbage", "GET", "/kv/shown", "", "X-Forwarded-For", "198.51.100.77"), 401, "unauthorized")
	if got := n.since(first); len(got) != 1 || got[0].By.Address != "198.51.100.77" {
		t.Errorf("the tamper log has %+v", got)
	}
	// A network of IPv4 in IPv6 form is the same network.
	n = secureNode(t, limited(1, "::ffff:127.0.0.0/104"))
	n.have("shown", "1", metaOf(t, "root", "root", "cdwr:cdwr:---r"))
	get(200, "198.51.100.1")
	get(200, "198.51.100.2")
	get(429, "198.51.100.1")
}

// TestForwardedReads: while a node is being filled, another one answers, to the
// token that the client showed.
func TestForwardedReads(t *testing.T) {
	n, other := secureNode(t), secureNode(t)
	ann := "0190b6c2-0000-7000-8000-00000000000a"
	token := n.token(ann, "read")
	// What this node has of its own does not count.
	n.have("hidden", `"here"`, metaOf(t, ann, "root", "cdwr:cdwr:cdwr"))
	other.have("hidden", `"there"`, metaOf(t, "root", "root", "cdwr:----:----"))
	other.have("shown", `"there"`, metaOf(t, ann, "root", "cdwr:----:----"))
	n.peers.set(func(p *fakePeers) { p.state, p.peer = types.ModeSyncing, other.addr })
	for _, suffix := range []string{"", "?raw", "?metadata", "?revisions"} {
		n.want(n.as(token, "GET", "/kv/shown"+suffix, ""), 200, "")
		a := n.as(token, "GET", "/kv/hidden"+suffix, "")
		if b := n.as(token, "GET", "/kv/never"+suffix, ""); a.status != 404 || same(a) != same(b) {
			t.Errorf("%s: %s\n%s", suffix, same(a), same(b))
		}
	}
	if a := n.as(token, "GET", "/kv/_range", ""); a.status != 200 || strings.Contains(a.body, "hidden") || !strings.Contains(a.body, "shown") {
		t.Errorf("range: %d %s", a.status, a.body)
	}
	a := n.as(token, "POST", "/kv/_batch", `{"ops":[{"op":"get","key":"shown"},{"op":"get","key":"hidden"}]}`)
	if got, _ := a.results(t); got != "200 404" {
		t.Errorf("batch: %s", a.body)
	}
	// Nobody is let in here, or asked there, without a token.
	first := len(other.audited())
	n.want(n.do("GET", "/kv/shown", ""), 401, "unauthorized")
	n.want(n.as("garbage", "GET", "/kv/shown", ""), 401, "unauthorized")
	n.want(n.as(n.token(ann, "write"), "GET", "/kv/shown", ""), 403, "forbidden")
	if got := other.since(first); len(got) != 0 {
		t.Errorf("a request without a good token was passed on: %+v", got)
	}
	// What the other node knows of a token holds.
	revoked, id := n.tokenAndID(ann, "read")
	other.want(other.as(other.root(), "DELETE", "/auth/tokens/"+id, ""), 204, "")
	a = n.as(revoked, "GET", "/kv/shown", "")
	if n.want(a, 401, "unauthorized"); !strings.Contains(a.header.Get("Www-Authenticate"), "invalid_token") {
		t.Errorf("%v", a.header)
	}
	// So do its limits.
	slow := secureNode(t, limited(1))
	n.peers.set(func(p *fakePeers) { p.peer = slow.addr })
	n.want(n.as(token, "GET", "/kv/none", ""), 404, "")
	a = n.as(token, "GET", "/kv/none", "")
	if n.want(a, 429, "rate_limited"); a.header.Get("Retry-After") == "" || a.header.Get("Ratelimit-Limit") != "1" {
		t.Errorf("%v", a.header)
	}
	// Saying that one is a node that passes a request on opens nothing.
	n.want(n.do("GET", "/kv/shown", "", forwardedBy, n.store.Identity().UUID.String()), 401, "unauthorized")
	other.want(other.do("GET", "/kv/shown", "", forwardedBy, n.store.Identity().UUID.String()), 401, "unauthorized")
	other.want(other.as(token, "GET", "/kv/hidden", "", forwardedBy, n.store.Identity().UUID.String()), 404, "")
}
