package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
)

type rangePage struct {
	Items []struct {
		Key, UUID string
		Timestamp int64
		Data      *json.RawMessage
	}
	Prefixes   []string
	NextCursor *string `json:"next_cursor"`
	Sequence   string
}

func (n *testNode) page(q url.Values) (p rangePage) {
	n.t.Helper()
	a := n.do("GET", "/kv/_range?"+q.Encode(), "")
	n.want(a, 200, "")
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		n.t.Fatal(err)
	}
	if p.Items == nil || p.Prefixes == nil || p.NextCursor == nil {
		n.t.Errorf("lists are always there: %s", a.body)
	}
	return p
}

// all follows the cursors. Prefixes come marked with an asterisk.
func (n *testNode) all(q url.Values) (found []string, pages int) {
	n.t.Helper()
	for {
		p := n.page(q)
		pages++
		var keys []string
		for _, it := range p.Items {
			keys = append(keys, it.Key)
		}
		for _, prefix := range p.Prefixes {
			keys = append(keys, prefix+"*")
		}
		slices.Sort(keys)
		if q.Get("reverse") != "" {
			slices.Reverse(keys)
		}
		found = append(found, keys...)
		if *p.NextCursor == "" {
			return found, pages
		}
		q.Set("cursor", *p.NextCursor)
	}
}

// model is what a range gives, done the dumb way.
func model(keys []string, q url.Values) []string {
	var out []string
	for _, k := range keys {
		if !strings.HasPrefix(k, q.Get("prefix")) || k < q.Get("start_key") || q.Get("end_key") != "" && k >= q.Get("end_key") {
			continue
		}
		if d := q.Get("delimiter"); d != "" {
			if i := strings.Index(k[len(q.Get("prefix")):], d); i >= 0 {
				k = k[:len(q.Get("prefix"))+i+len(d)] + "*"
			}
		}
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	if q.Get("reverse") != "" {
		slices.Reverse(out)
	}
	return out
}

func TestRangeAgainstModel(t *testing.T) {
	n := startNode(t)
	var keys []string
	var ops []string
	for i := range 200 {
		k := fmt.Sprintf("%c/%d/é%d", 'a'+i%3, i%7, i)
		if i%5 == 0 {
			k = fmt.Sprintf("%c%d", 'a'+i%4, i)
		}
		keys = append(keys, k)
		ops = append(ops, fmt.Sprintf(`{"op":"put","key":%q,"data":%d}`, k, i))
	}
	slices.Sort(keys)
	n.want(n.do("POST", "/kv/_batch", `{"ops":[`+strings.Join(ops, ",")+`]}`), 200, "")
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	for range 300 {
		q := url.Values{}
		set := func(name, v string) {
			if v != "" {
				q.Set(name, v)
			}
		}
		set("prefix", pick("", "", "a", "a/", "a/1/", "b/", "é", "zz"))
		set("start_key", pick("", "", "a/3", "b", keys[rng.IntN(len(keys))]))
		set("end_key", pick("", "", "b", "b/4", keys[rng.IntN(len(keys))]))
		set("delimiter", pick("", "", "/", "é"))
		set("reverse", pick("", "true"))
		set("keys_only", pick("", "true"))
		set("limit", pick("1", "3", "17", "1000", "100"))
		asked := q.Encode()
		want := model(keys, q)
		if got, _ := n.all(q); !slices.Equal(got, want) {
			t.Fatalf("%s:\n got %v\nwant %v", asked, got, want)
		}
	}
}

func TestRangeAnswer(t *testing.T) {
	n := startNode(t)
	id := n.do("PUT", "/kv/a", `{"x": 1}`).member("uuid")
	n.do("PUT", "/kv/b", "bytes", "Content-Type", "text/plain")
	a := n.do("GET", "/kv/_range?limit=1", "")
	p := n.page(url.Values{"limit": {"1"}})
	if len(p.Items) != 1 || p.Items[0].UUID != id || !strings.Contains(a.body, `"data":{"x": 1}`) || *p.NextCursor == "" {
		t.Errorf("first page: %s", a.body)
	}
	if want := fmt.Sprintf("%d.2147483647-%s", n.store.Seq(), n.store.Identity().UUID); p.Sequence != want {
		t.Errorf("sequence %s, want %s", p.Sequence, want)
	}
	p = n.page(url.Values{"cursor": {*p.NextCursor}})
	if len(p.Items) != 1 || p.Items[0].Key != "b" || *p.NextCursor != "" {
		t.Errorf("second page: %+v", p)
	}
	if a := n.do("GET", "/kv/_range?start_key=b", ""); !strings.Contains(a.body, `"data":"`+base64.StdEncoding.EncodeToString([]byte("bytes"))+`","content_type":"text/plain"`) {
		t.Errorf("bytes in a range: %s", a.body)
	}
	if p = n.page(url.Values{"keys_only": {""}}); len(p.Items) != 2 || p.Items[0].Data != nil {
		t.Errorf("keys only: %+v", p)
	}
	for _, bad := range []string{
		"limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "cursor=x", "cursor=!", "cursor=" + base64.RawURLEncoding.EncodeToString([]byte("ra")),
		"cursor=" + base64.RawURLEncoding.EncodeToString([]byte("fa")) + "&reverse", "reverse=2", "prefix=" + strings.Repeat("a", 1025), "delimiter=" + strings.Repeat("a", 65),
	} {
		n.want(n.do("GET", "/kv/_range?"+bad, ""), 400, "invalid_parameter")
	}
}

// TestRangeOfLargeValues ends pages early, and misses nothing.
func TestRangeOfLargeValues(t *testing.T) {
	n := startNode(t)
	value := `"` + strings.Repeat("x", 600<<10) + `"`
	var want []string
	for i := range 18 {
		key := fmt.Sprintf("k%02d", i)
		want = append(want, key)
		n.want(n.do("PUT", "/kv/"+key, value), 201, "")
	}
	got, pages := n.all(url.Values{"limit": {"1000"}})
	if !slices.Equal(got, want) || pages < 2 {
		t.Errorf("%v in %d pages", got, pages)
	}
}

func TestDeleteRange(t *testing.T) {
	n := startNode(t)
	var ops []string
	for i := range 1500 {
		ops = append(ops, fmt.Sprintf(`{"op":"put","key":"x/%d","data":1}`, i))
	}
	for part := range slices.Chunk(ops, 750) {
		n.want(n.do("POST", "/kv/_batch", `{"ops":[`+strings.Join(part, ",")+`]}`), 200, "")
	}
	n.do("PUT", "/kv/y", `1`)
	n.want(n.do("DELETE", "/kv/_range", ""), 400, "invalid_parameter")
	n.want(n.do("DELETE", "/kv/_range?prefix=", ""), 400, "invalid_parameter")
	for _, want := range []string{`{"deleted":1500}`, `{"deleted":0}`} {
		a := n.do("DELETE", "/kv/_range?prefix=x/", "")
		if n.want(a, 200, ""); strings.TrimSpace(a.body) != want {
			t.Errorf("%s, want %s", a.body, want)
		}
	}
	if got, _ := n.all(url.Values{}); !slices.Equal(got, []string{"y"}) {
		t.Errorf("left: %v", got)
	}
}
