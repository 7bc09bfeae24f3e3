package server

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"kvs/types"
)

// TestOddPaths sends paths as they are, through a real server: each is a key,
// or refused; none is redirected, and none reaches another route.
func TestOddPaths(t *testing.T) {
	n := startNode(t)
	type path struct {
		path   string
		status int
		code   string
	}
	const ok = "" // a valid key that is not there
	var paths []path
	add := func(status int, code string, list ...string) {
		for _, p := range list {
			paths = append(paths, path{p, status, code})
		}
	}
	add(404, "key_not_found",
		"/kv/a", "/kv/a/b", "/kv/a%2Fb", "/kv/a%2fb/c", "/kv/...", "/kv/.a", "/kv/a.", "/kv/..a", "/kv/a..b/c", "/kv/.../...",
		"/kv/%20", "/kv/a%20b", "/kv/a+b", "/kv/%2B", "/kv/%25", "/kv/%2525", "/kv/%3F", "/kv/%23", "/kv/a;b", "/kv/a:b", "/kv/a=b&c",
		"/kv/%C3%A9", "/kv/\xc3\xa9", "/kv/%F0%9F%98%80", "/kv/%E2%80%A8", "/kv/%22", "/kv/\"", "/kv/%5C", "/kv/a%5Cb", "/kv/<x>",
		"/kv/a_", "/kv/a/_b", "/kv/a/_range", "/kv/-", "/kv/~", "/kv/@", "/kv/*", "/kv/{path...}", "/kv/$", "/kv/%7B%7D", "/kv/kv", "/kv/health",
		"/kv/"+strings.Repeat("a", 1024), "/kv/"+strings.Repeat("%61", 1024), "/kv/"+strings.Repeat("a/", 511)+"ab", "/%6Bv/a", "/kv/%C2%A0",
		"http://other.example/kv/a", "/kv/a%2F%22", "/kv/a%2Fb\"")
	add(400, "invalid_key",
		"/kv", "/kv/", "/kv//", "/kv///", "/kv//a", "/kv/a/", "/kv/a//", "/kv/a//b", "/kv/a///b", "/kv/a/b/", "//kv/a", "///kv/a", "/kv//_range", "/kv/_range/",
		"/kv/.", "/kv/..", "/kv/./a", "/kv/../a", "/kv/a/.", "/kv/a/..", "/kv/a/./b", "/kv/a/../b", "/kv/../kv/a", "/./kv/a", "/x/../kv/a", "/kv/../members/", "/kv/../../health",
		"/kv/%2e", "/kv/%2E", "/kv/%2e%2e", "/kv/%2E%2E", "/kv/.%2e", "/kv/%2e.", "/kv/%2e%2e/a", "/kv/a/%2e%2e", "/kv/a/%2e%2e/b", "/kv/%2e/a", "/kv/a%2f..", "/kv/a%2F..%2Fb", "/kv/..%2f",
		"/kv/%2F", "/kv/%2f%2f", "/kv/%2Fa", "/kv/a%2F", "/kv/a%2F%2Fb", "/kv/a/%2F", "/kv/a%2F/b", "/kv/a/%2Fb", "/kv/a%2F%2Fb\"",
		"/kv/%C2%80", "/kv/%C2%9F", "/kv/a%C2%85b", "/kv/%7F", "/kv/a%7F",
		"/kv/%FF", "/kv/%C3", "/kv/a%C3", "/kv/%C3%28", "/kv/%ED%A0%80", "/kv/%F5%80%80%80", "/kv/%C0%AF", "/kv/%C0%AE%C0%AE", "/kv/%E0%80%AF", "/kv/\xff", "/kv/\xc3(",
		"/kv/"+strings.Repeat("a", 1025), "/kv/"+strings.Repeat("%61", 1025), "/kv/"+strings.Repeat("%C3%A9", 513), "/kv/"+strings.Repeat("a", 4000),
		"/kv/_", "/kv/_a", "/kv/_a/b", "/kv/%5F", "/kv/%5Fa", "/kv/_Range", "/kv/_range/a", "/kv/_batch/", "/kv/_watch/", "/kv/_watch/a", "/kv/_conflicts/", "/kv/_conflicts/a/b", "/kv/_range%2Fa", "/kv/_conflicts%2Fa",
	)
	for c := range 0x20 {
		add(400, "invalid_key", fmt.Sprintf("/kv/%%%02x", c), fmt.Sprintf("/kv/a%%%02Xb", c), fmt.Sprintf("/kv/a/%%%02X", c))
	}
	for c := 0x80; c <= 0x9f; c++ {
		add(400, "invalid_key", "/kv/"+url.PathEscape(string(rune(c))))
	}
	for c := 0x80; c <= 0xff; c++ {
		add(400, "invalid_key", fmt.Sprintf("/kv/%%%02X", c), fmt.Sprintf("/kv/a%%%02Xb", c))
	}
	add(404, "not_found",
		"/", "/x", "/kvx", "/kv2/a", "/KV/a", "/kv%2Fa", "/health/", "/health/x", "/ready/", "/metrics/", "/members//", "/members/..", "/members/x/y", "//", "//health", "/./health", "/../health",
		"/sync//merkle/root", "/x//y", "/x/./y", "*")
	add(404, "feature_disabled", "/sync/", "/sync/merkle", "/sync/merkle/root/", "/sync/push")
	add(400, "bad_request", "/kv/%", "/kv/%2", "/kv/%zz", "/kv/%2g", "/kv/a%", "/kv/a\x01b", "/kv/a\x7fb", "kv/a", "", "/kv/a b")
	// These are there.
	add(200, ok, "/kv/_range", "/kv/%5Frange", "/kv/_r%61nge", "/health", "/ready", "/members", "/members/", "/sync/merkle/root", "/metrics", "/kv/_conflicts", "/health?")

	for _, p := range paths {
		a := n.raw("GET", "GET "+p.path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if a.status != p.status || a.code() != p.code {
			t.Errorf("GET %.60q: got %d %s, want %d %s", p.path, a.status, a.code(), p.status, p.code)
		}
		if p.status >= 400 {
			checkProblem(t, a)
		}
	}
	t.Logf("%d paths", len(paths))

	// What may not be read may not be written either, and leaves nothing.
	for _, p := range paths {
		if p.code != "invalid_key" {
			continue
		}
		for _, method := range []string{"PUT", "DELETE"} {
			a := n.raw(method, method+" "+p.path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1")
			known := strings.Contains(p.path, "range") || strings.Contains(p.path, "conflicts") || strings.Contains(p.path, "batch")
			if a.status != 400 && !known {
				t.Errorf("%s %.60q: status %d", method, p.path, a.status)
			}
		}
	}
	a := n.do("GET", "/kv/_range", "")
	if items := a.object(t)["items"].([]any); len(items) != 0 {
		t.Errorf("odd paths wrote %s", a.body)
	}
}

// TestKeysSurvive writes odd but valid keys and finds each under its own name.
func TestKeysSurvive(t *testing.T) {
	n := startNode(t)
	keys := []string{"a", "a/b", "a b", "é", "😀", `"`, `\`, "a?b", "a#b", "%", "%2F", "a+b", ".a", "...", "a_", "a/_b", "\u2028", "<&>", strings.Repeat("k", types.MaxKeyLen)}
	for i, key := range keys {
		segments := strings.Split(key, "/")
		for j := range segments {
			segments[j] = url.PathEscape(segments[j])
		}
		n.want(n.do("PUT", "/kv/"+strings.Join(segments, "/"), fmt.Sprint(i)), 201, "")
		// The slash may be escaped as well.
		a := n.do("GET", "/kv/"+url.PathEscape(key), "")
		n.want(a, 200, "")
		if got := fmt.Sprint(a.object(t)["data"]); got != fmt.Sprint(i) {
			t.Errorf("key %q: %s", key, a.body)
		}
	}
	found := map[string]bool{}
	for _, item := range n.do("GET", "/kv/_range", "").object(t)["items"].([]any) {
		found[item.(map[string]any)["key"].(string)] = true
	}
	for _, key := range keys {
		if !found[key] {
			t.Errorf("key %q is not in the range", key)
		}
	}
}

func TestMethods(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct{ method, path, allow string }{
		{"PATCH", "/kv/a", "DELETE, GET, HEAD, POST, PUT"},
		{"OPTIONS", "/kv/a", "DELETE, GET, HEAD, POST, PUT"},
		{"TRACE", "/kv/a", "DELETE, GET, HEAD, POST, PUT"},
		{"FOO", "/kv/a", "DELETE, GET, HEAD, POST, PUT"},
		{"PUT", "/kv/_range", "DELETE, GET, HEAD"},
		{"GET", "/kv/_batch", "POST"},
		{"DELETE", "/kv/_conflicts", "GET, HEAD"},
		{"GET", "/kv/_conflicts/x", "DELETE"},
		{"POST", "/members/", "GET, HEAD"},
		{"DELETE", "/members", "GET, HEAD"},
		{"GET", "/members/join", "POST"},
		{"DELETE", "/members/leave", "POST"},
		{"GET", "/members/n1", "DELETE"},
		{"POST", "/health", "GET, HEAD"},
		{"PUT", "/ready", "GET, HEAD"},
		{"DELETE", "/metrics", "GET, HEAD"},
		{"POST", "/sync/merkle/root", "GET, HEAD"},
	} {
		a := n.do(c.method, c.path, "")
		n.want(a, 405, "method_not_allowed")
		if got := a.header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow is %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	for _, path := range []string{"/health", "/ready", "/metrics", "/members/", "/kv/_range", "/sync/merkle/root"} {
		a := n.do("HEAD", path, "")
		if a.status != 200 || a.body != "" {
			t.Errorf("HEAD %s: %d %q", path, a.status, a.body)
		}
	}
}

func TestUnknownParameters(t *testing.T) {
	n := startNode(t)
	n.do("PUT", "/kv/a", "1")
	for _, c := range []struct{ method, path string }{
		{"GET", "/kv/a?rwa"}, {"GET", "/kv/a?ttl=1h"}, {"PUT", "/kv/a?raw"}, {"PUT", "/kv/a?W=2"}, {"DELETE", "/kv/a?ttl=1h"},
		{"GET", "/kv/_range?start=a"}, {"GET", "/kv/_range?raw"}, {"DELETE", "/kv/_range?prefix=a&limit=1"}, {"POST", "/kv/_batch?atomic=true"},
		{"GET", "/kv/_conflicts?reverse"}, {"DELETE", "/kv/_conflicts/x?force"}, {"GET", "/members/?x"}, {"GET", "/health?verbose"}, {"GET", "/ready?x=1"},
		{"GET", "/metrics?name=x"}, {"GET", "/sync/merkle/root?x"}, {"POST", "/members/join?x"}, {"POST", "/members/leave?now"}, {"DELETE", "/members/b?force"},
		{"GET", "/kv/a?raw&raw"}, {"GET", "/kv/a?raw=perhaps"}, {"GET", "/kv/a?a;b"}, {"GET", "/kv/a?%zz"}, {"GET", "/kv/_range?prefix=%FF"},
	} {
		a := n.do(c.method, c.path, "1")
		n.want(a, 400, "invalid_parameter")
		if name := strings.FieldsFunc(c.path[strings.Index(c.path, "?")+1:], func(r rune) bool { return r == '=' || r == '&' }); !strings.Contains(c.path, "prefix") &&
			!strings.Contains(a.body, name[0]) && !strings.ContainsAny(name[0], ";%") {
			t.Errorf("%s %s: the parameter is not named: %s", c.method, c.path, a.body)
		}
	}
}
