package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"kvs/config"
	"kvs/types"
)

// TestJSONIsKept stores documents and compares what comes back byte for byte.
func TestJSONIsKept(t *testing.T) {
	n := startNode(t)
	for _, doc := range []string{
		`1`, `null`, `true`, `"x"`, `""`, `[]`, `{}`, `12345678901234567890123456789`, `1.0`, `1.00`, `1E400`, `-0`, `0.1e-7`,
		`{"b":1,"a":2,"b":3}`, `{ "a" : [ 1 , 2 ] }`, `"\u00e9\/\ud83d\ude00"`, `"é😀"`, `"\ud800"`, `"<&>\u2028"`, `"` + "\u2028" + `"`,
		`{"data":1}`, `{"data":1,"ttl":"1h","x":0}`, `{"ttl":"1h"}`, `{"data":1,"data":2}`, `{"data":1,"ttl":"1h","ttl":"2h"}`, `[{"data":1,"ttl":"1h"}]`,
		strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
	} {
		n.do("PUT", "/kv/doc", " \r\n\t"+doc+"\n ", "Content-Type", "application/json; charset=utf-8")
		if a := n.do("GET", "/kv/doc?raw", ""); a.body != doc || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%.60s came back raw as %.60s", doc, a.body)
		}
		a := n.do("GET", "/kv/doc", "")
		if want := `"data":` + doc + "}\n"; !strings.HasSuffix(a.body, want) {
			t.Errorf("%.60s came back as %.120s", doc, a.body)
		}
		if !json.Valid([]byte(a.body)) {
			t.Errorf("not JSON: %.120s", a.body)
		}
	}
}

func TestContentTypes(t *testing.T) {
	n := startNode(t)
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		contentType, body string
		status            int
		code, stored      string // the content type that comes back; "" is JSON
	}{
		{"", `{"a":1}`, 200, "", ""},
		{"", `hello`, 200, "", octetStream},
		{"", ``, 200, "", octetStream},
		{"", "\xff\x00", 200, "", octetStream},
		{"", `"` + "\xff" + `"`, 200, "", octetStream},
		{form, `[1]`, 200, "", ""},
		{form, `a=b`, 200, "", octetStream},
		{"application/json", `{"a":1}`, 200, "", ""},
		{"Application/JSON;charset=UTF-8", `1`, 200, "", ""},
		{"application/json", `hello`, 400, "invalid_json", ""},
		{"application/json", ``, 400, "invalid_json", ""},
		{"application/json", `1 2`, 400, "invalid_json", ""},
		{"application/json", `"` + "\xff" + `"`, 400, "invalid_json", ""},
		{"application/json", "\ufeff1", 400, "invalid_json", ""},
		{"text/plain", `1`, 200, "", "text/plain"},
		{"text/html; charset=utf-8", `<script>`, 200, "", "text/html; charset=utf-8"},
		{"image/png", "\x89PNG", 200, "", "image/png"},
		{"application/ld+json", `{}`, 200, "", "application/ld+json"},
		{"text", `1`, 200, "", "text"},
		{"text/", `1`, 400, "invalid_parameter", ""},
		{";", `1`, 400, "invalid_parameter", ""},
		{"text/plain; x=" + strings.Repeat("y", 300), `1`, 400, "invalid_parameter", ""},
		{"text/plain; x=\"\xff\"", `1`, 400, "invalid_parameter", ""},
	} {
		t.Run(c.contentType, func(t *testing.T) {
			n := *n
			n.t = t
			n.do("PUT", "/kv/k", `0`)
			var headers []string
			if c.contentType != "" {
				headers = []string{"Content-Type", c.contentType}
			}
			n.want(n.do("PUT", "/kv/k", c.body, headers...), c.status, c.code)
			if c.status != 200 {
				n.want(n.do("GET", "/kv/k?raw", ""), 200, "")
				return
			}
			a := n.do("GET", "/kv/k?raw", "")
			want := c.stored
			if want == "" {
				want = "application/json"
			}
			if a.body != c.body || a.header.Get("Content-Type") != want {
				t.Errorf("raw: %q as %q", a.body, a.header.Get("Content-Type"))
			}
			if a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.header.Get("Content-Security-Policy"), "sandbox") {
				t.Error("a stored page could run")
			}
			a = n.do("GET", "/kv/k", "")
			if got := a.member("content_type"); got != c.stored {
				t.Errorf("content_type %q, want %q", got, c.stored)
			}
			if c.stored != "" {
				if b, err := base64.StdEncoding.DecodeString(a.member("data")); err != nil || string(b) != c.body {
					t.Errorf("data: %s", a.body)
				}
			}
		})
	}
	n.want(n.do("PUT", "/kv/k", "1", "Content-Encoding", "gzip"), 415, "unsupported_media")
	n.want(n.do("PUT", "/kv/k", "1", "Content-Range", "bytes 0-0/2"), 415, "unsupported_media")
}

func TestTTL(t *testing.T) {
	n := startNode(t, func(c *config.Config) { c.DefaultTTL = time.Minute })
	for _, c := range []struct {
		query, body string
		status      int
		code        string
		ttl         time.Duration // 0 = never
		data        string
	}{
		{"", `1`, 200, "", time.Minute, `1`},
		{"?ttl=1h", `1`, 200, "", time.Hour, `1`},
		{"?ttl=0", `1`, 200, "", 0, `1`},
		{"?ttl=1d12h", `1`, 200, "", 36 * time.Hour, `1`},
		{"", `{"data":[1, 2],"ttl":"2h"}`, 200, "", 2 * time.Hour, `[1, 2]`},
		{"", ` { "ttl" : "7d" , "d\u0061ta" : {"ttl":1} } `, 200, "", 7 * 24 * time.Hour, `{"ttl":1}`},
		{"", `{"data":{"data":1,"ttl":"1h"},"ttl":"0"}`, 200, "", 0, `{"data":1,"ttl":"1h"}`},
		{"", `{"data":1,"ttl":1,"more":1}`, 200, "", time.Minute, `{"data":1,"ttl":1,"more":1}`},
		{"", `{"data":1,"ttl":60}`, 400, "invalid_body", 0, ""},
		{"", `{"data":1,"ttl":null}`, 400, "invalid_body", 0, ""},
		{"", `{"data":1,"ttl":""}`, 400, "invalid_body", 0, ""},
		{"", `{"data":1,"ttl":"-1h"}`, 400, "invalid_body", 0, ""},
		{"", `{"data":1,"ttl":"1 hour"}`, 400, "invalid_body", 0, ""},
		{"", `{"data":1,"ttl":"99999999h"}`, 400, "invalid_body", 0, ""},
		{"?ttl=1h", `{"data":1,"ttl":"1h"}`, 400, "invalid_parameter", 0, ""},
		{"?ttl=", `1`, 400, "invalid_parameter", 0, ""},
		{"?ttl=5", `1`, 400, "invalid_parameter", 0, ""},
		{"?ttl=-5s", `1`, 400, "invalid_parameter", 0, ""},
		{"?ttl=1ns", `1`, 400, "invalid_parameter", 0, ""},
		{"?ttl=90000d", `1`, 400, "invalid_parameter", 0, ""},
	} {
		n.do("PUT", "/kv/k", `0`)
		a := n.do("PUT", "/kv/k"+c.query, c.body)
		n.want(a, c.status, c.code)
		if c.status != 200 {
			continue
		}
		written, _ := a.object(t)["timestamp"].(json.Number).Int64()
		var got struct {
			Data    json.RawMessage
			Expires int64 `json:"expires_at"`
		}
		if err := json.Unmarshal([]byte(n.do("GET", "/kv/k", "").body), &got); err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		if c.ttl != 0 {
			want = written + c.ttl.Milliseconds()
		}
		if got.Expires != want || string(got.Data) != c.data {
			t.Errorf("%s %s: expires %d after the write, data %s", c.query, c.body, got.Expires-written, got.Data)
		}
	}
}

func TestValueSizes(t *testing.T) {
	const most = 10_000
	n := startNode(t, func(c *config.Config) { c.MaxJSONSize = most })
	text := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	for _, c := range []struct {
		name, contentType, body string
		fits                    bool
	}{
		{"JSON", "application/json", text(most), true},
		{"JSON too large", "application/json", text(most + 1), false},
		{"JSON much too large", "application/json", text(most * 10), false},
		{"white space around", "application/json", strings.Repeat(" ", 2000) + text(most) + "\n", true},
		{"bytes", "text/plain", text(most), true},
		{"bytes too large", "text/plain", text(most + 1), false},
		{"guessed", "", strings.Repeat("x", most), true},
		{"guessed too large", "", strings.Repeat("x", most+1), false},
		{"wrapped", "", `{"data":` + text(most) + `,"ttl":"1h"}`, true},
		{"wrapped too large", "", `{"data":` + text(most+1) + `,"ttl":"1h"}`, false},
	} {
		for _, chunked := range []bool{false, true} {
			var body any = strings.NewReader(c.body)
			req, _ := http.NewRequest("PUT", "http://"+n.addr+"/kv/big", body.(*strings.Reader))
			if chunked {
				req.ContentLength = -1
			}
			if c.contentType != "" {
				req.Header.Set("Content-Type", c.contentType)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			a := readAnswer(t, resp)
			if fits := a.status < 300; fits != c.fits || !fits && a.code() != "value_too_large" {
				t.Errorf("%s (chunked %v): %d %s", c.name, chunked, a.status, a.body)
			}
		}
	}
	// A claim of a huge body is refused before a byte of it has come.
	a := n.raw("PUT", "PUT /kv/big HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n")
	n.want(a, 413, "value_too_large")
}

func TestPutAndDelete(t *testing.T) {
	n := startNode(t)
	first := n.do("PUT", "/kv/a", `{"n":1}`)
	n.want(first, 201, "")
	second := n.do("POST", "/kv/a", `{"n":2}`)
	n.want(second, 200, "")
	if first.member("uuid") == second.member("uuid") || second.header.Get("Etag") != `"`+second.member("uuid")+`"` {
		t.Errorf("versions: %s then %s, ETag %s", first.body, second.body, second.header.Get("Etag"))
	}
	if got := len(first.object(t)); got != 2 {
		t.Errorf("the answer of a write has %d members: %s", got, first.body)
	}
	get := n.do("GET", "/kv/a", "", "Authorization", "Bearer nonsense")
	n.want(get, 200, "")
	if get.member("uuid") != second.member("uuid") || get.header.Get("Etag") != second.header.Get("Etag") {
		t.Errorf("read %s after %s", get.body, second.body)
	}
	head := n.do("HEAD", "/kv/a", "")
	if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != fmt.Sprint(len(get.body)) {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	n.want(n.do("HEAD", "/kv/b", ""), 404, "")
	del := n.do("DELETE", "/kv/a", "")
	if n.want(del, 204, ""); del.body != "" {
		t.Errorf("a 204 with a body: %q", del.body)
	}
	n.want(n.do("GET", "/kv/a", ""), 404, "key_not_found")
	before := n.store.Seq()
	n.want(n.do("DELETE", "/kv/a", ""), 404, "key_not_found")
	n.want(n.do("DELETE", "/kv/never", ""), 404, "key_not_found")
	if after := n.store.Seq(); after != before {
		t.Errorf("a delete of nothing made %d commits", after-before)
	}
	n.want(n.do("PUT", "/kv/a", `3`), 201, "")
}

func TestPreconditions(t *testing.T) {
	n := startNode(t)
	current := n.do("PUT", "/kv/a", `1`).member("uuid")
	const other = "0190b6c2-0000-7000-8000-000000000000"
	tag := func(id string) string { return `"` + id + `"` }
	for _, c := range []struct {
		method, key, header, value string
		status                     int
		code                       string
	}{
		{"GET", "a", "If-None-Match", tag(current), 304, ""},
		{"GET", "a", "If-None-Match", "W/" + tag(current), 304, ""},
		{"GET", "a", "If-None-Match", "*", 304, ""},
		{"HEAD", "a", "If-None-Match", tag(other) + ", " + tag(current), 304, ""},
		{"GET", "a", "If-None-Match", tag(other), 200, ""},
		{"GET", "a", "If-Match", tag(current), 200, ""},
		{"GET", "a", "If-Match", tag(other), 412, "precondition_failed"},
		{"GET", "none", "If-Match", tag(current), 404, "key_not_found"},
		{"GET", "none", "If-None-Match", "*", 404, "key_not_found"},
		{"GET", "a", "If-Match", current, 400, "invalid_parameter"},
		{"PUT", "a", "If-None-Match", "*", 412, "precondition_failed"},
		{"PUT", "a", "If-None-Match", tag(current), 412, "precondition_failed"},
		{"PUT", "a", "If-Match", tag(other), 412, "precondition_failed"},
		{"PUT", "a", "If-Match", "W/" + tag(current), 412, "precondition_failed"},
		{"PUT", "a", "If-Match", "nonsense", 400, "invalid_parameter"},
		{"PUT", "none", "If-Match", "*", 412, "precondition_failed"},
		{"PUT", "none", "If-Match", tag(current), 412, "precondition_failed"},
		{"DELETE", "a", "If-Match", tag(other), 412, "precondition_failed"},
		{"DELETE", "none", "If-Match", tag(other), 404, "key_not_found"},
		// What follows changes the key.
		{"PUT", "b", "If-None-Match", "*", 201, ""},
		{"PUT", "a", "If-Match", tag(other) + " ,, " + tag(current), 200, ""},
		{"PUT", "a", "If-Match", tag(current), 412, "precondition_failed"},
		{"PUT", "a", "If-Match", "*", 200, ""},
		{"PUT", "a", "If-None-Match", tag(current), 200, ""},
		{"DELETE", "a", "If-Match", "*", 204, ""},
	} {
		a := n.do(c.method, "/kv/"+c.key, `2`, c.header, c.value)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%s %s with %s: %s: %d %s", c.method, c.key, c.header, c.value, a.status, a.body)
		}
		if a.status == 304 && (a.header.Get("Etag") != tag(current) || a.body != "") {
			t.Errorf("304 with %v %q", a.header, a.body)
		}
	}
}

func TestETagList(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // "" = refused
	}{
		{`*`, "*"}, {` * `, "*"}, {`"a"`, "a"}, {`W/"a"`, "W/a"}, {`"a","b"`, "a b"}, {`"a" , W/"b" ,`, "a W/b"}, {`,, "a"`, "a"}, {`""`, " "}, {`"a,b"`, "a,b"},
		{``, ""}, {`,`, ""}, {`a`, ""}, {`"a`, ""}, {`"a" "b"`, ""}, {`"a"b`, ""}, {`w/"a"`, ""}, {`W/`, ""}, {`W/a`, ""}, {`*,"a"`, ""}, {`"a b"`, ""}, {`'a'`, ""},
	} {
		got := ""
		if e, ok := parseETagList(c.in); ok {
			if got = "*"; !e.any {
				var tags []string
				for _, tag := range e.list {
					if tag.weak {
						tag.value = "W/" + tag.value
					}
					tags = append(tags, tag.value)
				}
				if got = strings.Join(tags, " "); got == "" {
					got = " "
				}
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestRevisions(t *testing.T) {
	n := startNode(t)
	n.want(n.do("GET", "/kv/a?revisions", ""), 404, "key_not_found")
	first := n.do("PUT", "/kv/a", `1`).member("uuid")
	second := n.do("PUT", "/kv/a", `2`).member("uuid")
	n.do("DELETE", "/kv/a", "")
	a := n.do("GET", "/kv/a?revisions", "")
	n.want(a, 200, "")
	list := a.object(t)["revisions"].([]any)
	if len(list) != 3 {
		t.Fatalf("%d revisions: %s", len(list), a.body)
	}
	for i, want := range []struct {
		uuid    string
		deleted bool
	}{{"", true}, {second, false}, {first, false}} {
		m := list[i].(map[string]any)
		if want.uuid != "" && m["uuid"] != want.uuid || m["deleted"] != want.deleted || m["conflict"] != false || m["origin"] != n.store.Identity().UUID.String() {
			t.Errorf("revision %d: %v", i, m)
		}
	}
	n.want(n.do("GET", "/kv/a?revisions&raw", ""), 400, "invalid_parameter")
	off := startNode(t, func(c *config.Config) { c.RevisionHistoryEnabled = false })
	off.do("PUT", "/kv/a", `1`)
	off.want(off.do("GET", "/kv/a?revisions", ""), 404, "feature_disabled")
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"a", "a/b", "", "/", "..", "_a", "\xff", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := parseKey(s)
		if err != nil {
			return
		}
		if string(key) != s || key.Reserved() || strings.Contains("/"+s+"/", "//") || strings.Contains("/"+s+"/", "/../") || len(s) > types.MaxKeyLen {
			t.Errorf("%q is taken for a key", s)
		}
	})
}
