package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kvs/config"
	"kvs/storage"
	"kvs/storage/codec"
	"kvs/types"
)

func TestAcknowledgements(t *testing.T) {
	n := startNode(t)
	asked := make(chan int, 1)
	n.peers.set(func(p *fakePeers) {
		p.roster = 5
		p.await = func(_ context.Context, others int) (int, error) { asked <- others; return others, nil }
	})
	for _, c := range []struct {
		w    string
		want int
	}{{"1", 1}, {"2", 2}, {"5", 5}, {"quorum", 3}, {"all", 5}} {
		a := n.do("PUT", "/kv/a?w="+c.w, `1`)
		if got := a.object(t)["replicas"]; got != json.Number(fmt.Sprint(c.want)) {
			t.Errorf("w=%s: %s", c.w, a.body)
		}
		if c.want > 1 && <-asked != c.want-1 {
			t.Errorf("w=%s waited for another number of peers", c.w)
		}
	}
	if a := n.do("PUT", "/kv/a", `1`); a.object(t)["replicas"] != nil {
		t.Errorf("replicas without w: %s", a.body)
	}
	for _, bad := range []string{"w=0", "w=-1", "w=x", "w=", "w=1.5", "w=most", "timeout=0", "timeout=5", "timeout=11m", "w=2&timeout=x"} {
		n.want(n.do("PUT", "/kv/a?"+bad, `1`), 400, "invalid_parameter")
	}

	// Too few in time: the write stays, and the answer says so.
	n.peers.set(func(p *fakePeers) {
		p.await = func(ctx context.Context, _ int) (int, error) { <-ctx.Done(); return 1, ctx.Err() }
	})
	a := n.do("PUT", "/kv/late?w=all&timeout=20ms", `1`)
	n.want(a, 504, "not_replicated")
	m := a.object(t)
	if m["replicas"] != json.Number("2") || !strings.Contains(a.body, "kept on this node") || !strings.Contains(n.do("GET", "/kv/late", "").body, m["uuid"].(string)) {
		t.Errorf("the problem: %s", a.body)
	}
	n.want(n.do("DELETE", "/kv/late?w=3&timeout=20ms", ""), 504, "not_replicated")
	n.want(n.do("GET", "/kv/late", ""), 404, "key_not_found")
}

func TestWritesAreRefused(t *testing.T) {
	n := startNode(t)
	n.do("PUT", "/kv/a", `1`)
	for _, c := range []struct {
		code   string
		change func(p *fakePeers)
	}{
		{"read_only", func(p *fakePeers) { p.state = types.ModeReadOnly }},
		{"syncing", func(p *fakePeers) { p.state = types.ModeSyncing }},
		{"clock_skew", func(p *fakePeers) { p.state, p.ahead = types.ModeNormal, time.Minute }},
	} {
		n.peers.set(c.change)
		for _, call := range [][3]string{
			{"PUT", "/kv/a", `2`}, {"POST", "/kv/a", `2`}, {"DELETE", "/kv/a", ""}, {"DELETE", "/kv/_range?prefix=a", ""},
			{"POST", "/kv/_batch", `{"ops":[{"op":"delete","key":"a"}]}`}, {"DELETE", "/kv/_conflicts/0190b6c2-0000-7000-8000-000000000000", ""},
		} {
			n.want(n.do(call[0], call[1], call[2]), 503, c.code)
		}
	}
	n.peers.set(func(p *fakePeers) { p.ahead = 0 })
	if a := n.do("GET", "/kv/a", ""); !strings.Contains(a.body, `"data":1`) {
		t.Errorf("a refused write was done: %s", a.body)
	}
}

func TestForwarding(t *testing.T) {
	n, other := startNode(t), startNode(t)
	n.do("PUT", "/kv/a", `"here"`)
	id := other.do("PUT", "/kv/a%2Fb", `"there"`).member("uuid")
	n.peers.set(func(p *fakePeers) { p.state = types.ModeSyncing })
	n.want(n.do("GET", "/kv/a", ""), 503, "syncing")
	n.peers.set(func(p *fakePeers) { p.peer = other.addr })

	a := n.do("GET", "/kv/a%2Fb", "")
	if n.want(a, 200, ""); a.member("uuid") != id || a.header.Get("Etag") != `"`+id+`"` || a.member("data") != "there" {
		t.Errorf("forwarded: %v %s", a.header, a.body)
	}
	if a := n.do("GET", "/kv/a/b?raw", ""); a.body != `"there"` || a.header.Get("X-Content-Type-Options") == "" {
		t.Errorf("forwarded raw: %v %s", a.header, a.body)
	}
	if a := n.do("HEAD", "/kv/a/b", ""); a.status != 200 || a.header.Get("Content-Length") == "" {
		t.Errorf("forwarded HEAD: %v", a.header)
	}
	if a := n.do("GET", "/kv/a/b", "", "If-None-Match", `"`+id+`"`); a.status != 304 {
		t.Errorf("forwarded condition: %d", a.status)
	}
	n.want(n.do("GET", "/kv/a", ""), 404, "key_not_found")
	n.want(n.do("GET", "/kv/a?x", ""), 400, "invalid_parameter")
	if a := n.do("GET", "/kv/_range?prefix=a", ""); !strings.Contains(a.body, `"a/b"`) {
		t.Errorf("forwarded range: %s", a.body)
	}
	n.want(n.do("GET", "/kv/_conflicts", ""), 200, "")

	// Two nodes that are both being filled do not pass a request to and fro.
	other.peers.set(func(p *fakePeers) { p.state, p.peer = types.ModeSyncing, n.addr })
	n.want(n.do("GET", "/kv/a", ""), 503, "syncing")
	n.peers.set(func(p *fakePeers) { p.peer = "127.0.0.1:1" })
	n.want(n.do("GET", "/kv/a", ""), 503, "no_peer")
	a = n.do("GET", "/ready", "")
	if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.member("reason"), "syncing") {
		t.Errorf("ready while syncing: %d %s", a.status, a.body)
	}
	if a = n.do("GET", "/health", ""); a.member("mode") != "syncing" || a.object(t)["syncing"] == nil {
		t.Errorf("health while syncing: %s", a.body)
	}
}

func TestConflicts(t *testing.T) {
	n := startNode(t)
	for _, key := range []string{"a", "a/x", "b"} {
		n.do("PUT", "/kv/"+key, `{"here": 1}`)
	}
	winner := n.do("GET", "/kv/a", "").member("uuid")
	origin := types.NodeID{1}
	var losers []types.Record
	for i, key := range []types.Key{"a", "a/x", "b"} {
		rec := types.Record{
			Ref:     types.DataRef(key),
			Version: types.Version{Timestamp: types.TimestampOf(1000), Origin: origin, OriginJoined: 1, UUID: types.VersionID{byte(i + 1)}},
			Value:   []byte(`{"there": 1.0}`),
		}
		if key == "b" {
			rec.Flags, rec.Value, rec.PurgeAt = types.FlagTombstone, nil, 1<<45
		}
		losers = append(losers, rec)
	}
	if refused, err := n.store.Merge(t.Context(), [][]types.Record{losers}); err != nil || len(refused) > 0 {
		t.Fatal(err, refused)
	}
	a := n.do("GET", "/kv/_conflicts?limit=1", "")
	n.want(a, 200, "")
	var page struct {
		Items []struct {
			Key, UUID, Origin, Winner string
			Timestamp                 int64
			Deleted                   bool
			Data                      json.RawMessage
		}
		Next string `json:"next_cursor"`
	}
	read := func(a answer) {
		t.Helper()
		page.Items, page.Next = nil, ""
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
	}
	read(a)
	if len(page.Items) != 1 || page.Next == "" {
		t.Fatalf("first page: %s", a.body)
	}
	if it := page.Items[0]; it.Key != "a" || it.UUID != losers[0].UUID.String() || it.Origin != origin.String() || it.Winner != winner ||
		it.Timestamp != 1000 || it.Deleted || string(it.Data) != `{"there": 1.0}` {
		t.Errorf("the first conflict: %s", a.body)
	}
	read(n.do("GET", "/kv/_conflicts?cursor="+page.Next, ""))
	if len(page.Items) != 2 || page.Items[0].Key != "a/x" || page.Items[1].Key != "b" || !page.Items[1].Deleted || page.Items[1].Data != nil || page.Next != "" {
		t.Errorf("second page: %+v", page)
	}
	read(n.do("GET", "/kv/_conflicts?prefix=a/", ""))
	if len(page.Items) != 1 || page.Items[0].Key != "a/x" {
		t.Errorf("by prefix: %+v", page)
	}
	history := n.do("GET", "/kv/a?revisions", "").object(t)["revisions"].([]any)
	if len(history) != 2 || history[1].(map[string]any)["conflict"] != true || history[0].(map[string]any)["conflict"] != false {
		t.Errorf("the loser is not in the history: %v", history)
	}

	n.want(n.do("DELETE", "/kv/_conflicts/"+losers[0].UUID.String(), ""), 204, "")
	for _, id := range []string{losers[0].UUID.String(), winner, "x", "a%2Fb", "%FF"} {
		n.want(n.do("DELETE", "/kv/_conflicts/"+id, ""), 404, "not_found")
	}
	read(n.do("GET", "/kv/_conflicts", ""))
	if len(page.Items) != 2 {
		t.Errorf("after settling one: %+v", page)
	}
	if _, err := loserOf(&types.Record{Value: append(codec.Append(nil, &losers[0]), 0)}); !errors.Is(err, types.ErrCorrupt) {
		t.Errorf("a damaged conflict: %v", err)
	}
}

func TestMembers(t *testing.T) {
	n := startNode(t)
	a := n.do("GET", "/members/", "")
	n.want(a, 200, "")
	var list []map[string]any
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != 1 {
		t.Fatal(err, a.body)
	}
	for _, name := range []string{"id", "uuid", "address", "last_seen", "joined_timestamp", "state", "mode", "root", "behind"} {
		if _, ok := list[0][name]; !ok {
			t.Errorf("%s is missing: %s", name, a.body)
		}
	}
	root := n.do("GET", "/sync/merkle/root", "").object(t)
	if list[0]["root"] != root["root"] || root["node_id"] != "n1" || root["horizon"] != json.Number("0") || root["count"] == nil {
		t.Errorf("root: %v, member: %s", root, a.body)
	}

	for _, bad := range []string{``, `{}`, `[]`, `{"address":"x"}`, `{"address":":1"}`, `{"address":"a:0"}`, `{"address":"a:b"}`, `{"address":"a:1","x":1}`, `{"address":"a:1"} 1`} {
		n.want(n.do("POST", "/members/join", bad), 400, "invalid_body")
	}
	n.want(n.do("POST", "/members/join", `{"address":"other:8080"}`), 200, "")
	n.want(n.do("DELETE", "/members/other", ""), 204, "")
	n.want(n.do("DELETE", "/members/n1", ""), 400, "invalid_parameter")
	n.want(n.do("DELETE", "/members/"+n.store.Identity().UUID.String(), ""), 400, "invalid_parameter")
	n.peers.set(func(p *fakePeers) { p.failed = fmt.Errorf("%w: other", types.ErrNotFound) })
	n.want(n.do("DELETE", "/members/other", ""), 404, "member_not_found")
	n.want(n.do("POST", "/members/join", `{"address":"other:8080"}`), 502, "join_failed")
	n.peers.set(func(p *fakePeers) { p.failed = nil })
	n.want(n.do("POST", "/members/leave", ""), 200, "")
	<-n.left
	if got := strings.Join(get(n.peers, &n.peers.called), ", "); got != "join other:8080, remove other, remove other, join other:8080, depart" {
		t.Errorf("asked of the cluster: %s", got)
	}

	off := startNode(t, func(c *config.Config) { c.ClusteringEnabled = false })
	for _, call := range [][2]string{{"POST", "/members/join"}, {"POST", "/members/leave"}, {"DELETE", "/members/x"}} {
		off.want(off.do(call[0], call[1], ""), 404, "feature_disabled")
	}
}

// TestMetrics: everything is there before anything has happened.
func TestMetrics(t *testing.T) {
	n := startNode(t)
	text := n.do("GET", "/metrics", "").body
	for _, want := range []string{
		`kvs_http_requests_total{method="PUT",outcome="ok",route="/kv/{path}"} 0`,
		`kvs_http_requests_total{method="GET",outcome="server_error",route="/kv/_range"} 0`,
		`kvs_http_request_seconds_count{method="POST",route="/kv/_batch"} 0`,
		`kvs_http_problems_total{code="disk_full"} 0`, `kvs_http_problems_total{code="internal"} 0`,
		`kvs_info{node_id="n1",uuid="` + n.store.Identity().UUID.String() + `",version="test"} 1`,
		`kvs_mode{mode="normal"} 1`, `kvs_mode{mode="syncing"} 0`, `kvs_members{state="alive"} 1`, `kvs_members{state="failed"} 0`,
		`kvs_conflicts_total 0`, `kvs_pushed_records_total 0`, `kvs_sync_rounds_total 0`, `kvs_peer_behind_commits{peer="other"} 0`,
		`kvs_connections 1`, `kvs_connections_refused_total 0`, "kvs_disk_full 0", "kvs_horizon_seconds 0",
		"kvs_audit_conflicts_total 0", "kvs_audit_last_entry 0", "kvs_rate_limited_total 0", "kvs_tls_certificate_expires_seconds 0", "go_goroutines", "process_",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	for _, p := range problems {
		if !strings.Contains(text, `kvs_http_problems_total{code="`+p.code+`"} 0`) {
			t.Errorf("no series for %s", p.code)
		}
	}
	n.do("GET", "/kv/none", "")
	n.do("PUT", "/kv/a", "1")
	text = n.do("GET", "/metrics", "").body
	for _, want := range []string{
		`kvs_http_requests_total{method="GET",outcome="client_error",route="/kv/{path}"} 1`, `kvs_http_problems_total{code="key_not_found"} 1`,
		`kvs_http_requests_total{method="PUT",outcome="ok",route="/kv/{path}"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestProblemTable(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range problems {
		if seen[p.code] {
			t.Errorf("%s is listed twice", p.code)
		}
		seen[p.code] = true
		if (p.status == 503 || p.status == 507) != (p.retryAfter > 0) {
			t.Errorf("%s: status %d, Retry-After %d", p.code, p.status, p.retryAfter)
		}
	}
	for _, c := range []struct {
		err  error
		want *problem
	}{
		{types.ErrNotFound, keyNotFound}, {types.ErrPrecond, preconditionFail}, {types.ErrDiskFull, diskFull}, {types.ErrClosed, shuttingDown},
		{types.ErrTooLarge, valueTooLarge}, {types.ErrClockSkew, clockSkew}, {&storage.CorruptError{Err: errors.New("x")}, corruptRecord},
		{errors.New("secret detail"), internalError}, {context.Canceled, shuttingDown}, {noPeer.refuse("x"), noPeer},
	} {
		r := refusalOf(fmt.Errorf("wrapped: %w", c.err))
		if r.problem != c.want {
			t.Errorf("%v is %s, want %s", c.err, r.code, c.want.code)
		}
		if strings.Contains(r.detail, "secret") {
			t.Errorf("an internal error told the client: %s", r.detail)
		}
	}
}
