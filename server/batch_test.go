package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"kvs/config"
	"kvs/types"
)

// results gives the statuses of a batch's answer, and the results themselves.
func (a answer) results(t *testing.T) (statuses string, list []map[string]any) {
	t.Helper()
	raw, _ := a.object(t)["results"].([]any)
	var all []string
	for _, r := range raw {
		m := r.(map[string]any)
		list = append(list, m)
		all = append(all, fmt.Sprint(m["status"]))
	}
	return strings.Join(all, " "), list
}

func TestBatch(t *testing.T) {
	n := startNode(t)
	old := n.do("PUT", "/kv/old", `"o"`).member("uuid")
	a := n.do("POST", "/kv/_batch", `{"ops":[
		{"op":"put","key":"a","data":{"x": 1.0}},
		{"op":"get","key":"a"},
		{"op":"put","key":"a","data":2,"ttl":"1h"},
		{"op":"get","key":"a"},
		{"op":"delete","key":"a"},
		{"op":"get","key":"a"},
		{"op":"delete","key":"a"},
		{"op":"put","key":"raw","data":"aGVsbG8=","content_type":"text/plain"},
		{"op":"get","key":"raw"},
		{"op":"put","key":"old","data":1,"if_match":"`+old+`"},
		{"op":"put","key":"old","data":1,"if_match":"\"`+old+`\""},
		{"op":"put","key":"new","data":1,"if_match":"*"},
		{"op":"put","key":"json","data":null,"content_type":"application/json"}
	]}`)
	n.want(a, 200, "")
	got, list := a.results(t)
	if want := "201 200 200 200 204 404 404 201 200 200 412 412 201"; got != want {
		t.Fatalf("statuses %s, want %s: %s", got, want, a.body)
	}
	if list[1]["uuid"] != list[0]["uuid"] || !strings.Contains(a.body, `"data":{"x": 1.0}`) || list[3]["data"] != json.Number("2") {
		t.Errorf("a get does not see the put before it: %v %v", list[1], list[3])
	}
	if list[3]["expires_at"] == nil || list[5]["code"] != "key_not_found" || list[8]["data"] != "aGVsbG8=" || list[8]["content_type"] != "text/plain" {
		t.Errorf("results: %v", list)
	}
	if list[10]["code"] != "precondition_failed" || list[10]["title"] == "" || list[10]["detail"] == "" {
		t.Errorf("a refusal: %v", list[10])
	}
	if a := n.do("GET", "/kv/raw?raw", ""); a.body != "hello" || a.header.Get("Content-Type") != "text/plain" {
		t.Errorf("bytes of a batch: %q", a.body)
	}
}

// TestMalformedOps: each is refused alone, and the one beside it is carried out.
func TestMalformedOps(t *testing.T) {
	n := startNode(t, func(c *config.Config) { c.MaxJSONSize = 100 })
	for i, c := range []struct {
		op     string
		status int
		code   string
	}{
		{`{}`, 400, "invalid_body"},
		{`1`, 400, "invalid_body"},
		{`null`, 400, "invalid_body"},
		{`[]`, 400, "invalid_body"},
		{`{"op":"put","key":"a"}`, 400, "invalid_body"},
		{`{"op":"put","data":1}`, 400, "invalid_body"},
		{`{"key":"a","data":1}`, 400, "invalid_body"},
		{`{"op":"job","key":"a"}`, 400, "invalid_body"},
		{`{"op":1,"key":"a"}`, 400, "invalid_body"},
		{`{"op":"put","key":1,"data":1}`, 400, "invalid_body"},
		{`{"op":"put","key":null,"data":1}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":1,"more":1}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","key":"b","data":1}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":1,"ttl":5}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":1,"ttl":"soon"}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":1,"if_match":"x"}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":1,"if_match":null}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":1,"content_type":"text/plain"}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":"!","content_type":"text/plain"}`, 400, "invalid_body"},
		{`{"op":"put","key":"a","data":"","content_type":";"}`, 400, "invalid_parameter"},
		{`{"op":"get","key":"a","data":1}`, 400, "invalid_body"},
		{`{"op":"delete","key":"a","ttl":"1h"}`, 400, "invalid_body"},
		{`{"op":"put","key":"","data":1}`, 400, "invalid_key"},
		{`{"op":"put","key":"a//b","data":1}`, 400, "invalid_key"},
		{`{"op":"put","key":"../a","data":1}`, 400, "invalid_key"},
		{`{"op":"put","key":"_a","data":1}`, 400, "invalid_key"},
		{`{"op":"put","key":"a\u0000","data":1}`, 400, "invalid_key"},
		{`{"op":"get","key":"_range"}`, 400, "invalid_key"},
		{`{"op":"put","key":"a","data":"` + strings.Repeat("x", 99) + `"}`, 413, "value_too_large"},
	} {
		good := fmt.Sprintf("good%d", i)
		body := func(atomic bool) string {
			return fmt.Sprintf(`{"ops":[%s,{"op":"put","key":%q,"data":1}],"atomic":%v}`, c.op, good, atomic)
		}
		a := n.do("POST", "/kv/_batch", body(true))
		if a.status != c.status || a.code() != c.code {
			t.Errorf("atomic %s: %d %s", c.op, a.status, a.body)
		} else if got, list := a.results(t); got != fmt.Sprintf("%d 424", c.status) || list[0]["code"] != c.code || list[1]["code"] != "batch_aborted" {
			t.Errorf("atomic %s: %s", c.op, a.body)
		}
		n.want(n.do("GET", "/kv/"+good, ""), 404, "key_not_found")

		a = n.do("POST", "/kv/_batch", body(false))
		n.want(a, 200, "")
		if got, list := a.results(t); got != fmt.Sprintf("%d 201", c.status) || list[0]["code"] != c.code {
			t.Errorf("%s: %s", c.op, a.body)
		}
		n.want(n.do("GET", "/kv/"+good, ""), 200, "")
	}
}

func TestMalformedBatches(t *testing.T) {
	n := startNode(t)
	many := func(count int) string {
		return `{"ops":[` + strings.TrimSuffix(strings.Repeat(`{"op":"get","key":"a"},`, count), ",") + `]}`
	}
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{``, 400, "invalid_json"},
		{`{`, 400, "invalid_json"},
		{`[]`, 400, "invalid_json"},
		{`{"ops":[{"op":"get","key":"a"}`, 400, "invalid_json"},
		{`{"ops":[]} x`, 400, "invalid_json"},
		{`{"ops":[{"op":"get","key":"` + "\xff" + `"}]}`, 400, "invalid_json"},
		{`{}`, 400, "invalid_body"},
		{`{"atomic":true}`, 400, "invalid_body"},
		{`{"ops":{}}`, 400, "invalid_body"},
		{`{"ops":null}`, 400, "invalid_body"},
		{`{"ops":[],"ops":[]}`, 400, "invalid_body"},
		{`{"ops":[],"atomic":1}`, 400, "invalid_body"},
		{`{"ops":[],"atomic":"true"}`, 400, "invalid_body"},
		{`{"ops":[],"w":2}`, 400, "invalid_body"},
		{many(maxBatchOps + 1), 413, "batch_too_large"},
		{many(maxBatchOps), 200, ""},
		{`{"ops":[]}`, 200, ""},
		{` {"atomic" : true , "ops" : [ ] } `, 200, ""},
	} {
		a := n.do("POST", "/kv/_batch", c.body)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%.60s: %d %s", c.body, a.status, a.body)
		}
	}
	a := n.raw("POST", fmt.Sprintf("POST /kv/_batch HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", maxBatchBody+1))
	n.want(a, 413, "batch_too_large")
	if a := n.do("POST", "/kv/_batch", `{"ops":[]}`); a.body != "{\"results\":[]}\n" {
		t.Errorf("an empty batch: %s", a.body)
	}
}

func TestAtomicBatch(t *testing.T) {
	n := startNode(t)
	n.do("PUT", "/kv/a", `1`)
	a := n.do("POST", "/kv/_batch", `{"atomic":true,"ops":[{"op":"put","key":"x","data":1},{"op":"delete","key":"none"},{"op":"delete","key":"a"}]}`)
	n.want(a, 404, "key_not_found")
	if got, _ := a.results(t); got != "424 404 424" {
		t.Errorf("statuses %s", got)
	}
	n.want(n.do("GET", "/kv/x", ""), 404, "")
	n.want(n.do("GET", "/kv/a", ""), 200, "")
	before := n.store.Seq()
	a = n.do("POST", "/kv/_batch", `{"atomic":true,"ops":[{"op":"put","key":"x","data":1},{"op":"get","key":"x"},{"op":"delete","key":"a"}]}`)
	n.want(a, 200, "")
	if got, _ := a.results(t); got != "201 200 204" || n.store.Seq() != before+1 {
		t.Errorf("statuses %s in %d commits", got, n.store.Seq()-before)
	}
}

// TestLargeBatch: 16 MiB of values go through, in one pass over the body.
func TestLargeBatch(t *testing.T) {
	n := startNode(t)
	var b strings.Builder
	b.WriteString(`{"ops":[`)
	value := strings.Repeat("x", 16<<10)
	for i := range maxBatchOps {
		fmt.Fprintf(&b, `{"op":"put","key":"k%d","data":"%s"},`, i, value)
	}
	body := strings.TrimSuffix(b.String(), ",") + `]}`
	start := time.Now()
	ops, _, err := n.parseBatch([]byte(body))
	if took := time.Since(start); err != nil || len(ops) != maxBatchOps || took > 5*time.Second {
		t.Fatalf("%d operations after %s: %v", len(ops), took, err)
	}
	a := n.do("POST", "/kv/_batch", body)
	n.want(a, 200, "")
	if got, _ := a.results(t); strings.Count(got, "201") != maxBatchOps {
		t.Errorf("statuses %.200s", got)
	}
}

// TestBatchOfReads needs no right to write, and is answered by a peer while
// this node is being filled.
func TestBatchOfReads(t *testing.T) {
	n, other := startNode(t), startNode(t)
	n.do("PUT", "/kv/a", `"here"`)
	other.do("PUT", "/kv/a", `"there"`)
	const reads = `{"ops":[{"op":"get","key":"a"},{"op":"get","key":"b"}]}`
	n.peers.set(func(p *fakePeers) { p.state = types.ModeReadOnly })
	a := n.do("POST", "/kv/_batch", reads)
	if got, _ := a.results(t); got != "200 404" || !strings.Contains(a.body, "here") {
		t.Errorf("read-only: %s", a.body)
	}
	n.want(n.do("POST", "/kv/_batch", `{"ops":[{"op":"get","key":"a"},{"op":"delete","key":"a"}]}`), 503, "read_only")
	n.peers.set(func(p *fakePeers) { p.state, p.peer = types.ModeSyncing, other.addr })
	a = n.do("POST", "/kv/_batch", reads)
	if got, _ := a.results(t); got != "200 404" || !strings.Contains(a.body, "there") {
		t.Errorf("syncing: %s", a.body)
	}
	n.want(n.do("POST", "/kv/_batch", `{"ops":[{"op":"delete","key":"a"}]}`), 503, "syncing")
}

func FuzzParseBatch(f *testing.F) {
	for _, s := range []string{
		`{"ops":[]}`, `{"atomic":true,"ops":[{"op":"put","key":"a","data":1,"ttl":"1h","if_match":"*"}]}`, `{"ops":[{"op":"get","key":"\u0061"},1,null]}`,
		`{"ops":[{"op":"put","key":"a","data":"aGk=","content_type":"text/plain"}]}`, `{"ops":[{"op":"delete","key":"a","if_match":"W/\"x\""}`, `{`, `{"ops":[{"data":{"data":[{}]}}]}`,
	} {
		f.Add([]byte(s))
	}
	a := &api{maxValue: 100}
	f.Fuzz(func(t *testing.T, body []byte) {
		ops, atomic, err := a.parseBatch(body)
		var want struct {
			Atomic bool
			Ops    []json.RawMessage
		}
		if err != nil {
			return
		}
		if json.Unmarshal(body, &want) != nil || len(want.Ops) != len(ops) || want.Atomic != atomic {
			t.Fatalf("%q became %d operations, atomic %v", body, len(ops), atomic)
		}
		for _, op := range ops {
			if op.err == nil && (len(op.op.Value) > 100 || op.op.Ref.Key.Reserved() || op.op.Ref.NS != types.NSData) {
				t.Fatalf("%q: %v", body, op)
			}
		}
	})
}
