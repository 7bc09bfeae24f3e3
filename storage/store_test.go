package storage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

func TestPutGetDelete(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	if _, err := s.Get(types.DataRef("a")); !errors.Is(err, types.ErrNotFound) {
		t.Fatalf("get of an absent key: %v", err)
	}
	first := storagetest.One(t, s, storage.Op{Kind: storage.OpPut, Ref: types.DataRef("a"), Value: []byte("1")})
	second := storagetest.One(t, s, storage.Op{Kind: storage.OpPut, Ref: types.DataRef("a"), Value: []byte("2")})
	if !first.Created || second.Created {
		t.Errorf("created: %v, then %v", first.Created, second.Created)
	}
	if second.Record.Timestamp <= first.Record.Timestamp || second.Seq <= first.Seq {
		t.Error("the second write is not later than the first")
	}
	if !second.Record.Context.Covers(first.Record.Version) {
		t.Error("the second version does not descend from the first")
	}
	got, err := s.Get(types.DataRef("a"))
	if err != nil || string(got.Value) != "2" || got.UUID != second.Record.UUID {
		t.Fatalf("got %+v, %v", got, err)
	}
	tomb := storagetest.Delete(t, s, "a")
	if _, err := s.Get(types.DataRef("a")); !errors.Is(err, types.ErrNotFound) {
		t.Errorf("get of a deleted key: %v", err)
	}
	if rec, err := s.Lookup(types.DataRef("a")); err != nil || rec.UUID != tomb.UUID || rec.PurgeAt == 0 {
		t.Errorf("lookup of a deleted key: %+v, %v", rec, err)
	}
	res, err := s.Write(t.Context(), []storage.Op{{Kind: storage.OpDelete, Ref: types.DataRef("a")}}, false)
	if err != nil || !errors.Is(res[0].Err, types.ErrNotFound) {
		t.Errorf("second delete: %v, %v", res[0].Err, err)
	}
	if again := storagetest.Put(t, s, "a", "3"); again.Timestamp <= tomb.Timestamp {
		t.Error("a write over a tombstone is not later than it")
	}
}

// Guards run in the committer: increments by compare-and-set lose nothing.
func TestGuardsSerialize(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	ref := types.DataRef("counter")
	storagetest.Put(t, s, "counter", "0")
	stale := errors.New("stale")
	const clients, increments = 6, 50
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for done := 0; done < increments; {
				cur, err := s.Get(ref)
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(cur.Value))
				res, err := s.Write(context.Background(), []storage.Op{{
					Kind: storage.OpPut, Ref: ref, Value: []byte(strconv.Itoa(n + 1)),
					Guard: func(v *storage.View) error {
						now := v.Current
						if now == nil || now.UUID != cur.UUID {
							return stale
						}
						return nil
					},
				}}, false)
				switch {
				case err != nil:
					t.Error(err)
					return
				case res[0].Err == nil:
					done++
				case !errors.Is(res[0].Err, stale):
					t.Error(res[0].Err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, err := s.Get(ref); err != nil || string(got.Value) != strconv.Itoa(clients*increments) {
		t.Errorf("counter is %s, %v; want %d", got.Value, err, clients*increments)
	}
}

func TestBatches(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	put := func(k, v string) storage.Op {
		return storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(k)), Value: []byte(v)}
	}
	get := func(k string) storage.Op { return storage.Op{Kind: storage.OpGet, Ref: types.DataRef(types.Key(k))} }
	del := func(k string) storage.Op {
		return storage.Op{Kind: storage.OpDelete, Ref: types.DataRef(types.Key(k))}
	}
	root := func() [16]byte { r, _ := s.Tree().Root(); return r }

	res, err := s.Write(t.Context(), []storage.Op{put("a", "1"), get("a"), del("nothing"), put("a", "2"), get("a")}, false)
	if err != nil {
		t.Fatal(err)
	}
	if string(res[1].Record.Value) != "1" || string(res[4].Record.Value) != "2" || !errors.Is(res[2].Err, types.ErrNotFound) {
		t.Errorf("results %+v", res)
	}

	before, seq := root(), s.Seq()
	res, err = s.Write(t.Context(), []storage.Op{put("a", "3"), put("b", "1"), del("nothing"), put("c", "1")}, true)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(res[2].Err, types.ErrNotFound) || !errors.Is(res[0].Err, storage.ErrAborted) || !errors.Is(res[3].Err, storage.ErrAborted) {
		t.Errorf("results of the failed atomic batch: %+v", res)
	}
	if root() != before || s.Seq() != seq {
		t.Error("a failed atomic batch left something behind")
	}
	if got, _ := s.Get(types.DataRef("a")); string(got.Value) != "2" {
		t.Errorf("a is %s", got.Value)
	}

	res, err = s.Write(t.Context(), []storage.Op{put("a", "3"), put("b", "1"), del("a")}, true)
	if err != nil || res[0].Err != nil || res[1].Err != nil || res[2].Err != nil {
		t.Fatalf("atomic batch: %+v, %v", res, err)
	}
	if s.Seq() != seq+1 {
		t.Errorf("the atomic batch took %d commits", s.Seq()-seq)
	}
	commits, ok := s.Recent(seq, 1<<20)
	if !ok || len(commits) != 1 || len(commits[0].Changes) != 3 {
		t.Fatalf("feed: %+v, %v", commits, ok)
	}
	for _, c := range commits[0].Changes {
		if c.Unit == 0 || c.Unit != commits[0].Changes[0].Unit {
			t.Error("the changes of an atomic batch are not one unit")
		}
	}

	if _, err := s.Write(t.Context(), make([]storage.Op, storage.MaxBatchOps+1), true); !errors.Is(err, types.ErrTooLarge) {
		t.Errorf("too many operations: %v", err)
	}
}

// The largest atomic batch that is promised fits one transaction: 1,000
// operations, keys of 1 KiB, values just short of the value log; and 16 MiB.
func TestLargestAtomicBatch(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	for _, size := range []int{2<<10 - 300, 16 << 10} {
		ops := make([]storage.Op, storage.MaxBatchOps)
		for i := range ops {
			key := fmt.Sprintf("%0*d", types.MaxKeyLen, i)
			ops[i] = storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(key)), Value: make([]byte, size), Raw: true, TTL: 1e12}
		}
		seq := s.Seq()
		if _, err := s.Write(t.Context(), ops, true); err != nil {
			t.Fatalf("values of %d bytes: %v", size, err)
		}
		if s.Seq() != seq+1 {
			t.Errorf("values of %d bytes: %d commits", size, s.Seq()-seq)
		}
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Open(t, storage.Options{Dir: dir})
	id, rec := s.Identity(), storagetest.Put(t, s, "a", "1")
	if err := s.PutMeta(t.Context(), map[string][]byte{"cursor": []byte("x")}); err != nil {
		t.Fatal(err)
	}
	root, count := s.Tree().Root()
	seq := s.Seq()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef("b")}}, false); !errors.Is(err, types.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}

	s = storagetest.Open(t, storage.Options{Dir: dir})
	if s.Identity() != id {
		t.Error("the identity changed")
	}
	if r, c := s.Tree().Root(); r != root || c != count {
		t.Error("the tree changed")
	}
	if s.Seq() < seq {
		t.Error("the sequence went back")
	}
	if b, err := s.GetMeta("cursor"); err != nil || string(b) != "x" {
		t.Errorf("meta %q, %v", b, err)
	}
	if got, err := s.Get(types.DataRef("a")); err != nil || got.UUID != rec.UUID {
		t.Errorf("got %+v, %v", got, err)
	}
	if next := storagetest.Put(t, s, "a", "2"); next.Timestamp <= rec.Timestamp {
		t.Error("a timestamp went back over the restart")
	}
}

func TestDirectoryChecks(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "photo.jpg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "FORMAT"), []byte("kvs data 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	used := t.TempDir()
	storagetest.Open(t, storage.Options{Dir: used})
	for name, dir := range map[string]string{"of something else": foreign, "of a newer format": newer, "in use": used} {
		if s, err := storage.Open(storage.Options{Dir: dir}); err == nil {
			s.Close()
			t.Errorf("a directory %s was opened", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
