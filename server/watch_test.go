package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/auth"
	"kvs/types"
)

// watching is a client that watches, over a connection of its own.
type watching struct {
	t    *testing.T
	conn net.Conn
	resp *http.Response
	in   *bufio.Reader
	last string // the last id
	said []string
}

// sse is one event.
type sse struct{ id, kind, data string }

// key reads the first member alone: there may be a large value behind it.
func (e sse) key() (key string) {
	_ = json.NewDecoder(strings.NewReader(strings.TrimPrefix(e.data, `{"key":`))).Decode(&key)
	return key
}

// watchAt begins a watch; headers come in pairs. Whatever the answer, it is in
// resp.
func watchAt(t *testing.T, addr, query string, headers ...string) *watching {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	request := "GET /kv/_watch" + query + " HTTP/1.1\r\nHost: h\r\n"
	for i := 0; i < len(headers); i += 2 {
		request += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 4096), &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	return &watching{t: t, conn: c, resp: resp, in: bufio.NewReaderSize(resp.Body, 4096), last: resp.Header.Get("Kvs-Sequence")}
}

func (n *testNode) watch(query string, headers ...string) *watching {
	n.t.Helper()
	w := watchAt(n.t, n.addr, query, headers...)
	if w.resp.StatusCode != 200 {
		n.t.Fatalf("%s: %d", query, w.resp.StatusCode)
	}
	return w
}

// block reads up to the next blank line; the error is io.EOF at a clean end.
func (w *watching) block() (e sse, err error) {
	for {
		line, err := w.in.ReadString('\n')
		if err != nil {
			if line != "" {
				return e, io.ErrUnexpectedEOF
			}
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			return e, nil
		case name == "":
			w.said = append(w.said, value)
		case name == "id":
			e.id, w.last = value, value
		case name == "event":
			e.kind = value
		case name == "data" && e.data == "":
			e.data = value
		default:
			return e, fmt.Errorf("the line %q", line)
		}
	}
}

// next reads the next event.
func (w *watching) next() sse {
	w.t.Helper()
	for {
		e, err := w.block()
		if err != nil {
			w.t.Fatalf("%v; said were %q", err, w.said)
		}
		if e.kind != "" {
			return e
		}
	}
}

// rest reads to the end of the answer, which must be a clean one.
func (w *watching) rest() (events []sse) {
	w.t.Helper()
	for {
		e, err := w.block()
		if err == io.EOF {
			return events
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if e.kind != "" {
			events = append(events, e)
		}
	}
}

func (w *watching) want(events ...string) {
	w.t.Helper()
	for _, want := range events {
		if e := w.next(); e.kind+" "+e.key() != want {
			w.t.Errorf("told %+v, want %s", e, want)
		}
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m
}

func TestWatch(t *testing.T) {
	n := startNode(t)
	w := n.watch("")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := w.resp.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	id := regexp.MustCompile(`^[1-9][0-9]*\.[0-9]+-` + n.store.Identity().UUID.String() + `$`)
	if !id.MatchString(w.last) {
		t.Errorf("%q", w.last)
	}
	for _, c := range []struct{ key, body, contentType, query string }{
		{"a/json", "{\"n\":\r\n [1,\n2], \"s\": \"a\\nb \u2028\"}", "application/json", ""},
		{"a/text", "data: x\n\nevent: put\nid: 1\n\n", "text/plain", ""},
		{"é\"\\", "null", "application/json", "?ttl=1h"},
	} {
		path := "/kv/" + url.PathEscape(c.key) + c.query
		path = strings.ReplaceAll(path, "%2F", "/")
		n.want(n.do("PUT", path, c.body, "Content-Type", c.contentType), 201, "")
		e := w.next()
		want := object(t, n.do("GET", path[:len(path)-len(c.query)], "").body)
		want["key"] = c.key
		if got := object(t, e.data); e.kind != "put" || !reflect.DeepEqual(got, want) {
			t.Errorf("told %s, want %v", e.data, want)
		}
		if !id.MatchString(e.id) {
			t.Errorf("%q", e.id)
		}
	}
	n.want(n.do("DELETE", "/kv/a/json", ""), 204, "")
	e := w.next()
	if got := slices.Sorted(maps.Keys(object(t, e.data))); e.kind != "delete" || e.key() != "a/json" || !slices.Equal(got, []string{"key", "timestamp", "uuid"}) {
		t.Errorf("%+v", e)
	}
	// Of what a put and an expiry tell, only the data is missing from the latter.
	n.want(n.do("PUT", "/kv/short?ttl=50ms", "raw", "Content-Type", "text/plain"), 201, "")
	put, gone := object(t, w.next().data), w.next()
	delete(put, "data")
	if got := object(t, gone.data); gone.kind != "expire" || !reflect.DeepEqual(got, put) {
		t.Errorf("%+v, want %v", gone, put)
	}
	if late := time.Since(time.UnixMilli(int64(put["expires_at"].(float64)))); late < 0 || late > time.Second {
		t.Errorf("it is told %s late", late)
	}
	metrics := n.do("GET", "/metrics", "").body
	for _, want := range []string{"\nkvs_watchers 1\n", "\nkvs_watch_dropped_total 0\n", `kvs_http_problems_total{code="sequence_gone"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	w.conn.Close()
	eventually(t, "nobody watches", func() bool { return n.watches.hub.Stats().Watchers == 0 })
}

// TestWatchResume: by either name of the id, from a list, and from nowhere else.
func TestWatchResume(t *testing.T) {
	n := startNode(t)
	w := n.watch("?prefix=a/")
	for _, path := range []string{"/kv/a/1", "/kv/b", "/kv/a/2"} {
		n.want(n.do("PUT", path, "1"), 201, "")
	}
	first := w.next()
	w.want("put a/2")
	n.watch("?prefix=a/&since=" + first.id).want("put a/2")
	n.watch("?prefix=b&since=" + first.id).want("put b")
	// The header is a browser's that comes back with the old URL.
	n.watch("?since="+w.resp.Header.Get("Kvs-Sequence"), "Last-Event-ID", first.id).want("put b", "put a/2")
	n.watch("?prefix=b", "last-event-id", first.id).want("put b")

	sequence := object(t, n.do("GET", "/kv/_range", "").body)["sequence"].(string)
	n.want(n.do("DELETE", "/kv/b", ""), 204, "")
	n.watch("?since=" + sequence).want("delete b")

	node := n.store.Identity().UUID.String()
	for query, want := range map[string]struct {
		status int
		code   string
	}{
		"?since=1.0-0190a5c4-7b1e-7cc3-98c4-dc0c0c07398f": {410, "sequence_gone"},
		"?since=1000000000.0-" + node:                     {410, "sequence_gone"},
		"?since=":                                         {400, "invalid_parameter"},
		"?since=1.0":                                      {400, "invalid_parameter"},
		"?since=1.0-" + node + "x":                        {400, "invalid_parameter"},
		"?since=1.9999999999-" + node:                     {400, "invalid_parameter"},
		"?sinc=" + first.id:                               {400, "invalid_parameter"},
		"?prefix=" + strings.Repeat("x", 1025):            {400, "invalid_parameter"},
	} {
		a := n.do("GET", "/kv/_watch"+query, "")
		n.want(a, want.status, want.code)
		if want.status == 410 && !strings.Contains(a.member("detail"), "/kv/_range") {
			t.Errorf("no remedy in %s", a.body)
		}
		n.want(n.do("HEAD", "/kv/_watch"+query, ""), want.status, "")
	}
	n.want(n.do("GET", "/kv/_watch", "", "Last-Event-ID", "nonsense"), 400, "invalid_parameter")
	a := n.do("HEAD", "/kv/_watch?since="+first.id, "")
	if a.status != 200 || a.header.Get("Content-Type") != "text/event-stream" || a.header.Get("Kvs-Sequence") != first.id || a.body != "" {
		t.Errorf("%d %v %q", a.status, a.header, a.body)
	}
	n.want(n.do("POST", "/kv/_watch", ""), 405, "method_not_allowed")
	n.peers.set(func(p *fakePeers) { p.state = types.ModeSyncing })
	n.want(n.do("GET", "/kv/_watch", ""), 503, "syncing")
}

// TestWatchComments: an idle watch is kept alive, and learns where it is.
func TestWatchComments(t *testing.T) {
	n := startNode(t)
	n.watches.every = 20 * time.Millisecond // before the first request: the server goroutines see it
	w := n.watch("?prefix=quiet/")
	began := w.last
	n.want(n.do("PUT", "/kv/loud", "1"), 201, "")
	for w.last == began || len(w.said) < 4 {
		if e, err := w.block(); err != nil || e.kind != "" || e.data != "" {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if w.said[0] != "watching from "+began {
		t.Errorf("%q", w.said)
	}
	n.want(n.do("PUT", "/kv/quiet/1", "1"), 201, "")
	n.watch("?since=" + w.last).want("put quiet/1")
}

// TestWatchWithBody: a body that nobody reads does not end a watch.
func TestWatchWithBody(t *testing.T) {
	n := startNode(t)
	n.bodyGrace = 50 * time.Millisecond
	n.watches.every = 20 * time.Millisecond
	w := n.watch("", "Content-Length", "10")
	for begun := time.Now(); time.Since(begun) < 4*n.bodyGrace; {
		if _, err := w.block(); err != nil {
			t.Fatal(err)
		}
	}
	n.want(n.do("PUT", "/kv/a", "1"), 201, "")
	w.want("put a")
}

// TestWatchSeesOnly what the token covers and the modes let it read.
func TestWatchSeesOnly(t *testing.T) {
	n := secureNode(t)
	user := n.addUser("ann")
	root := n.root()
	bearer := func(scopes ...string) []string {
		return []string{"Authorization", "Bearer " + n.token(user, scopes...)}
	}
	n.want(n.do("GET", "/kv/_watch", ""), 401, "unauthorized")
	n.want(n.as(n.token(user, "write"), "GET", "/kv/_watch", ""), 403, "forbidden")
	pub := n.watch("", bearer("read:pub/")...)
	two := n.watch("?prefix=p", bearer("read:pub/", "read:priv/open")...)
	all := n.watch("", bearer("read")...)
	admin := n.watch("", "Authorization", "Bearer "+root)
	for _, c := range []struct{ key, mode string }{
		{"pub/1", "cdwr:cdwr:---r"}, {"pub/2", "cdwr:cdwr:----"}, {"priv/open", "cdwr:cdwr:---r"}, {"priv/openly", "cdwr:cdwr:---r"}, {"pub/3", "cdwr:cdwr:---r"},
	} {
		mode, err := auth.ParseMode(c.mode)
		if err != nil {
			t.Fatal(err)
		}
		n.have(c.key, "1", types.Meta{Owner: auth.Root, Group: auth.Root, Mode: mode})
	}
	n.want(n.as(root, "DELETE", "/kv/pub/2", ""), 204, "")
	n.want(n.as(root, "DELETE", "/kv/pub/3", ""), 204, "")
	pub.want("put pub/1", "put pub/3", "delete pub/3")
	two.want("put pub/1", "put priv/open", "put pub/3", "delete pub/3")
	all.want("put pub/1", "put priv/open", "put priv/openly", "put pub/3", "delete pub/3")
	admin.want("put pub/1", "put pub/2", "put priv/open", "put priv/openly", "put pub/3", "delete pub/2", "delete pub/3")
}

// TestWatchEndsWithToken: revoked, expired, or its user deleted, nothing more is
// told; a group that one has left counts no more.
func TestWatchEndsWithToken(t *testing.T) {
	n := secureNode(t)
	user := n.addUser("ann")
	group := n.addGroup("readers", user)
	root := n.root()
	token, id := n.tokenAndID(user, "read")
	shown := func(key, mode string) {
		m, err := auth.ParseMode(mode)
		if err != nil {
			t.Fatal(err)
		}
		n.have(key, "1", types.Meta{Owner: auth.Root, Group: group, Mode: m})
	}
	secret := func(key string) { shown(key, "cdwr:---r:----") }
	w := n.watch("", "Authorization", "Bearer "+token)
	secret("1")
	w.want("put 1")
	n.want(n.as(root, "DELETE", "/auth/groups/"+group+"/members/"+user, ""), 204, "")
	secret("2")
	shown("all", "cdwr:---r:---r")
	w.want("put all") // who may read is asked when an event is sent
	n.want(n.as(root, "PUT", "/auth/groups/"+group+"/members/"+user, ""), 204, "")
	secret("3")
	w.want("put 3")
	n.want(n.as(root, "DELETE", "/auth/tokens/"+id, ""), 204, "")
	secret("4")
	if events := w.rest(); len(events) != 0 || !strings.Contains(w.said[len(w.said)-1], "token") {
		t.Errorf("%v, and %q", events, w.said)
	}
	// Whoever has another one misses nothing.
	n.watch("?since="+w.last, "Authorization", "Bearer "+n.token(user, "read")).want("put 4")

	n.watches.every = 20 * time.Millisecond // no watch is open
	brief, _, err := n.tokens.Issue(user, auth.Scopes{{Scope: auth.ScopeRead}}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	w = n.watch("", "Authorization", "Bearer "+brief)
	if events := w.rest(); len(events) != 0 || !strings.Contains(w.said[len(w.said)-1], "token") {
		t.Errorf("%v, and %q", events, w.said)
	}
	w = n.watch("", "Authorization", "Bearer "+n.token(user, "read"))
	n.want(n.as(root, "DELETE", "/auth/users/"+user, ""), 204, "")
	w.rest()
}

// TestWatchSlow: who does not read is dropped, told from where to go on, and then
// misses nothing.
func TestWatchSlow(t *testing.T) {
	n := startNode(t)
	slow, fast, other := n.watch(""), n.watch("?prefix=large"), n.watch("?prefix=small")
	if err := slow.conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil { // the kernel would read on
		t.Fatal(err)
	}
	value := strings.Repeat("x", 700<<10) // a third more as an event
	const values = 40
	for i := range values {
		n.want(n.do("PUT", fmt.Sprintf("/kv/large/%d", i), value, "Content-Type", "text/plain"), 201, "")
		fast.want(fmt.Sprintf("put large/%d", i))
	}
	n.want(n.do("PUT", "/kv/small", "1"), 201, "")
	other.want("put small")
	told := slow.rest()
	if len(told) == 0 || len(told) >= values || !strings.Contains(slow.said[len(slow.said)-1], slow.last) {
		t.Errorf("%d events, and %q", len(told), slow.said)
	}
	if !strings.Contains(n.do("GET", "/metrics", "").body, "\nkvs_watch_dropped_total 1\n") {
		t.Error("it is not counted")
	}
	again := n.watch("?since=" + slow.last)
	for i := len(told); i < values; i++ {
		again.want(fmt.Sprintf("put large/%d", i))
	}
	again.want("put small")
}

// TestWatchEndsAtStop: watches do not hold up a node's stop, end cleanly, and go
// on after the next start.
func TestWatchEndsAtStop(t *testing.T) {
	cfg := nodeConfig(t, "solo")
	n, stop := runNode(t, cfg)
	idle, slow := watchAt(t, n.Addr(), "?prefix=none"), watchAt(t, n.Addr(), "")
	if a := ask(t, n.Addr(), "PUT", "/kv/a?ttl=300ms", "1"); a.status != 201 {
		t.Fatal(a)
	}
	if a := ask(t, n.Addr(), "PUT", "/kv/b", "1"); a.status != 201 {
		t.Fatal(a)
	}
	slow.want("put a")
	begun := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > requestGrace/2 {
		t.Errorf("the stop took %s", took)
	}
	idle.rest()
	told := slow.rest()
	if got := slow.said[len(slow.said)-1]; !strings.Contains(got, "stopping") || !strings.Contains(got, slow.last) {
		t.Errorf("%q", got)
	}
	again, _ := runNode(t, cfg)
	w := watchAt(t, again.Addr(), "?since="+slow.last)
	if len(told) == 0 {
		w.want("put b")
	}
	w.want("expire a")
}

// TestThousandWatchers on one node: all are told, soon, and they take little.
func TestThousandWatchers(t *testing.T) {
	const watchers, events = 1000, 5
	n := startNode(t)
	used := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := used()
	var all []*watching
	for i := range watchers {
		all = append(all, n.watch([]string{"", "?prefix=k", fmt.Sprintf("?prefix=k/%d", i%events)}[i%3]))
	}
	// Their clients are in it too.
	if grown := used() - before; grown > 150<<20 {
		t.Errorf("%d watchers take %d MB", watchers, grown>>20)
	} else {
		t.Logf("%d kB for each watcher and its client", grown>>10/watchers)
	}
	begun := time.Now()
	for i := range events {
		n.want(n.do("PUT", fmt.Sprintf("/kv/k/%d", i), `"v"`), 201, "")
	}
	var wg sync.WaitGroup
	for i, w := range all {
		wg.Go(func() {
			want := []string{"put k/0", "put k/1", "put k/2", "put k/3", "put k/4"}
			if i%3 == 2 {
				want = want[i%events : i%events+1]
			}
			w.want(want...)
		})
	}
	wg.Wait()
	t.Logf("all were told in %s", time.Since(begun))
	if st := n.watches.hub.Stats(); st.Watchers != watchers || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
	if !strings.Contains(n.do("GET", "/metrics", "").body, fmt.Sprintf("\nkvs_watchers %d\n", watchers)) {
		t.Error("they are not counted")
	}
}
