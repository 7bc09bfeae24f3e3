package storage_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"kvs/features/revisions"
	"kvs/storage"
	"kvs/storage/codec"
	"kvs/storage/storagetest"
	"kvs/types"
)

// losers lists the conflicts namespace.
func losers(t *testing.T, s *storage.Store) []string {
	t.Helper()
	page, err := s.Scan(t.Context(), storage.ScanOptions{NS: types.NSConflicts, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, rec := range page.Records {
		loser, err := codec.DecodeOne(rec.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(loser.Value))
	}
	slices.Sort(out)
	return out
}

func TestConflictKeepsTheLoser(t *testing.T) {
	a, b := storagetest.Open(t, storage.Options{}), storagetest.Open(t, storage.Options{})
	va := storagetest.Put(t, a, "k", `"from a"`)
	vb := storagetest.Put(t, b, "k", `"from b"`)
	storagetest.Merge(t, a, vb)
	storagetest.Merge(t, b, va)
	winner, loser := va, vb
	if vb.Version.Compare(va.Version) > 0 {
		winner, loser = vb, va
	}
	for _, s := range []*storage.Store{a, b} {
		if got, err := s.Get(types.DataRef("k")); err != nil || got.UUID != winner.UUID {
			t.Errorf("winner %+v, %v", got, err)
		}
		if got := losers(t, s); !slices.Equal(got, []string{string(loser.Value)}) {
			t.Errorf("losers %v", got)
		}
	}
	ra, _ := a.Tree().Root()
	if rb, _ := b.Tree().Root(); ra != rb {
		t.Error("the trees differ")
	}

	// Who has seen both and overwrites makes no conflict; who sends an ancestor
	// changes nothing.
	next := storagetest.Put(t, a, "k", `"resolved"`)
	storagetest.Merge(t, b, next)
	seq := b.Seq()
	storagetest.Merge(t, b, winner)
	if b.Seq() != seq {
		t.Error("merging an ancestor changed something")
	}
	if got := losers(t, b); len(got) != 1 {
		t.Errorf("losers %v", got)
	}
	history, err := revisions.List(t.Context(), a, "k", 10)
	if err != nil || len(history) != 3 {
		t.Fatalf("history %+v, %v", history, err)
	}
	if history[0].Record.UUID != next.UUID || history[0].Conflict || history[1].Conflict == history[2].Conflict {
		t.Errorf("history %+v", history)
	}
}

// Any order of arrival, with repeats, leads to the same state.
func TestMergeConverges(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	sources := []*storage.Store{storagetest.Open(t, storage.Options{}), storagetest.Open(t, storage.Options{}), storagetest.Open(t, storage.Options{})}
	var all []types.Record
	for range 200 {
		s := sources[r.IntN(len(sources))]
		key := types.Key([]string{"x", "y", "z/1", "z/2"}[r.IntN(4)])
		if _, err := s.Get(types.DataRef(key)); err == nil && r.IntN(4) == 0 {
			all = append(all, storagetest.Delete(t, s, key))
		} else {
			all = append(all, storagetest.Put(t, s, key, `1`))
		}
		if r.IntN(3) == 0 { // some of it is seen by another node in time
			storagetest.Merge(t, sources[r.IntN(len(sources))], all[r.IntN(len(all))])
		}
	}
	var winners [2][]types.VersionID
	for i := range winners {
		s := storagetest.Open(t, storage.Options{})
		order := append(slices.Clone(all), all[:len(all)/2]...)
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, rec := range order {
			storagetest.Merge(t, s, rec)
		}
		err := s.Walk(t.Context(), types.Ref{}, func(rec *types.Record) bool {
			if rec.NS == types.NSData {
				winners[i] = append(winners[i], rec.UUID)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(winners[0], winners[1]) || len(winners[0]) != 4 {
		t.Errorf("winners differ: %v, %v", winners[0], winners[1])
	}
}

func TestRecordsFromTheFutureAreRefused(t *testing.T) {
	wall := time.Now()
	ahead := storagetest.Open(t, storage.Options{Wall: func() time.Time { return wall.Add(10 * time.Second) }})
	s := storagetest.Open(t, storage.Options{Wall: func() time.Time { return wall }, MaxClockSkew: 5 * time.Second})
	future := storagetest.Put(t, ahead, "future", `1`)
	present := types.Record{Ref: types.DataRef("present"), Version: types.Version{Timestamp: types.TimestampOf(wall.UnixMilli()), UUID: types.VersionID{1}}}
	refused, err := s.Merge(t.Context(), [][]types.Record{{future}, {present}})
	if err != nil || len(refused) != 1 || refused[0].Ref != future.Ref || !errors.Is(refused[0].Err, types.ErrClockSkew) {
		t.Fatalf("refused %+v, %v", refused, err)
	}
	if _, err := s.Get(present.Ref); err != nil {
		t.Errorf("the other record was not stored: %v", err)
	}
	if rec := storagetest.Put(t, s, "mine", `1`); rec.Timestamp.Millis() != wall.UnixMilli() {
		t.Error("the refused record moved the clock")
	}
}

// A wall clock that is set back may not date new versions into the past, nor
// run ahead of it without bound.
func TestClockSetBack(t *testing.T) {
	dir, wall := t.TempDir(), time.Now()
	s := storagetest.Open(t, storage.Options{Dir: dir, Wall: func() time.Time { return wall }})
	first := storagetest.Put(t, s, "a", `1`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wall = wall.Add(-time.Hour)
	s = storagetest.Open(t, storage.Options{Dir: dir, Wall: func() time.Time { return wall }})
	res, err := s.Write(t.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef("a"), Value: []byte(`2`)}}, false)
	if err != nil || !errors.Is(res[0].Err, types.ErrClockSkew) {
		t.Fatalf("write with the clock an hour behind: %+v, %v", res, err)
	}
	wall = wall.Add(time.Hour + time.Second)
	if again := storagetest.Put(t, s, "a", `2`); again.Timestamp <= first.Timestamp {
		t.Error("timestamps went back")
	}
}
