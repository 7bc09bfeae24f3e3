package backup

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// wantBackup checks that a full backup holds exactly what a model has.
func wantBackup(t *testing.T, entries []entry, want map[types.Ref][]types.Record) {
	t.Helper()
	got := make(map[types.Ref][]types.Record)
	for _, e := range entries {
		got[e.rec.Ref] = append(got[e.rec.Ref], e.rec)
	}
	for ref, versions := range want {
		if versions = kept(versions); ref.NS != types.NSData {
			versions = versions[len(versions)-1:]
		}
		if !slices.EqualFunc(got[ref], versions, same) {
			t.Errorf("%s: the backup has %s, the model %s", ref, values(got[ref]), values(versions))
		}
		delete(got, ref)
	}
	if len(got) > 0 {
		t.Errorf("the backup has keys that the model has not: %v", got)
	}
}

// A backup is the state at its sequence, byte for byte, whatever is written
// while it is made.
func TestBackupIsTheStateAtItsSequence(t *testing.T) {
	n := startNode(t)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 5))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := types.Key(fmt.Sprintf("k/%03d", r.IntN(200)))
				var ops []storage.Op
				for range 1 + r.IntN(3) { // several versions within a commit
					op := storage.Op{Ref: types.DataRef(key), Value: fmt.Append(nil, r.Uint64()), Raw: r.IntN(2) == 0}
					if r.IntN(4) == 0 {
						op.Kind, op.Value = storage.OpDelete, nil
					}
					if r.IntN(5) == 0 {
						op.TTL = time.Hour
					}
					ops = append(ops, op)
				}
				if _, err := n.store.Write(t.Context(), ops, false); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	storagetest.Merge(t, n.store, other("k/001", 1, 7, "a conflict's loser"))
	for range 6 {
		time.Sleep(20 * time.Millisecond) // lets them write; nothing depends on how much
		info := n.backup(Full)
		_, trailer, entries := read(t, info.Path())
		if trailer != info.Trailer || info.Damaged != 0 {
			t.Errorf("the trailer is %+v, the backup's %+v", trailer, info.Trailer)
		}
		wantBackup(t, entries, n.follow.at(info.Sequence))
	}
	close(stop)
	writers.Wait()
}

// All namespaces are in a backup, and large values in blocks of their own.
func TestBackupHoldsEverything(t *testing.T) {
	n := startNode(t)
	for _, ns := range []types.Namespace{types.NSAuth, types.NSJobs, types.NSCluster} {
		storagetest.One(t, n.store, storage.Op{Kind: storage.OpPut, Ref: types.Ref{NS: ns, Key: "x/\x00y"}, Value: []byte(ns.String())})
	}
	member := types.NodeID{1, 2, 3}
	storagetest.One(t, n.store, storage.Op{Kind: storage.OpPut, Ref: types.Ref{NS: types.NSCluster, Key: types.Key("roster/" + member.String())},
		Value: fmt.Appendf(nil, `{"uuid":%q,"node_id":"m","joined":5}`, member)})
	n.put("large", `"`+strings.Repeat("x", 3<<20)+`"`)
	n.put("large2", `"`+strings.Repeat("y", 3<<20)+`"`)
	n.put("deleted", "1")
	n.delete("deleted")
	n.putTTL("expiring", "1", time.Millisecond)
	info := n.backup(Full)
	h, trailer, entries := read(t, info.Path())
	wantBackup(t, entries, n.follow.at(info.Sequence))
	if trailer.Records != 8 || trailer.Older != 1 || trailer.Blocks < 4 {
		t.Errorf("trailer %+v", trailer)
	}
	if !slices.Equal(h.Roster, []Member{{member, "m", 5}}) || h.Node.UUID != n.store.Identity().UUID || h.Node.NodeID != "n1" || h.Program != "test" {
		t.Errorf("header %+v", h)
	}
	if h.Sequence != n.store.Seq() || h.Since != 0 || h.Type != Full {
		t.Errorf("header %+v", h)
	}
}

// What the horizon has passed is not in a full backup, removed or not.
func TestPurgedIsNotBackedUp(t *testing.T) {
	n := startNode(t)
	n.put("a", "1")
	n.put("b", "1")
	tomb := n.delete("b")
	n.horizon.Store(tomb.PurgeAt)
	info := n.backup(Full)
	if _, _, entries := read(t, info.Path()); len(entries) != 1 || entries[0].rec.Key != "a" {
		t.Errorf("entries %+v", entries)
	}
}

// What the node cannot read is counted and named, and the rest is backed up.
func TestDamagedRecordsAreCounted(t *testing.T) {
	const keys = 3000
	o := storage.Options{Dir: t.TempDir(), Compression: true}
	s := storagetest.Open(t, o)
	want := make(map[types.Ref]types.Record)
	for at := 0; at < keys; at += 1000 {
		ops := make([]storage.Op, 1000)
		for i := range ops {
			ops[i] = storage.Op{Ref: types.DataRef(types.Key(fmt.Sprintf("dir/%06d", at+i))), Value: fmt.Appendf(nil, `{"n":%d,"text":"some text that repeats"}`, at+i)}
		}
		res, err := s.Write(t.Context(), ops, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res {
			want[r.Record.Ref] = r.Record
		}
	}
	if err := s.Close(); err != nil { // so that they are in tables
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(o.Dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, path := range tables {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 { // in the blocks; the index is at the end
			b[r.IntN(len(b)/2)] ^= 1 << r.IntN(8)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = storagetest.Open(t, o)
	m, err := New(Options{Store: s, Dir: t.TempDir(), DataDir: o.Dir, NodeID: "n", Retention: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	info, err := m.Backup(t.Context(), Full)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records, %d damaged", info.Records, info.Damaged)
	if info.Damaged == 0 || info.Records+info.Damaged != keys {
		t.Errorf("%d records, %d damaged", info.Records, info.Damaged)
	}
	_, _, entries := read(t, info.Path())
	for _, e := range entries {
		if !same(e.rec, want[e.rec.Ref]) {
			t.Fatalf("%s is %s", e.rec.Ref, e.rec.Value)
		}
	}
}
