package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// TestChangesAndPurgesAgainstOracle: windows of changed keys, and walks over the
// purge index from any place on, equal what a dumb list of all writes gives.
func TestChangesAndPurgesAgainstOracle(t *testing.T) {
	s := storagetest.Open(t, storage.Options{TombstoneGrace: time.Minute})
	r := rand.New(rand.NewPCG(31, 32))
	type version struct {
		rec types.Record
		seq uint64
	}
	latest := map[types.Ref]version{}
	for i := range 300 {
		ref := types.DataRef(types.Key(fmt.Sprintf("%c%d", "ab"[r.IntN(2)], r.IntN(40))))
		if i%10 == 0 {
			ref.NS = types.NSAuth
		}
		op := storage.Op{Kind: storage.OpPut, Ref: ref, Value: []byte(`1`)}
		switch old, ok := latest[ref]; {
		case ok && !old.rec.Tombstone() && r.IntN(3) == 0:
			op = storage.Op{Kind: storage.OpDelete, Ref: ref}
		case r.IntN(2) == 0:
			op.TTL = time.Minute + rand.N(time.Hour)
		}
		res := storagetest.One(t, s, op)
		latest[ref] = version{res.Record, res.Seq}
	}
	var all []version
	for _, v := range latest {
		all = append(all, v)
	}
	newest := s.Seq()
	for range 200 {
		prefix := types.Key([]string{"", "a", "b1", "none"}[r.IntN(4)])
		ours := func(ref types.Ref) bool {
			return ref.NS == types.NSData && strings.HasPrefix(string(ref.Key), string(prefix))
		}

		from := uint64(r.IntN(int(newest + 1)))
		to := from + uint64(r.IntN(int(newest-from)+1))
		var want, got []string
		for _, v := range all {
			if ours(v.rec.Ref) && v.seq > from && v.seq <= to {
				want = append(want, fmt.Sprintf("%s by %d", v.rec.Key, v.seq))
			}
		}
		slices.Sort(want)
		most := r.IntN(20)
		err := s.ChangedKeys(t.Context(), types.NSData, prefix, from, to, func(seq uint64, key []byte) bool {
			got = append(got, fmt.Sprintf("%s by %d", key, seq))
			return len(got) != most
		})
		if err != nil {
			t.Fatal(err)
		}
		if most > 0 {
			want = want[:min(most, len(want))]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("changed in (%d, %d] below %q: %q, want %q", from, to, prefix, got, want)
		}

		slices.SortFunc(all, func(a, b version) int {
			if a.rec.PurgeAt != b.rec.PurgeAt {
				return int(a.rec.PurgeAt - b.rec.PurgeAt)
			}
			return strings.Compare(string(a.rec.Key), string(b.rec.Key))
		})
		some := all[r.IntN(len(all))].rec
		after := storage.PurgePlace{At: some.PurgeAt}
		if r.IntN(2) == 0 && some.NS == types.NSData {
			after.Ref = some.Ref
		}
		until := all[r.IntN(len(all))].rec.PurgeAt
		want, got = nil, nil
		for _, v := range all {
			behind := v.rec.PurgeAt > after.At || v.rec.PurgeAt == after.At && v.rec.Key > after.Ref.Key
			if ours(v.rec.Ref) && v.rec.PurgeAt != 0 && behind && v.rec.PurgeAt <= until {
				want = append(want, fmt.Sprintf("%s by %d", v.rec.UUID, v.seq))
			}
		}
		err = s.WalkPurge(t.Context(), types.NSData, prefix, after, until, func(rec *types.Record, seq uint64) bool {
			got = append(got, fmt.Sprintf("%s by %d", rec.UUID, seq))
			return len(got) != most
		})
		if err != nil {
			t.Fatal(err)
		}
		if most > 0 {
			want = want[:min(most, len(want))]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("purged behind %+v until %d below %q: %q, want %q", after, until, prefix, got, want)
		}

		v := all[r.IntN(len(all))]
		if rec, seq, err := s.Current(v.rec.Ref); err != nil || rec.UUID != v.rec.UUID || seq != v.seq {
			t.Fatalf("%s: %s by %d, %v; want %s by %d", v.rec.Ref, rec.UUID, seq, err, v.rec.UUID, v.seq)
		}
	}
	if _, _, err := s.Current(types.DataRef("none")); !errors.Is(err, types.ErrNotFound) {
		t.Error(err)
	}
}

// TestWalksEndWithTheirContext, however many keys they pass over.
func TestWalksEndWithTheirContext(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	ops := make([]storage.Op, 0, 3000)
	for i := range cap(ops) {
		ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(fmt.Sprint(i))), Value: []byte(`1`), TTL: time.Hour})
	}
	if _, err := s.Write(t.Context(), ops, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.ChangedKeys(ctx, types.NSData, "", 0, s.Seq(), func(uint64, []byte) bool { return true })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err = s.WalkPurge(ctx, types.NSData, "none", storage.PurgePlace{}, time.Now().Add(1000*time.Hour).UnixMilli(), func(*types.Record, uint64) bool { return true })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
