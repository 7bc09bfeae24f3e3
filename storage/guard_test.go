package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// A guard sees other keys as of its place in the commit, and decides on the
// meta of what is new.
func TestGuardSeesItsPlaceInTheCommit(t *testing.T) {
	s := storagetest.Open(t, storage.Options{DefaultMeta: types.Meta{Owner: "root", Mode: 7}})
	parent := types.DataRef("a")
	inherit := func(v *storage.View) error {
		p, err := v.Live(parent)
		if p != nil {
			v.Meta.Mode = p.Meta.Mode
		}
		return err
	}
	results, err := s.Write(t.Context(), []storage.Op{
		{Kind: storage.OpPut, Ref: types.DataRef("a/1"), Value: []byte("1"), Guard: inherit},
		{Kind: storage.OpPut, Ref: parent, Value: []byte("1"), Guard: func(v *storage.View) error {
			v.Meta.Owner, v.Meta.Mode = "somebody", 9
			return nil
		}},
		{Kind: storage.OpPut, Ref: types.DataRef("a/2"), Value: []byte("1"), Guard: inherit},
		{Kind: storage.OpDelete, Ref: parent},
		{Kind: storage.OpPut, Ref: types.DataRef("a/3"), Value: []byte("1"), Guard: inherit},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]types.Meta{
		0: {Owner: "root", Mode: 7}, 1: {Owner: "somebody", Mode: 9}, 2: {Owner: "root", Mode: 9}, 4: {Owner: "root", Mode: 7},
	} {
		if got := results[i]; got.Err != nil || got.Record.Meta != want {
			t.Errorf("operation %d: %+v, %v; want %+v", i, got.Record.Meta, got.Err, want)
		}
	}
}

// OpMeta is a new version of the same value.
func TestMetaKeepsTheValue(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	s := storagetest.Open(t, storage.Options{Wall: func() time.Time { return now }})
	ref := types.DataRef("k")
	big := bytes.Repeat([]byte("x"), 100_000)
	first := storagetest.One(t, s, storage.Op{Kind: storage.OpPut, Ref: ref, Value: big, Raw: true, ContentType: "text/plain", TTL: time.Hour}).Record
	own := func(v *storage.View) error { v.Meta.Owner = "somebody"; return nil }

	second := storagetest.One(t, s, storage.Op{Kind: storage.OpMeta, Ref: ref, Guard: own, KeepTTL: true}).Record
	if !bytes.Equal(second.Value, big) || !second.Raw() || second.Meta.ContentType != "text/plain" || second.Meta.Owner != "somebody" {
		t.Errorf("the value did not stay: %d bytes, %+v", len(second.Value), second.Meta)
	}
	if second.ExpiresAt != first.ExpiresAt || second.UUID == first.UUID || second.Timestamp <= first.Timestamp {
		t.Errorf("not a newer version with the same expiry: %+v after %+v", second.Version, first.Version)
	}
	third := storagetest.One(t, s, storage.Op{Kind: storage.OpMeta, Ref: ref}).Record
	if third.ExpiresAt != 0 || third.PurgeAt != 0 || third.Meta.Owner != "somebody" {
		t.Errorf("clearing the expiry gave %d, %d, %+v", third.ExpiresAt, third.PurgeAt, third.Meta)
	}
	results, err := s.Write(t.Context(), []storage.Op{{Kind: storage.OpMeta, Ref: types.DataRef("none")}}, false)
	if err != nil || !errors.Is(results[0].Err, types.ErrNotFound) {
		t.Errorf("meta of an absent key: %v, %v", err, results[0].Err)
	}
}

// What is not visible is not there: not in a page, not in its bounds, and not
// behind a common prefix.
func TestScanOfTheVisible(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	for i := range 20 {
		storagetest.Put(t, s, types.Key(fmt.Sprintf("d%02d/k", i)), "1")
	}
	odd := func(rec *types.Record) bool { return (rec.Key[2]-'0')%2 == 1 }
	for _, reverse := range []bool{false, true} {
		o := storage.ScanOptions{NS: types.NSData, Limit: 3, Delimiter: "/", Visible: odd, Reverse: reverse}
		var got []types.Key
		for {
			page, err := s.Scan(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page.Prefixes...)
			if !page.More {
				break
			}
			if next := page.Next[:3]; (next[2]-'0')%2 == 0 {
				t.Errorf("a page ends at %q, which is not visible", next)
			}
			if o.Start = page.Next; reverse {
				o.Start, o.End = "", page.Next
			}
		}
		if len(got) != 10 {
			t.Errorf("reverse %v: %q", reverse, got)
		}
	}
}

// noteHook keeps one entry per commit.
type noteHook struct{ n, committed int }

func (h *noteHook) Keyspace() byte { return storage.SpaceLog }

func (h *noteHook) Stage(tx *storage.HookTx, changes []storage.Staged) {
	h.n++
	tx.Set([]byte(fmt.Sprintf("n%03d", h.n)), fmt.Appendf(nil, "%d changes at %d", len(changes), tx.Seq()))
}

func (h *noteHook) Committed(uint64, []storage.Staged) { h.committed++ }

// Hooks may keep something without a change, and read it in order.
func TestHooksWithoutChanges(t *testing.T) {
	h := &noteHook{}
	s := storagetest.Open(t, storage.Options{Hooks: []storage.Hook{h}})
	storagetest.Put(t, s, "k", "1")
	seq := s.Seq()
	for range 3 {
		if err := s.CommitHooks(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.Seq() != seq {
		t.Errorf("the sequence moved from %d to %d", seq, s.Seq())
	}
	var got []string
	err := s.HookWalk(storage.SpaceLog, []byte("n002"), func(k, v []byte) error {
		got = append(got, string(k)+": "+string(v))
		return nil
	})
	if want := fmt.Sprintf("[n002: 0 changes at %d n003: 0 changes at %[1]d n004: 0 changes at %[1]d]", seq); err != nil || fmt.Sprint(got) != want {
		t.Errorf("walked %q, %v; want %s", got, err, want)
	}
	if h.committed != h.n {
		t.Errorf("%d commits staged, %d committed", h.n, h.committed)
	}
	key, value, ok, err := s.HookLast(storage.SpaceLog, []byte("n"))
	if err != nil || !ok || string(key) != "n004" || string(value) != fmt.Sprintf("0 changes at %d", seq) {
		t.Errorf("the last entry is %s, %s, %v, %v", key, value, ok, err)
	}
	if _, _, ok, _ := s.HookLast(storage.SpaceLog, []byte("a")); ok {
		t.Error("there is a last entry where there is none")
	}
}
