package storage_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kvs/storage"
	"kvs/storage/merkle"
	"kvs/storage/storagetest"
	"kvs/types"
)

// rebuilt counts the tree from what Walk finds.
func rebuilt(t *testing.T, s *storage.Store) *merkle.Tree {
	t.Helper()
	tree := merkle.New()
	if err := s.Walk(t.Context(), types.Ref{}, func(rec *types.Record) bool {
		e := merkle.EntryOf(rec)
		tree.Add(e.Hash, e.Digest)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return tree
}

// copyDir takes a data directory as a crash would leave it: while it is open.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "LOCK" {
			continue
		}
		if err := copySparse(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return to
}

// copySparse leaves the holes out: Badger's logs are mapped files of hundreds
// of megabytes, nearly all of them holes.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); ; {
		data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, data), io.NewSectionReader(src, data, at-data)); err != nil {
			return err
		}
	}
}

// After any crash the replayed tree equals one counted from disk, and what was
// acknowledged is there.
func TestTreeAfterCrashes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	dir := t.TempDir()
	want := map[types.Key]string{}
	for round := range 4 {
		s := storagetest.Open(t, storage.Options{Dir: dir, CheckpointEvery: 20 * time.Millisecond, RevisionLimit: 3})
		for i := range 150 {
			key := types.Key(fmt.Sprintf("k%d", r.IntN(60)))
			if _, there := want[key]; there && r.IntN(3) == 0 {
				storagetest.Delete(t, s, key)
				delete(want, key)
				continue
			}
			want[key] = fmt.Sprintf(`"%d.%d"`, round, i)
			storagetest.Put(t, s, key, want[key])
		}
		if !s.Tree().Equal(rebuilt(t, s)) {
			t.Fatal("the tree differs from a rebuilt one")
		}
		dir = copyDir(t, dir)
	}
	s := storagetest.Open(t, storage.Options{Dir: dir})
	if !s.Tree().Equal(rebuilt(t, s)) {
		t.Fatal("the replayed tree differs from a rebuilt one")
	}
	for key, value := range want {
		if rec, err := s.Get(types.DataRef(key)); err != nil || string(rec.Value) != value {
			t.Errorf("%s is %s, %v; want %s", key, rec.Value, err, value)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// Neither a damaged nor a missing checkpoint matters.
	path := filepath.Join(dir, "merkle.checkpoint")
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = storagetest.Open(t, storage.Options{Dir: dir})
	if !s.Tree().Equal(rebuilt(t, s)) {
		t.Error("the counted tree differs from a rebuilt one")
	}
}

// fill writes n keys and closes the store, so that they are in tables.
func fill(t *testing.T, o storage.Options, n int) map[types.Ref]types.Record {
	t.Helper()
	s := storagetest.Open(t, o)
	out := map[types.Ref]types.Record{}
	for start := 0; start < n; start += 500 {
		var ops []storage.Op
		for i := start; i < min(start+500, n); i++ {
			ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(fmt.Sprintf("dir/%06d", i))), Value: fmt.Appendf(nil, `{"n":%d,"text":"some text that repeats"}`, i)})
		}
		res, err := s.Write(t.Context(), ops, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res {
			out[r.Record.Ref] = r.Record
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// Flipped bits on disk never change what is read: a damaged record is an error
// that names it, the scrub finds what vanished, and a peer's copy mends it.
func TestBitRot(t *testing.T) {
	for _, compressed := range []bool{true, false} {
		t.Run(fmt.Sprintf("compression=%v", compressed), func(t *testing.T) {
			o := storage.Options{Dir: t.TempDir(), Compression: compressed}
			want := fill(t, o, 5000)
			tables, err := filepath.Glob(filepath.Join(o.Dir, "*.sst"))
			if err != nil || len(tables) == 0 {
				t.Fatalf("tables %v, %v", tables, err)
			}
			r := rand.New(rand.NewPCG(9, 10))
			for _, path := range tables {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for range 20 { // in the blocks; the index is at the end
					b[r.IntN(len(b)/2)] ^= 1 << r.IntN(8)
				}
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := storagetest.Open(t, o)
			found, err := s.Scrub(t.Context())
			if err != nil || found == 0 {
				t.Fatalf("the scrub found %d buckets, %v", found, err)
			}
			damaged, absent := 0, 0
			for ref, rec := range want {
				got, err := s.Get(ref)
				switch {
				case errors.Is(err, types.ErrCorrupt):
					damaged++
				case errors.Is(err, types.ErrNotFound):
					absent++
				case err != nil:
					t.Fatal(err)
				case got.UUID != rec.UUID || string(got.Value) != string(rec.Value):
					t.Fatalf("%s was read as %s", ref, got.Value)
				}
				if err := s.Repair(t.Context(), rec); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d tables: %d records damaged, %d absent, %d buckets", len(tables), damaged, absent, found)
			if damaged == 0 {
				t.Error("no read found the damage")
			}
			for ref, rec := range want {
				if got, err := s.Get(ref); err != nil || got.UUID != rec.UUID {
					t.Fatalf("%s after the repair: %v", ref, err)
				}
			}
			if found, err := s.Scrub(t.Context()); err != nil || found != 0 {
				t.Errorf("after the repair the scrub found %d buckets, %v", found, err)
			}
		})
	}
}

func TestDiskWatermark(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	s := storagetest.Open(t, storage.Options{MinFreeDisk: 100 << 20, FreeDisk: func(string) (int64, error) { return free.Load(), nil }})
	storagetest.Put(t, s, "a", `1`)
	free.Store(99 << 20)
	big := make([]byte, 1<<20)
	var err error
	for i := 0; err == nil && i < 1000; i++ { // a burst is noticed before the next look at the clock
		_, err = s.Write(t.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef("b"), Value: big}}, false)
	}
	if !errors.Is(err, types.ErrDiskFull) {
		t.Fatalf("write on a full disk: %v", err)
	}
	if _, err := s.Merge(t.Context(), [][]types.Record{{{Ref: types.DataRef("c")}}}); !errors.Is(err, types.ErrDiskFull) {
		t.Errorf("merge on a full disk: %v", err)
	}
	if res, err := s.Write(t.Context(), []storage.Op{{Kind: storage.OpGet, Ref: types.DataRef("a")}}, false); err != nil || res[0].Err != nil {
		t.Errorf("read on a full disk: %v", err)
	}
	free.Store(1 << 30)
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := s.Write(t.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef("d"), Value: []byte("1")}}, false)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("space is back and writes are still refused: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
	if _, err := storage.Open(storage.Options{Dir: t.TempDir(), MinFreeDisk: 1 << 30, FreeDisk: func(string) (int64, error) { return 1 << 20, nil }}); !errors.Is(err, types.ErrDiskFull) {
		t.Errorf("open on a full disk: %v", err)
	}
}
