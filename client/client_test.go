package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kvs/types"
)

// serve runs a node made of one handler.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c, err := New(Options{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestURL(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "http://127.0.0.1:8080"},
		{"localhost:8081", "http://localhost:8081"},
		{"127.0.0.1:8081", "http://127.0.0.1:8081"},
		{"http://[::1]:8081/", "http://[::1]:8081"},
		{"https://kvs.example/store/", "https://kvs.example/store"},
	} {
		c, err := New(Options{URL: tt.in})
		if err != nil || c.URL() != tt.want {
			t.Errorf("%q: %v, %v; want %s", tt.in, c, err, tt.want)
		}
	}
	for _, in := range []string{"ftp://host", "http://", "http://:80", "http://h/?x=1", "http://h/#f", "http://h:port", "::"} {
		if _, err := New(Options{URL: in}); err == nil || !strings.Contains(err.Error(), in) {
			t.Errorf("%q: %v; want an error that names it", in, err)
		}
	}
}

func TestTokenIsSent(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.Write([]byte(`{"status":"ok"}`))
	}))
	defer server.Close()
	c, err := New(Options{URL: server.URL, Token: "abc.def"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); err != nil || got != "Bearer abc.def" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := New(Options{Token: "abc\ndef"}); err == nil {
		t.Error("a token with a line break was taken")
	}
}

func TestGet(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.EscapedPath() {
		case "/kv/a%20b/%C3%A9%3F":
			w.Write([]byte(`{"uuid":"u","timestamp":7,"data":{"n": 1.0}}`))
		case "/kv/bytes":
			w.Write([]byte(`{"uuid":"u","timestamp":7,"content_type":"image/png","data":"AAH/"}`))
		default:
			problem(w, 404, "key_not_found", "there is no key")
		}
	})
	it, err := c.Get(t.Context(), "a b/é?")
	if err != nil || string(it.Data) != `{"n": 1.0}` || it.Key != "a b/é?" || it.Timestamp != 7 {
		t.Errorf("%+v, %v", it, err)
	}
	it, err = c.Get(t.Context(), "bytes")
	if b, berr := it.Bytes(); err != nil || berr != nil || string(b) != "\x00\x01\xff" {
		t.Errorf("%q, %v, %v", b, err, berr)
	}
	if err := it.Decode(new(any)); err == nil {
		t.Error("bytes were decoded as JSON")
	}
	if _, err = c.Get(t.Context(), "none"); !errors.Is(err, types.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// A key that the store does not take could be the path of another call.
func TestBadKeysAreNotSent(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	ctx := t.Context()
	for _, key := range []string{"", "_range", "_x/y", "a//b", "/a", "a/", "..", "a/./b", "a\x00", "\xff", strings.Repeat("k", 1025)} {
		_, get := c.Get(ctx, key)
		_, raw := c.GetRaw(ctx, key)
		_, put := c.Put(ctx, key, 1, PutOptions{})
		del := c.Delete(ctx, key, DeleteOptions{})
		for _, err := range []error{get, raw, put, del} {
			if !errors.Is(err, types.ErrInvalidKey) {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
}

func TestPut(t *testing.T) {
	type sent struct{ body, contentType, query, ifMatch, ifNone string }
	var got sent
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := new(strings.Builder)
		if err := r.Write(body); err != nil { // the whole request, its body at the end
			t.Error(err)
		}
		_, text, _ := strings.Cut(body.String(), "\r\n\r\n")
		got = sent{text, r.Header.Get("Content-Type"), r.URL.Query().Encode(), r.Header.Get("If-Match"), r.Header.Get("If-None-Match")}
		w.WriteHeader(201)
		w.Write([]byte(`{"uuid":"u","timestamp":7,"replicas":2}`))
	})
	put := func(value any, o PutOptions) func() (Written, error) {
		return func() (Written, error) { return c.Put(t.Context(), "k", value, o) }
	}
	for name, tt := range map[string]struct {
		call func() (Written, error)
		want sent
	}{
		"value":    {put(map[string]string{"a": "<b>"}, PutOptions{}), sent{body: `{"a":"<b>"}`}},
		"verbatim": {put(json.RawMessage("{ \"n\":1.00 }\n"), PutOptions{}), sent{body: "{ \"n\":1.00 }\n"}},
		"options": {put(1, PutOptions{TTL: 90e9, IfMatch: "v", Replicas: Replicas{W: "all", Timeout: 2e9}}),
			sent{body: "1", query: "timeout=2s&ttl=1m30s&w=all", ifMatch: `"v"`}},
		"absent":   {put(1, PutOptions{IfAbsent: true}), sent{body: "1", ifNone: "*"}},
		"envelope": {put(json.RawMessage(`{"ttl":1,"data":2}`), PutOptions{}), sent{body: `{"data":{"ttl":1,"data":2},"ttl":"0s"}`}},
		"envelope with ttl": {put(json.RawMessage(`{"ttl":1,"data":2}`), PutOptions{TTL: 1e9}),
			sent{body: `{"data":{"ttl":1,"data":2},"ttl":"1s"}`}},
		"no envelope": {put(json.RawMessage(`{"ttl":1,"data":2,"more":3}`), PutOptions{}),
			sent{body: `{"ttl":1,"data":2,"more":3}`}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.want.contentType = "application/json"
			w, err := tt.call()
			if err != nil || w != (Written{"u", 7, 2, true}) {
				t.Errorf("%+v, %v", w, err)
			}
			if got != tt.want {
				t.Errorf("sent %+v\nwant %+v", got, tt.want)
			}
		})
	}
	if _, err := c.PutRaw(t.Context(), "k", []byte("x\x00"), "", PutOptions{}); err != nil || got.body != "x\x00" || got.contentType != "application/octet-stream" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Put(t.Context(), "k", json.RawMessage("{"), PutOptions{}); err == nil {
		t.Error("broken JSON was sent")
	}
}

func TestRangeFollowsCursors(t *testing.T) {
	var queries []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.Query().Encode())
		switch r.URL.Query().Get("cursor") {
		case "":
			w.Write([]byte(`{"items":[{"key":"a"},{"key":"b"}],"prefixes":[],"next_cursor":"x","sequence":"1.0-n"}`))
		case "x":
			w.Write([]byte(`{"items":[{"key":"c"}],"prefixes":[],"next_cursor":"","sequence":"1.0-n"}`))
		}
	})
	var keys string
	for it, err := range c.Range(t.Context(), RangeOptions{Prefix: "p/", KeysOnly: true}) {
		if err != nil {
			t.Fatal(err)
		}
		keys += it.Key
	}
	if keys != "abc" {
		t.Errorf("got %s", keys)
	}
	want := "keys_only=true&limit=1000&prefix=p%2F | cursor=x&keys_only=true&limit=1000&prefix=p%2F"
	if got := strings.Join(queries, " | "); got != want {
		t.Errorf("asked %s\nwant  %s", got, want)
	}
	// Whoever stops early fetches no further page.
	queries = nil
	for range c.Range(t.Context(), RangeOptions{}) {
		break
	}
	if len(queries) != 1 {
		t.Errorf("asked %v", queries)
	}
}

func TestConflicts(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			if r.URL.Path != "/kv/_conflicts/u" {
				t.Error(r.URL.Path)
			}
			w.WriteHeader(204)
			return
		}
		w.Write([]byte(`{"items":[{"key":"k","uuid":"u","timestamp":1,"origin":"o","winner":"v","data":2}],"next_cursor":""}`))
	})
	n := 0
	for got, err := range c.Conflicts(t.Context(), "k") {
		n++
		if err != nil || got.UUID != "u" || got.Winner != "v" || string(got.Data) != "2" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if err := c.Settle(t.Context(), "u"); err != nil || n != 1 {
		t.Error(n, err)
	}
}

func TestBatchKeepsValuesByteForByte(t *testing.T) {
	var body string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b := new(strings.Builder)
		r.Write(b)
		_, body, _ = strings.Cut(b.String(), "\r\n\r\n")
		w.Write([]byte(`{"results":[{"status":201,"uuid":"u","timestamp":1},{"status":404,"code":"key_not_found","title":"t","detail":"d"}]}`))
	})
	results, err := c.Batch(t.Context(), []Op{
		{Op: "put", Key: `a"<b`, Data: json.RawMessage(`{ "n":1.00,"s":"<\u0041>" }`), TTL: 1e9, IfMatch: "v"},
		{Op: "get", Key: "b"},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"atomic":true,"ops":[{"op":"put","key":"a\"<b","ttl":"1s","if_match":"v","data":{ "n":1.00,"s":"<\u0041>" }},{"op":"get","key":"b"}]}`
	if body != want {
		t.Errorf("sent %s\nwant %s", body, want)
	}
	if results[0].Err() != nil || results[0].UUID != "u" || !errors.Is(results[1].Err(), types.ErrNotFound) {
		t.Errorf("%+v", results)
	}
	if _, err := c.Batch(t.Context(), []Op{{Op: "put", Key: "k", Data: json.RawMessage(`1},{"op":"delete"`)}}, false); err == nil {
		t.Error("broken JSON was sent")
	}
	if _, err := c.Batch(t.Context(), []Op{{Op: "get", Key: "k"}}, false); err == nil {
		t.Error("two results for one operation were taken")
	}
}

func TestMembers(t *testing.T) {
	var calls []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r.Method+" "+r.URL.Path)
		if r.Method == http.MethodGet {
			w.Write([]byte(`[{"id":"node1","uuid":"u","address":"h:1","state":"alive","mode":"normal","joined_timestamp":3,"last_seen":4,"root":"00","behind":5}]`))
		}
	})
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 1 || members[0] != (Member{"node1", "u", "h:1", 4, 3, "alive", "normal", "00", 5}) {
		t.Errorf("%+v, %v", members, err)
	}
	if err := errors.Join(c.Join(t.Context(), "h:2"), c.Leave(t.Context()), c.Remove(t.Context(), "node2")); err != nil {
		t.Error(err)
	}
	want := "GET /members/,POST /members/join,POST /members/leave,DELETE /members/node2"
	if got := strings.Join(calls, ","); got != want {
		t.Errorf("called %s", got)
	}
}

func problem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"status": status, "code": code, "title": "A title", "detail": detail})
}
