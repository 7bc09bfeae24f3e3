package server

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"kvs/auth"
	"kvs/auth/authtest"
	"kvs/config"
	"kvs/storage"
	"kvs/types"
)

// routeTable says who may call what, by hand: whoever adds a route says it here
// too. "tokens" is any valid token; the others are scopes, a prefix sufficing
// where the handler asks for each key.
var routeTable = map[string]map[string]string{
	"/kv/{path...}":         {"GET": "read", "PUT": "write", "POST": "write", "DELETE": "write"},
	"/kv/_range":            {"GET": "read", "DELETE": "write"},
	"/kv/_watch":            {"GET": "read"},
	"/kv/_batch":            {"POST": "read or write"},
	"/kv/_conflicts":        {"GET": "read"},
	"/kv/_conflicts/{uuid}": {"DELETE": "write"},

	"/members/{$}":   {"GET": "tokens"},
	"/members/join":  {"POST": "admin"},
	"/members/leave": {"POST": "admin"},
	"/members/{id}":  {"DELETE": "admin"},

	"/health":           {"GET": "open"},
	"/ready":            {"GET": "open"},
	"/metrics":          {"GET": "tokens"},
	"/sync/merkle/root": {"GET": "admin"},

	"/auth/me":                           {"GET": "tokens"},
	"/auth/users":                        {"GET": "admin", "POST": "admin"},
	"/auth/users/{id}":                   {"GET": "admin", "DELETE": "admin"},
	"/auth/groups":                       {"GET": "admin", "POST": "admin"},
	"/auth/groups/{id}":                  {"GET": "admin", "DELETE": "admin"},
	"/auth/groups/{id}/members/{member}": {"PUT": "admin", "DELETE": "admin"},
	"/auth/tokens":                       {"GET": "admin", "POST": "admin"},
	"/auth/tokens/{id}":                  {"GET": "admin", "DELETE": "admin"},

	"/admin/audit":           {"GET": "admin"},
	"/admin/audit/witnessed": {"GET": "admin"},
	"/admin/backup":          {"POST": "admin"},
	"/admin/backups":         {"GET": "admin"},
	"/admin/restore":         {"POST": "admin"},
}

// scopesThat lists the tokens that a call of the table lets in.
var scopesThat = map[string][]string{
	"open":          {"", "read", "write", "jobs", "admin", "admin:p/", "read:p/"},
	"tokens":        {"read", "write", "jobs", "admin", "admin:p/", "read:p/"},
	"read":          {"read", "admin", "admin:p/", "read:p/"},
	"write":         {"write", "admin", "admin:p/"},
	"read or write": {"read", "write", "admin", "admin:p/", "read:p/"},
	"admin":         {"admin"},
}

var methods = []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"}

// pathOf is a path that a pattern takes; that of a watch gives no stream, which
// would not end.
func pathOf(pattern string) string {
	return strings.NewReplacer("{path...}", "p/k", "{uuid}", "0190b6c2-0000-7000-8000-000000000000", "{$}", "", "{id}", "x", "{member}", "y", "/_watch", "/_watch?since=x").Replace(pattern)
}

func TestRouteTableIsComplete(t *testing.T) {
	n := secureNode(t)
	got := map[string]map[string]string{}
	for pattern, calls := range n.calls() {
		got[pattern] = map[string]string{}
		for method, c := range calls {
			if got[pattern][method] = "?"; c.access != 0 {
				got[pattern][method] = routeTable[pattern][method]
			}
		}
	}
	for pattern, calls := range got {
		for method, who := range calls {
			if who == "" || who == "?" {
				t.Errorf("%s %s: who may call it is %q; say it in the routes and in this test's table", method, pattern, who)
			}
		}
	}
	for pattern, calls := range routeTable {
		if !slices.Equal(slices.Sorted(maps.Keys(calls)), slices.Sorted(maps.Keys(got[pattern]))) {
			t.Errorf("%s has %v, the table %v", pattern, slices.Sorted(maps.Keys(got[pattern])), slices.Sorted(maps.Keys(calls)))
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a route without access was taken")
		}
	}()
	n.resource("/new", map[string]call{"GET": {0, n.health, false}})
}

// TestStrangers: without a token there is nothing but /health and /ready, and
// the refusal says how to get one.
func TestStrangers(t *testing.T) {
	n := secureNode(t)
	refused := func(method, path string) {
		t.Helper()
		a := n.do(method, path, "")
		if a.status != 401 || a.header.Get("Www-Authenticate") != `Bearer realm="kvs"` || a.header.Get("Allow") != "" ||
			method != "HEAD" && (a.code() != "unauthorized" || !strings.Contains(a.member("detail"), "kvs token create --scope admin")) {
			t.Errorf("%s %s: %d %v %s", method, path, a.status, a.header, a.body)
		}
	}
	for pattern, calls := range routeTable {
		path := pathOf(pattern)
		for _, method := range methods {
			who := calls[method]
			if method == "HEAD" {
				who = calls["GET"]
			}
			a := answer{}
			if calls["GET"] != "open" {
				refused(method, path)
				continue
			}
			// What is open is so whatever comes with the request.
			for _, headers := range [][]string{nil, {"Authorization", "Bearer garbage"}, {"Authorization", ""}} {
				a = n.do(method, path, "", headers...)
				if who == "open" && a.status != 200 || who == "" && a.status != 405 {
					t.Errorf("%s %s with %q: %d %s", method, path, headers, a.status, a.body)
				}
			}
		}
	}
	for _, path := range []string{
		"/", "/x", "/kv", "/kv/", "/kv//a", "/kv/../health", "/kv/a/", "/KV/a", "/kv%2Fa", "/%6Bv/a", "/kv/%5Frange", "/kv/_range/", "/kv/_batch/x", "/kv/_x",
		"/health/", "/health/x", "/health//", "//health", "/./health", "/health/.", "/x/../health", "/health%2F", "/ready/", "/Health", "/health%00", "/health;x", "/ready%20",
		"/members", "/members/", "/members//", "/members/%2E%2E", "/auth", "/auth/", "/auth/me/", "/auth/users/", "/auth/x", "/admin", "/admin/", "/admin/audit/", "/admin/x",
		"/sync", "/sync%2Fpush", "/debug/pprof/", "/favicon.ico", "/.well-known/x", "/%2e%2e/health", "/health%2F..%2Fkv/a",
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
			refused(method, path)
		}
	}
	for _, request := range []string{
		"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "CONNECT /health HTTP/1.0\r\n\r\n",
		"GET http://h/kv/a HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://health/kv/a HTTP/1.1\r\nHost: /health\r\n\r\n", "GET /kv/a HTTP/1.0\r\n\r\n",
		"POST /kv/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n1\r\n1\r\n0\r\nAuthorization: Bearer " + n.root() + "\r\n\r\n",
		"GET /kv/a?access_token=" + n.root() + " HTTP/1.1\r\nHost: h\r\nCookie: token=" + n.root() + "\r\n\r\n",
	} {
		method, _, _ := strings.Cut(request, " ")
		if a := n.raw(method, request); a.status != 401 && a.status != 405 && a.status != 400 || a.status == 405 && method != "CONNECT" {
			t.Errorf("%.60q: %d %s", request, a.status, a.body)
		}
	}
	// An unknown path and a wrong method say what they are to whoever may know.
	token := n.token(auth.Root, "jobs")
	n.want(n.as(token, "GET", "/x", ""), 404, "not_found")
	n.want(n.as(token, "GET", "/sync", ""), 404, "not_found")
	n.want(n.as(token, "GET", "/kv//a", ""), 400, "invalid_key")
	n.want(n.as(token, "PATCH", "/kv/a", ""), 405, "method_not_allowed")
}

// TestScopes calls every route with a token of each scope.
func TestScopes(t *testing.T) {
	n := secureNode(t)
	for _, scope := range []string{"read", "write", "jobs", "admin", "admin:p/", "read:p/"} {
		token := n.token(auth.Root, scope)
		for pattern, calls := range routeTable {
			for _, method := range methods {
				who := calls[method]
				if method == "HEAD" {
					who = calls["GET"]
				}
				a := n.as(token, method, pathOf(pattern), "")
				switch allowed := slices.Contains(scopesThat[who], scope); {
				case who == "" && (a.status != 405 || a.header.Get("Allow") == ""):
					t.Errorf("%s %s with %s: %d %s, want 405", method, pattern, scope, a.status, a.body)
				case who == "" || a.status == 401:
				case allowed != (a.status != 403):
					t.Errorf("%s %s with %s, which %s may call: %d %s", method, pattern, scope, who, a.status, a.body)
				}
				if a.status == 401 {
					t.Errorf("%s %s with %s: %s", method, pattern, scope, a.body)
				}
			}
		}
	}
	// A key beyond the prefix is refused before anything is looked up.
	n.have("q/k", "1", metaOf(t, auth.Root, auth.Root, "cdwr:cdwr:cdwr"))
	for _, scope := range []string{"admin:p/", "read:p/"} {
		token := n.token(auth.Root, scope)
		for _, key := range []string{"q/k", "q/none", "p", "pp/k", "P/k", "q%2Fk"} {
			for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
				a := n.as(token, method, "/kv/"+key, "1", "If-None-Match", "*")
				if a.status != 403 {
					t.Errorf("%s of %s with %s: %d %s", method, key, scope, a.status, a.body)
				}
			}
		}
		// Another spelling of the same key is the same key.
		if a := n.as(token, "GET", "/kv/p%2Fx", ""); a.status != 404 || a.code() != "key_not_found" {
			t.Errorf("p%%2Fx with %s: %d %s", scope, a.status, a.body)
		}
	}
}

// TestAuthorizationHeader: one header, one Bearer token, or nobody comes in.
func TestAuthorizationHeader(t *testing.T) {
	n := secureNode(t, func(c *config.Config) { c.AllowAnonymousRead = true })
	good, other := n.root(), n.token(auth.Root, "read")
	send := func(lines string) answer {
		return n.raw("GET", "GET /auth/me HTTP/1.1\r\nHost: h\r\n"+lines+"\r\n")
	}
	for _, lines := range []string{
		"Authorization: Bearer " + good + "\r\n", "authorization: bearer " + good + "\r\n", "AUTHORIZATION:BEARER " + good + "\r\n",
		"Authorization:    Bearer " + good + "   \r\n", "Authorization:\tBearer " + good + "\t\r\n",
	} {
		if a := send(lines); a.status != 200 || a.member("subject") != "root" {
			t.Errorf("%.40q: %d %s", lines, a.status, a.body)
		}
	}
	for name, lines := range map[string]string{
		"two":                  "Authorization: Bearer " + good + "\r\nAuthorization: Bearer " + good + "\r\n",
		"two, one empty":       "Authorization: \r\nAuthorization: Bearer " + good + "\r\n",
		"two, other cases":     "Authorization: Bearer " + other + "\r\nauthorization: Bearer " + good + "\r\n",
		"joined by a comma":    "Authorization: Bearer " + good + ", Bearer " + good + "\r\n",
		"joined, no space":     "Authorization: Bearer " + good + ",Bearer " + other + "\r\n",
		"two spaces":           "Authorization: Bearer  " + good + "\r\n",
		"a tab":                "Authorization: Bearer\t" + good + "\r\n",
		"no scheme":            "Authorization: " + good + "\r\n",
		"no space":             "Authorization: Bearer" + good + "\r\n",
		"a colon":              "Authorization: Bearer: " + good + "\r\n",
		"another scheme":       "Authorization: Basic " + good + "\r\n",
		"a parameter":          "Authorization: Bearer token=" + good + "\r\n",
		"quotes":               "Authorization: Bearer \"" + good + "\"\r\n",
		"something behind":     "Authorization: Bearer " + good + " x\r\n",
		"empty":                "Authorization:\r\n",
		"a scheme alone":       "Authorization: Bearer\r\n",
		"a scheme and a space": "Authorization: Bearer \r\n",
		"long":                 "Authorization: Bearer " + strings.Repeat("a", 20_000) + "\r\n",
		"long and good":        "Authorization: Bearer " + good + strings.Repeat("=", 20_000) + "\r\n",
		"latin-1":              "Authorization: Bearer " + good + "\xe9\r\n",
	} {
		if a := send(lines); a.status != 401 || a.code() != "unauthorized" || a.header.Get("Www-Authenticate") != `Bearer realm="kvs", error="invalid_token"` {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	// What net/http refuses by itself is no way in either.
	for name, c := range map[string]struct {
		lines  string
		status int
	}{
		"too long":            {"Authorization: Bearer " + strings.Repeat("a", 60_000) + "\r\n", 431},
		"a NUL":               {"Authorization: Bearer " + good + "\x00\r\n", 400},
		"a space before it":   {"Authorization : Bearer " + good + "\r\n", 400},
		"a proxy's":           {"Proxy-Authorization: Bearer " + good + "\r\n", 401},
		"another name for it": {"X-Authorization: Bearer " + good + "\r\nHttp-Authorization: Bearer " + good + "\r\n", 401},
		"with an underscore":  {"Http_Authorization: Bearer " + good + "\r\n", 401},
	} {
		if a := send(c.lines); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// On one connection each request stands for itself.
	for _, lines := range []string{"Authorization: Bearer " + good + "\r\n", ""} {
		want := 401
		if lines != "" {
			want = 200
		}
		if a := send(lines); a.status != want {
			t.Errorf("%.20q: %d", lines, a.status)
		}
	}
}

// TestForgedTokens tries every forgery on every route, past the network, and on
// some through it.
func TestForgedTokens(t *testing.T) {
	logged := &lockedBuffer{}
	cfg := testConfig(t)
	cfg.AuthEnabled, cfg.TamperLoggingEnabled, cfg.ClusteringEnabled = true, true, false
	n, _ := fullNode(t, cfg, nil, logged)
	now := n.store.Now()
	good := authtest.Good(string(testSecret), now)
	if a := askAs(t, n, good, "GET", "/auth/me", ""); a.status != 200 {
		t.Fatalf("the good token: %d %s", a.status, a.body)
	}
	type route struct{ method, path string }
	var routes []route
	for pattern, calls := range n.api.calls() {
		for method, c := range calls {
			if c.access != open {
				routes = append(routes, route{method, pathOf(pattern)})
			}
		}
	}
	routes = append(routes, route{"HEAD", "/kv/p/k"}, route{"PATCH", "/kv/p/k"}, route{"GET", "/x"}, route{"GET", "/kv//x"})
	forged := authtest.Forgeries(string(testSecret), now)
	sent := 0
	for name, token := range forged {
		for _, r := range routes {
			w := &statusOnly{header: http.Header{}}
			req, err := http.NewRequest(r.method, "http://h"+r.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.RemoteAddr = "192.0.2.1:1"
			req.Header = http.Header{"Authorization": {"Bearer " + token}}
			n.api.ServeHTTP(w, req)
			if w.status != 401 || w.header["Www-Authenticate"] == nil {
				t.Errorf("%s on %s %s: %d", name, r.method, r.path, w.status)
			}
		}
		if sent++; sent%8 != 0 {
			continue // the network changes nothing about most
		}
		if a := askAs(t, n, token, "GET", "/kv/p/k", ""); a.status != 401 || a.code() != "unauthorized" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := askAs(t, n, good, "PUT", "/kv/p/k", "1"); a.status != 201 {
		t.Fatalf("the good token at the end: %d %s", a.status, a.body)
	}

	// None of them, nor a part, is in any log. What all have in common with words
	// that are no secret is too short to matter.
	if err := n.store.CommitHooks(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := logged.String() + fmt.Sprintf("%+v", entries(t, n.store))
	if !strings.Contains(text, "unauthorized") {
		t.Fatalf("the refusals are not in the tamper log: %.300s", text)
	}
	forged["good"] = good
	for name, token := range forged {
		for _, part := range append(strings.Split(token, "."), token) {
			if len(part) >= 12 && strings.Contains(text, part) {
				t.Errorf("%s: a part of it is in a log: %.80q", name, part)
			}
		}
	}
}

// TestDamageNamesNoKey: that something is damaged is told, and what it is only to
// whoever may know of every key.
func TestDamageNamesNoKey(t *testing.T) {
	damage := fmt.Errorf("no peer has it: %w", &storage.CorruptError{Ref: types.DataRef("secret/name"), Err: errors.New("checksum")})
	for _, scope := range []auth.Grant{{Scope: auth.ScopeRead}, {Scope: auth.ScopeWrite, Prefix: "a/"}, {Scope: auth.ScopeAdmin, Prefix: "secret/"}} {
		req := requestAs(t, &auth.Principal{Subject: auth.Root, TokenID: "x", Scopes: auth.Scopes{scope}})
		if r := refusalOf(req.conceal(damage)); r.problem != corruptRecord || strings.Contains(r.detail, "secret") {
			t.Errorf("%s: %s %s", scope, r.code, r.detail)
		}
	}
	if r := refusalOf(requestAs(t, everybody).conceal(damage)); r.problem != corruptRecord || !strings.Contains(r.detail, "secret/name") {
		t.Errorf("an admin: %s %s", r.code, r.detail)
	}
	if err := requestAs(t, everybody).conceal(types.ErrNotFound); err != types.ErrNotFound {
		t.Error(err)
	}
}

// What /health says to strangers is that the node is there, and not how much is
// going on in it.
func TestHealthForStrangers(t *testing.T) {
	n := secureNode(t)
	if _, shown := n.do("GET", "/health", "").object(t)["records"]; shown {
		t.Error("a stranger is told how many records there are")
	}
	if _, shown := n.do("GET", "/health", "", "Authorization", "Bearer "+n.token(auth.Root, "read")).object(t)["records"]; !shown {
		t.Error("who has a token is not told how many records there are")
	}
	n.want(n.do("GET", "/health", "", "Authorization", "Bearer rubbish"), 200, "")
}

// A node that is being filled may lack revocations: it takes nothing that needs
// the admin scope.
func TestNothingForAdminsWhileSyncing(t *testing.T) {
	n := secureNode(t)
	n.peers.set(func(p *fakePeers) { p.state = types.ModeSyncing })
	admin := "Bearer " + n.root()
	for _, call := range [][2]string{{"POST", "/members/leave"}, {"GET", "/auth/users"}, {"GET", "/admin/audit"}} {
		n.want(n.do(call[0], call[1], "", "Authorization", admin), 503, "syncing")
	}
	n.want(n.do("GET", "/members/", "", "Authorization", admin), 200, "")
}
