package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"kvs/types"
)

const worlds = 2

// TestOnlyWhatMayBeReadIsThere compares every way to read with an oracle. What
// may not be read must be answered for as a key that never was.
func TestOnlyWhatMayBeReadIsThere(t *testing.T) {
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for _, p := range w.people {
				if !p.any("read") {
					for _, path := range []string{"/kv/" + url.PathEscape(w.keys[0]), "/kv/_range", "/kv/_conflicts", "/kv/never?raw"} {
						w.want(w.as(p.token, "GET", path, ""), 403, "forbidden")
					}
					continue
				}
				w.checkKeys(p)
				w.checkBatch(p)
				w.checkRanges(p)
				w.checkConflicts(p)
			}
		})
	}
}

// same is an answer without what differs between any two.
func same(a answer) string {
	h := maps.Clone(map[string][]string(a.header))
	delete(h, "Date")
	return fmt.Sprint(a.status, h, a.body)
}

func kvPath(key string) string {
	var parts []string
	for s := range strings.SplitSeq(key, "/") {
		parts = append(parts, url.PathEscape(s))
	}
	return "/kv/" + strings.Join(parts, "/")
}

// readForm is one way to read a key.
type readForm struct {
	method, query string
	headers       []string
	check         func(w *world, p *person, rec types.Record, a answer) error
}

var noVersion = `"00000000-0000-7000-8000-000000000000"`

var readForms = []readForm{
	{"GET", "", nil, func(w *world, p *person, rec types.Record, a answer) error {
		return expect(a, 200, `"uuid":"`+rec.UUID.String()+`"`, `"data":`+string(rec.Value))
	}},
	{"HEAD", "", nil, func(w *world, p *person, rec types.Record, a answer) error {
		if a.header.Get("Etag") != `"`+rec.UUID.String()+`"` {
			return fmt.Errorf("the ETag is %s", a.header.Get("Etag"))
		}
		return expect(a, 200)
	}},
	{"GET", "?raw", nil, func(w *world, p *person, rec types.Record, a answer) error { return expect(a, 200, string(rec.Value)) }},
	{"GET", "?metadata", nil, func(w *world, p *person, rec types.Record, a answer) error {
		return expect(a, 200, rec.UUID.String(), `"owner":"`+rec.Meta.Owner+`"`, `"group":"`+rec.Meta.Group+`"`)
	}},
	{"HEAD", "?metadata", nil, func(w *world, p *person, rec types.Record, a answer) error { return expect(a, 200) }},
	{"GET", "", []string{"If-None-Match", "*"}, func(w *world, p *person, rec types.Record, a answer) error { return expect(a, 304) }},
	{"GET", "?raw", []string{"If-Match", noVersion}, func(w *world, p *person, rec types.Record, a answer) error { return expect(a, 412, rec.UUID.String()) }},
}

func expect(a answer, status int, parts ...string) error {
	if a.status != status {
		return fmt.Errorf("%d, want %d: %s", a.status, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			return fmt.Errorf("no %s in %s", part, a.body)
		}
	}
	return nil
}

// checkKeys asks for each key by itself.
func (w *world) checkKeys(p *person) {
	live, root := w.live(), w.root()
	for _, form := range readForms {
		absent := same(w.as(root, form.method, "/kv/never"+form.query, "", form.headers...))
		for _, key := range append([]string{"a/never", "never", "pub/never/x"}, w.keys...) {
			a := w.as(p.token, form.method, kvPath(key)+form.query, "", form.headers...)
			rec, ok := live[key]
			var err error
			switch {
			case !p.covers("read", key):
				err = w.uncovered(p, key, form, a)
			case ok && p.may("r", key, rec.Meta):
				err = form.check(w, p, rec, a)
			case same(a) != absent:
				err = fmt.Errorf("differs from what was never there:\n%s\n%s", same(a), absent)
			}
			if err != nil {
				w.t.Errorf("%s: %s %s%s: %v", p, form.method, key, form.query, err)
			}
		}
	}
	absent := same(w.as(root, "GET", "/kv/never?revisions", ""))
	for _, key := range w.keys {
		if !p.covers("read", key) {
			continue
		}
		a := w.as(p.token, "GET", kvPath(key)+"?revisions", "")
		var want []string
		if cur := w.current(key); cur == nil || p.may("r", key, cur.Meta) {
			for _, id := range w.versionsIn(w.as(root, "GET", kvPath(key)+"?revisions", "")) {
				if p.may("r", key, w.metas[id]) {
					want = append(want, id)
				}
			}
		}
		if got := w.versionsIn(a); !slices.Equal(got, want) || want == nil && same(a) != absent {
			w.t.Errorf("%s: the history of %s is %v, want %v: %s", p, key, got, want, a.body)
		}
	}
}

// uncovered: the refusal of a key beyond the scopes does not depend on what is
// there.
func (w *world) uncovered(p *person, key string, form readForm, a answer) error {
	other := strings.Repeat("~", len(key)) // as long as the key
	b := w.as(p.token, form.method, kvPath(other)+form.query, "", form.headers...)
	if a.status != 403 || same(a) != strings.ReplaceAll(same(b), other, key) {
		return fmt.Errorf("beyond the scopes:\n%s\n%s", same(a), same(b))
	}
	return nil
}

func (w *world) versionsIn(a answer) (ids []string) {
	var answer struct {
		Revisions []struct{ UUID string }
	}
	_ = json.Unmarshal([]byte(a.body), &answer)
	for _, r := range answer.Revisions {
		ids = append(ids, r.UUID)
	}
	return ids
}

// checkBatch gets all keys at once.
func (w *world) checkBatch(p *person) {
	live := w.live()
	keys := append([]string{"never", "a/never", "pub/never", "b/never"}, w.keys...)
	var ops []map[string]string
	for _, key := range keys {
		ops = append(ops, map[string]string{"op": "get", "key": key})
	}
	body, _ := json.Marshal(map[string]any{"ops": ops})
	a := w.as(p.token, "POST", "/kv/_batch", string(body))
	var results struct{ Results []json.RawMessage }
	if err := json.Unmarshal([]byte(a.body), &results); err != nil || a.status != 200 || len(results.Results) != len(keys) {
		w.t.Fatalf("%s: batch: %d %s", p, a.status, a.body)
	}
	const absent = `{"title":"Key not found","status":404,"code":"key_not_found","detail":"key not found"}`
	for i, key := range keys {
		got := string(results.Results[i])
		rec, ok := live[key]
		switch {
		case !p.covers("read", key):
			if !strings.Contains(got, `"status":403`) {
				w.t.Errorf("%s: batch get of %s: %s", p, key, got)
			}
		case ok && p.may("r", key, rec.Meta):
			if !strings.Contains(got, `"status":200`) || !strings.Contains(got, rec.UUID.String()) || !strings.Contains(got, string(rec.Value)) {
				w.t.Errorf("%s: batch get of %s: %s", p, key, got)
			}
		case got != absent:
			w.t.Errorf("%s: batch get of the hidden %s: %s", p, key, got)
		}
	}
	// The whole of an atomic one falls with the first that is not there for p.
	for _, i := range []int{4 + w.rng.IntN(len(w.keys)), 4 + w.rng.IntN(len(w.keys))} {
		rec, ok := live[keys[i]]
		want := 404
		if !p.covers("read", keys[i]) {
			want = 403
		} else if ok && p.may("r", keys[i], rec.Meta) {
			want = 200
		}
		body, _ := json.Marshal(map[string]any{"atomic": true, "ops": ops[i : i+1]})
		if a := w.as(p.token, "POST", "/kv/_batch", string(body)); a.status != want {
			w.t.Errorf("%s: atomic get of %s: %d %s, want %d", p, keys[i], a.status, a.body, want)
		}
	}
}

// line is an item of a range, or a common prefix.
type line struct{ key, uuid string }

// checkRanges asks for ranges of all kinds, page by page.
func (w *world) checkRanges(p *person) {
	live := w.live()
	for range 20 {
		q := url.Values{}
		bound := func() string {
			key := w.randomKey()
			return key[:min(len(key), 1+w.rng.IntN(6))]
		}
		for _, name := range []string{"prefix", "start_key", "end_key"} {
			if w.rng.IntN(3) == 0 {
				q.Set(name, strings.ToValidUTF8(bound(), ""))
			}
		}
		if w.rng.IntN(2) == 0 {
			q.Set("delimiter", pick(w.rng, []string{"/", "a", "b/"}))
		}
		reverse, keysOnly := w.rng.IntN(2) == 0, w.rng.IntN(3) == 0
		if reverse {
			q.Set("reverse", "true")
		}
		if keysOnly {
			q.Set("keys_only", "true")
		}
		limit := pick(w.rng, []int{1, 2, 3, 7, 20, 1000})
		q.Set("limit", fmt.Sprint(limit))

		var visible []string
		for key, rec := range live {
			if p.may("r", key, rec.Meta) && strings.HasPrefix(key, q.Get("prefix")) && key >= q.Get("start_key") && (q.Get("end_key") == "" || key < q.Get("end_key")) {
				visible = append(visible, key)
			}
		}
		slices.Sort(visible)
		if reverse {
			slices.Reverse(visible)
		}
		var want []line
		for _, key := range visible {
			l := line{key, live[key].UUID.String()}
			if d := q.Get("delimiter"); d != "" {
				rest := key[len(q.Get("prefix")):]
				if i := strings.Index(rest, d); i >= 0 {
					l = line{key[:len(q.Get("prefix"))+i+len(d)], ""}
				}
			}
			if !slices.Contains(want, l) {
				want = append(want, l)
			}
		}
		if got := w.pages(p, "/kv/_range", q, limit, len(want), visible); !slices.Equal(sorted(got), sorted(want)) {
			w.t.Errorf("%s: %s gave\n%v\nwant\n%v", p, q.Encode(), got, want)
		}
	}
}

func sorted(lines []line) []line {
	return slices.SortedFunc(slices.Values(lines), func(a, b line) int { return strings.Compare(a.key+"\x00"+a.uuid, b.key+"\x00"+b.uuid) })
}

// pages follows a range to its end. All pages but the last are full, and the last
// has no cursor: neither tells of what was passed over.
func (w *world) pages(p *person, path string, q url.Values, limit, total int, visible []string) (all []line) {
	w.t.Helper()
	q = maps.Clone(q)
	for {
		a := w.as(p.token, "GET", path+"?"+q.Encode(), "")
		var page struct {
			Items    []struct{ Key, UUID, Winner string }
			Prefixes []string
			Next     string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != 200 {
			w.t.Fatalf("%s: %s: %d %s", p, q.Encode(), a.status, a.body)
		}
		for _, it := range page.Items {
			all = append(all, line{it.Key, it.UUID + it.Winner})
		}
		for _, prefix := range page.Prefixes {
			all = append(all, line{prefix, ""})
		}
		n := len(page.Items) + len(page.Prefixes)
		if n > limit || n < limit && page.Next != "" || len(all) >= total && page.Next != "" {
			w.t.Errorf("%s: %s?%s: a page of %d, cursor %q, %d of %d so far", p, path, q.Encode(), n, page.Next, len(all), total)
			return all
		}
		if page.Next == "" {
			return all
		}
		raw, err := base64.RawURLEncoding.DecodeString(page.Next)
		if err != nil || len(raw) < 2 {
			w.t.Fatalf("cursor %q", page.Next)
		}
		at, _, _ := strings.Cut(string(raw[1:]), "\x00")
		if !slices.Contains(visible, at) {
			w.t.Errorf("%s: %s?%s: the cursor names %q, which is not visible", p, path, q.Encode(), at)
		}
		q.Set("cursor", page.Next)
	}
}

// checkConflicts: a version that lost is there if it may be read, and its key.
func (w *world) checkConflicts(p *person) {
	for _, prefix := range []string{"", "a", "pub/"} {
		limit := pick(w.rng, []int{1, 2, 5, 1000})
		var want []line
		var visible []string
		for id, meta := range w.losers {
			key := string(w.loserK[id])
			cur := w.current(key)
			if strings.HasPrefix(key, prefix) && p.may("r", key, meta) && cur != nil && p.may("r", key, cur.Meta) {
				want, visible = append(want, line{key, id + cur.UUID.String()}), append(visible, key)
			}
		}
		q := url.Values{"limit": {fmt.Sprint(limit)}, "prefix": {prefix}}
		if got := w.pages(p, "/kv/_conflicts", q, limit, len(want), visible); !slices.Equal(sorted(got), sorted(want)) {
			w.t.Errorf("%s: conflicts under %q are\n%v\nwant\n%v", p, prefix, got, want)
		}
	}
}
