package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"kvs/auth"
	"kvs/types"
)

const changesPerWorld = 300

// TestOnlyWhatMayBeDoneIsDone makes random changes as random people, and compares
// each answer, and what is there after it, with an oracle.
func TestOnlyWhatMayBeDoneIsDone(t *testing.T) {
	done := map[string]int{}
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			w := newWorld(t, 100+seed)
			for i := range changesPerWorld {
				p := pick(w.rng, w.people)
				kind := pick(w.rng, []string{"put", "put", "put", "delete", "metadata", "metadata", "batch", "batch", "range", "settle"})
				before := w.live()
				var status int
				switch kind {
				case "put":
					status = w.tryPut(p, before)
				case "delete":
					status = w.tryDelete(p, before)
				case "metadata":
					status = w.tryMetadata(p, before)
				case "batch":
					status = w.tryBatch(p, before)
				case "range":
					status = w.tryRange(p, before)
				case "settle":
					status = w.trySettle(p)
				}
				done[fmt.Sprint(kind, " ", status)]++
				if t.Failed() {
					t.Fatalf("change %d of seed %d, by %s, was the first to go wrong", i, seed, p)
				}
			}
		})
	}
	// Else the oracle was not asked for what matters.
	for _, want := range []string{"put 200", "put 201", "put 403", "put 412", "delete 204", "delete 403", "delete 404", "delete 412", "metadata 200", "metadata 403",
		"metadata 404", "metadata 412", "batch 200", "batch 403", "batch 404", "range 200", "range 403", "settle 204", "settle 403", "settle 404"} {
		if done[want] == 0 {
			t.Errorf("no change ended as %s: %v", want, done)
		}
	}
}

// answers compares an answer, and what is there now, with what should be.
func (w *world) answers(p *person, what string, a answer, status int, want map[string]types.Meta) int {
	w.t.Helper()
	if a.status != status {
		w.t.Errorf("%s: %s: %d %s, want %d", p, what, a.status, a.body, status)
	}
	got := w.live()
	for key, rec := range got {
		if m, ok := want[key]; !ok || m != rec.Meta {
			w.t.Errorf("%s: %s: %s is there with %+v, want %v %+v", p, what, key, rec.Meta, ok, m)
		}
	}
	for key := range want {
		if _, ok := got[key]; !ok {
			w.t.Errorf("%s: %s: %s is gone", p, what, key)
		}
	}
	return a.status
}

func metasOf(live map[string]types.Record) map[string]types.Meta {
	out := map[string]types.Meta{}
	for key, rec := range live {
		out[key] = rec.Meta
	}
	return out
}

// canPut gives the status of a plain put, and what the key then has.
func (w *world) canPut(p *person, live map[string]types.Meta, key string) (int, types.Meta) {
	if !p.covers("write", key) {
		return 403, types.Meta{}
	}
	if m, ok := live[key]; ok {
		if !p.may("w", key, m) {
			return 403, m
		}
		return 200, m
	}
	m := metaOf(w.t, p.subject, "root", "cdwr:--wr:---r")
	for up := key; strings.Contains(up, "/"); {
		up = up[:strings.LastIndex(up, "/")]
		if parent, ok := live[up]; ok {
			if !p.may("c", key, parent) {
				return 403, types.Meta{}
			}
			m.Group, m.Mode = parent.Group, parent.Mode
			break
		}
	}
	return 201, m
}

// canDelete gives the status of a plain delete.
func (w *world) canDelete(p *person, live map[string]types.Meta, key string) int {
	m, ok := live[key]
	switch {
	case !p.covers("write", key):
		return 403
	case !ok:
		return 404
	case p.may("d", key, m):
		return 204
	case p.may("r", key, m):
		return 403
	}
	return 404
}

// someKey is often one that is there or was.
func (w *world) someKey() string {
	if w.rng.IntN(3) == 0 {
		return w.randomKey()
	}
	return pick(w.rng, w.keys)
}

// condition is a precondition, and whether it holds for a key.
func (w *world) condition(rec types.Record, ok bool) (headers []string, holds bool) {
	switch w.rng.IntN(6) {
	case 0:
		return []string{"If-None-Match", "*"}, !ok
	case 1:
		return []string{"If-Match", "*"}, ok
	case 2:
		return []string{"If-Match", noVersion}, false
	case 3:
		return []string{"If-Match", `"` + rec.UUID.String() + `"`}, ok
	}
	return nil, true
}

func (w *world) tryPut(p *person, live map[string]types.Record) int {
	key := w.someKey()
	rec, ok := live[key]
	headers, holds := w.condition(rec, ok)
	want := metasOf(live)
	status, meta := w.canPut(p, want, key)
	query := pick(w.rng, []string{"", "", "?ttl=1h"})
	words := plainRefusal
	if status == 200 && query != "" && w.wouldEnd(p, rec) {
		status, words = 403, "expire earlier"
	}
	if status < 300 && !holds {
		status = 412
	}
	if status < 300 {
		want[key] = meta
	}
	a := w.as(p.token, pick(w.rng, []string{"PUT", "POST"}), kvPath(key)+query, `"new"`, headers...)
	if ok && !p.may("r", key, rec.Meta) && strings.Contains(same(a), rec.UUID.String()) {
		w.t.Errorf("%s: the refusal names the version of %s, which is not theirs to read: %s", p, key, a.body)
	}
	// Neither condition nor existence shows in a refusal.
	if status == 403 && p.covers("write", key) && a.body != words && (words == plainRefusal || !strings.Contains(a.body, words)) {
		w.t.Errorf("%s: put of %s: %s", p, key, a.body)
	}
	return w.answers(p, fmt.Sprint("put ", key, query, headers), a, status, want)
}

// wouldEnd: an hour to live is less than the key has, and the right to delete it
// is missing. All that expires here was given an hour.
func (w *world) wouldEnd(p *person, rec types.Record) bool {
	return rec.ExpiresAt == 0 && !p.may("d", string(rec.Key), rec.Meta)
}

const plainRefusal = `{"title":"Not allowed","status":403,"code":"forbidden","detail":"the key's permissions, or those of the nearest key above it, do not let this token write here"}` + "\n"

func (w *world) tryDelete(p *person, live map[string]types.Record) int {
	key := w.someKey()
	rec, ok := live[key]
	headers, holds := w.condition(rec, ok)
	want := metasOf(live)
	status := w.canDelete(p, want, key)
	if status == 204 && !holds {
		status = 412
	}
	if status == 204 {
		delete(want, key)
	}
	a := w.as(p.token, "DELETE", kvPath(key), "", headers...)
	w.hiddenLooksAbsent(p, a, func() answer { return w.as(w.root(), "DELETE", "/kv/never", "", headers...) })
	return w.answers(p, fmt.Sprint("delete ", key, headers), a, status, want)
}

// hiddenLooksAbsent: a 404 is that of a key that never was.
func (w *world) hiddenLooksAbsent(p *person, a answer, absent func() answer) {
	w.t.Helper()
	if a.status == 404 && same(a) != same(absent()) {
		w.t.Errorf("%s: differs from what was never there:\n%s\n%s", p, same(a), same(absent()))
	}
}

func (w *world) tryMetadata(p *person, live map[string]types.Record) int {
	key := w.someKey()
	rec, ok := live[key]
	headers, holds := w.condition(rec, ok)
	change, next, owners := map[string]string{}, rec.Meta, false
	if w.rng.IntN(3) == 0 {
		change["ttl"] = pick(w.rng, []string{"1h", "0"})
	}
	if w.rng.IntN(3) == 0 {
		owners, next.Owner = true, pick(w.rng, w.owners)
		change["owner"] = w.either(next.Owner)
	}
	if w.rng.IntN(3) == 0 {
		owners, next.Group = true, pick(w.rng, w.groups)
		change["group"] = w.either(next.Group)
	}
	if w.rng.IntN(2) == 0 || len(change) == 0 {
		owners, next.Mode = true, uint16(w.rng.IntN(1<<12))
		change["mode"] = auth.FormatMode(next.Mode)
	}
	want := metasOf(live)
	status := 404
	switch {
	case !p.covers("write", key):
		status = 403
	case !ok:
	case p.subject == rec.Meta.Owner, p.admin(key), !owners && p.may("w", key, rec.Meta):
		if status = 412; p.subject != rec.Meta.Owner && change["ttl"] == "1h" && w.wouldEnd(p, rec) {
			status = 403
		} else if holds {
			status, want[key] = 200, next
		}
	case p.may("r", key, rec.Meta):
		status = 403
	}
	body, _ := json.Marshal(change)
	a := w.as(p.token, "PUT", kvPath(key)+"?metadata", string(body), headers...)
	w.hiddenLooksAbsent(p, a, func() answer {
		return w.as(w.root(), "PUT", "/kv/never?metadata", string(body), headers...)
	})
	if ok && !p.may("r", key, rec.Meta) && strings.Contains(same(a), rec.UUID.String()) {
		w.t.Errorf("%s: the answer names the version of %s, which is not theirs to read: %s", p, key, a.body)
	}
	return w.answers(p, fmt.Sprint("metadata ", key, " ", string(body), headers), a, status, want)
}

// either is a UUID or the nickname for it.
func (w *world) either(id string) string {
	if nick := w.nicks[id]; nick != "" && w.rng.IntN(2) == 0 {
		return nick
	}
	return id
}

func (w *world) tryBatch(p *person, live map[string]types.Record) int {
	type op struct {
		Op   string `json:"op"`
		Key  string `json:"key"`
		Data any    `json:"data,omitempty"`
	}
	var ops []op
	for range 1 + w.rng.IntN(4) {
		o := op{Op: pick(w.rng, []string{"put", "put", "delete", "get"}), Key: w.someKey()}
		if len(ops) > 0 && w.rng.IntN(3) == 0 {
			o.Key = ops[0].Key + "/" + pick(w.rng, segments) // below one of the same batch
		}
		if o.Op == "put" {
			o.Data = "new"
		}
		ops = append(ops, o)
	}
	atomic := w.rng.IntN(2) == 0
	body, _ := json.Marshal(map[string]any{"atomic": atomic, "ops": ops})
	a := w.as(p.token, "POST", "/kv/_batch", string(body))

	before, now := metasOf(live), metasOf(live)
	if !p.any("read") && !p.any("write") {
		return w.answers(p, "batch", a, 403, before)
	}
	scope := func(o op) string {
		if o.Op == "get" {
			return "read"
		}
		return "write"
	}
	beyond := slices.ContainsFunc(ops, func(o op) bool { return !p.covers(scope(o), o.Key) })
	var want []int
	failed := 0
	for _, o := range ops {
		status := 424
		switch m, ok := now[o.Key]; {
		case !p.covers(scope(o), o.Key):
			status = 403
		case atomic && (beyond || failed != 0):
		case o.Op == "put":
			if status, m = w.canPut(p, now, o.Key); status < 300 {
				now[o.Key] = m
			}
		case o.Op == "delete":
			if status = w.canDelete(p, now, o.Key); status == 204 {
				delete(now, o.Key)
			}
		case ok && p.may("r", o.Key, m):
			status = 200
		default:
			status = 404
		}
		if status >= 400 && status != 424 && failed == 0 {
			failed = status
		}
		want = append(want, status)
	}
	status := 200
	if atomic && failed != 0 {
		for i := range want {
			if want[i] < 300 {
				want[i] = 424
			}
		}
		status, now = failed, before
	}
	var results struct {
		Results []struct{ Status int }
	}
	_ = json.Unmarshal([]byte(a.body), &results)
	var got []int
	for _, r := range results.Results {
		got = append(got, r.Status)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: batch %s gave %v, want %v: %s", p, body, got, want, a.body)
	}
	return w.answers(p, "batch "+string(body), a, status, now)
}

func (w *world) tryRange(p *person, live map[string]types.Record) int {
	prefix := pick(w.rng, []string{"é/", "public/a", "b/b", "pub/pub", "a b/é", "nothing"})
	a := w.as(p.token, "DELETE", "/kv/_range?prefix="+url.QueryEscape(prefix), "")
	want := metasOf(live)
	if !p.any("write") {
		return w.answers(p, "range", a, 403, want)
	}
	n := 0
	for key, rec := range live {
		if strings.HasPrefix(key, prefix) && p.may("d", key, rec.Meta) {
			n++
			delete(want, key)
		}
	}
	if a.body != fmt.Sprintf("{\"deleted\":%d}\n", n) {
		w.t.Errorf("%s: deleting %s: %s, want %d", p, prefix, a.body, n)
	}
	return w.answers(p, "range "+prefix, a, 200, want)
}

func (w *world) trySettle(p *person) int {
	ids := append(slices.Sorted(maps.Keys(w.losers)), "0190b6c2-0000-7000-8000-000000000000")
	id := pick(w.rng, ids)
	key := string(w.loserK[id])
	ref := types.Ref{NS: types.NSConflicts, Key: types.ConflictKey(types.Key(key), parseVersion(w.t, id))}
	_, err := w.store.Get(ref)
	there := err == nil
	status := 404
	if cur := w.current(key); there && p.may("d", key, w.losers[id]) && (cur == nil || p.may("d", key, cur.Meta)) {
		status = 204
	}
	if !p.any("write") {
		status = 403
	}
	a := w.as(p.token, "DELETE", "/kv/_conflicts/"+id, "")
	const never = "0190b6c2-0000-7000-8000-00000000000f"
	if b := w.as(p.token, "DELETE", "/kv/_conflicts/"+never, ""); a.status == 404 && strings.ReplaceAll(same(a), id, never) != same(b) {
		w.t.Errorf("%s: settling %s: %s, and what never was: %s", p, id, same(a), same(b))
	}
	if _, err := w.store.Get(ref); (err == nil) != (there && status != 204) {
		w.t.Errorf("%s: settling %s of %s: it was there: %v, now: %v", p, id, key, there, err)
	}
	return w.answers(p, "settle "+id, a, status, metasOf(w.live()))
}

func parseVersion(t *testing.T, id string) types.VersionID {
	t.Helper()
	v, err := types.ParseVersionID(id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
