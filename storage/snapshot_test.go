package storage_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/codec"
	"kvs/storage/merkle"
	"kvs/storage/storagetest"
	"kvs/types"
)

// states reads a snapshot as a whole.
func states(t *testing.T, p *storage.Snapshot, since uint64) map[types.Ref]storage.KeyState {
	t.Helper()
	out := map[types.Ref]storage.KeyState{}
	var last types.Ref
	err := p.Walk(t.Context(), since, nil, func(s *storage.KeyState) error {
		if s.Ref.NS < last.NS || s.Ref.NS == last.NS && s.Ref.Key <= last.Key {
			t.Errorf("%s after %s", s.Ref, last)
		}
		last = s.Ref
		out[s.Ref] = *s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What a snapshot shows is the state at its commit, as a model of maps has it,
// whatever is written, checkpointed and compacted meanwhile.
func TestSnapshotEqualsModel(t *testing.T) {
	const limit = 3
	s := storagetest.Open(t, storage.Options{RevisionLimit: limit, CheckpointEvery: 5 * time.Millisecond, MemoryBudget: 8 << 20})
	r := rand.New(rand.NewPCG(11, 12))
	model := map[types.Ref][]types.Record{} // every version, oldest first
	write := func(n int) {
		for range n {
			key := types.Key(fmt.Sprintf("k%02d", r.IntN(40)))
			ref := types.DataRef(key)
			if old := model[ref]; len(old) > 0 && !old[len(old)-1].Tombstone() && r.IntN(4) == 0 {
				model[ref] = append(old, storagetest.Delete(t, s, key))
				continue
			}
			model[ref] = append(model[ref], storagetest.Put(t, s, key, fmt.Sprint(r.Uint64())))
		}
	}
	check := func(p *storage.Snapshot, want map[types.Ref][]types.Record) {
		t.Helper()
		got := states(t, p, 0)
		if len(got) != len(want) {
			t.Fatalf("%d keys, want %d", len(got), len(want))
		}
		tree := merkle.New()
		for ref, versions := range want {
			state := got[ref]
			if state.Err != nil || state.Absent || state.Current.UUID != versions[len(versions)-1].UUID {
				t.Fatalf("%s is %+v, want %s", ref, state, versions[len(versions)-1].UUID)
			}
			before := versions[max(0, len(versions)-1-limit) : len(versions)-1]
			if !slices.EqualFunc(state.Older, before, func(a, b types.Record) bool { return a.UUID == b.UUID && string(a.Value) == string(b.Value) }) {
				t.Fatalf("%s has %d older versions, want %d", ref, len(state.Older), len(before))
			}
			e := merkle.EntryOf(&state.Current)
			tree.Add(e.Hash, e.Digest)
		}
		if err := p.Suspects(t.Context(), tree, p.Horizon(), func(s *storage.Suspect) error { return fmt.Errorf("suspected: %+v", s) }); err != nil {
			t.Fatal(err)
		}
		for ref := range want {
			if one, err := p.Key(t.Context(), ref); err != nil || !reflect.DeepEqual(one, got[ref]) {
				t.Fatalf("%s alone is %+v, %v", ref, one, err)
			}
		}
	}
	copyOf := func() map[types.Ref][]types.Record {
		out := map[types.Ref][]types.Record{}
		for ref, versions := range model {
			out[ref] = slices.Clone(versions)
		}
		return out
	}
	write(150)
	p, err := s.Pin(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	want := copyOf()
	if p.Seq() != s.Seq() {
		t.Errorf("the snapshot is of %d, the store at %d", p.Seq(), s.Seq())
	}
	check(p, want)
	for range 3 {
		write(200)
		// Checkpoints pass the snapshot, and a compaction forgets all it may.
		deadline := time.Now().Add(10 * time.Second)
		for s.Checkpointed() < s.Seq() && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if err := s.Compact(); err != nil {
			t.Fatal(err)
		}
		check(p, want)
	}
	now, err := s.Pin(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer now.Release()
	check(now, copyOf())

	// What changed since is exactly what differs.
	changed := states(t, now, p.Seq())
	for ref, versions := range model {
		_, is := changed[ref]
		if want := len(versions) != len(want[ref]); is != want {
			t.Errorf("%s changed: %v, want %v", ref, is, want)
		}
	}
}

// Without a snapshot the same versions do go: the test above would notice.
func TestCompactionForgets(t *testing.T) {
	s := storagetest.Open(t, storage.Options{RevisionLimit: 1, CheckpointEvery: 5 * time.Millisecond})
	var first types.Record
	for i := range 50 {
		if rec := storagetest.Put(t, s, "k", fmt.Sprint(i)); i == 0 {
			first = rec
		}
	}
	p, err := s.Pin(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	p.Release()
	if err := p.Walk(t.Context(), 0, nil, func(*storage.KeyState) error { return nil }); !errors.Is(err, storage.ErrSnapshotOver) {
		t.Errorf("a walk of a released snapshot: %v", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.Checkpointed() < s.Seq() && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	versions := 0
	err = s.Versions(types.DataRef("k"), func(rec types.Record) bool {
		versions++
		if rec.UUID == first.UUID {
			t.Error("the first version is still there")
		}
		return true
	})
	if err != nil || versions == 0 || versions > 10 {
		t.Errorf("%d versions are kept, %v", versions, err)
	}
}

func TestSnapshotEndsByItself(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	storagetest.Put(t, s, "k", "1")
	p, err := s.Pin(time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		err := p.Walk(t.Context(), 0, nil, func(*storage.KeyState) error { return nil })
		if errors.Is(err, storage.ErrSnapshotOver) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the snapshot does not end: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Versions overwritten within their own commit are among the older ones.
func TestSnapshotInnerVersions(t *testing.T) {
	s := storagetest.Open(t, storage.Options{RevisionLimit: 10, Hooks: []storage.Hook{innerHook{}}})
	storagetest.Put(t, s, "other", "0")
	var ops []storage.Op
	for i := range 4 {
		ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef("k"), Value: fmt.Append(nil, i)})
	}
	if _, err := s.Write(t.Context(), ops, true); err != nil {
		t.Fatal(err)
	}
	p, err := s.Pin(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	got := states(t, p, 0)[types.DataRef("k")]
	if string(got.Current.Value) != "3" || len(got.Older) != 3 || string(got.Older[0].Value) != "0" || string(got.Older[2].Value) != "2" {
		t.Errorf("%+v", got)
	}
	entries, more, err := p.Entries(t.Context(), storage.SpaceRevisions, nil, 2)
	if err != nil || len(entries) != 2 || !more {
		t.Errorf("%d entries, more %v, %v", len(entries), more, err)
	}
	entries, more, err = p.Entries(t.Context(), storage.SpaceRevisions, append(entries[1].Key, 0), 2)
	if err != nil || len(entries) != 1 || more {
		t.Errorf("then %d entries, more %v, %v", len(entries), more, err)
	}
	if err := s.DropEntries(t.Context(), storage.SpaceRevisions, [][]byte{entries[0].Key}); err != nil {
		t.Fatal(err)
	}
	if left, err := s.HookEntries(storage.SpaceRevisions, nil); err != nil || len(left) != 2 {
		t.Errorf("%d entries are left, %v", len(left), err)
	}
}

// A restored record is what it was, versions of a key become its history, and
// nothing is taken for a conflict.
func TestRestoreRecords(t *testing.T) {
	s := storagetest.Open(t, storage.Options{RevisionLimit: 5})
	var recs []types.Record
	for i := range 3 {
		recs = append(recs, types.Record{
			Ref:     types.DataRef("k"),
			Version: types.Version{Timestamp: types.TimestampOf(int64(1000 + i)), Origin: types.NodeID{byte(i + 1)}, OriginJoined: 1, UUID: types.VersionID{byte(i + 1)}},
			Value:   fmt.Append(nil, i),
		})
	}
	for _, rec := range recs { // each in a commit of its own
		if err := s.Restore(t.Context(), []types.Record{rec}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	if err := s.Versions(types.DataRef("k"), func(rec types.Record) bool { got = append(got, string(rec.Value)); return true }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"2", "1", "0"}) {
		t.Errorf("history %v", got)
	}
	if n := s.Stats().Conflicts; n != 0 {
		t.Errorf("%d conflicts", n)
	}
	if !s.Tree().Equal(rebuilt(t, s)) {
		t.Error("the tree differs from a rebuilt one")
	}
	ahead := recs[0]
	ahead.Timestamp = types.TimestampOf(time.Now().Add(time.Hour).UnixMilli())
	if err := s.Restore(t.Context(), []types.Record{ahead}); !errors.Is(err, types.ErrClockSkew) {
		t.Errorf("a record an hour ahead: %v", err)
	}
}

func TestMergeIf(t *testing.T) {
	s := storagetest.Open(t, storage.Options{Hooks: []storage.Hook{whoHook{t}}})
	mine := storagetest.Put(t, s, "mine", "1")
	rec := func(key types.Key, ms int64) types.Record {
		return types.Record{Ref: types.DataRef(key), Version: types.Version{Timestamp: types.TimestampOf(ms), Origin: types.NodeID{9}, OriginJoined: 1, UUID: types.VersionID{9}}, Value: []byte("9")}
	}
	ahead := time.Now().Add(time.Hour).UnixMilli()
	asked := map[types.Key]bool{} // whether there was a record
	changed, refused, err := s.MergeIf(t.Context(), []types.Record{rec("mine", 1), rec("new", 1), rec("unwanted", 1), rec("ahead", ahead)},
		&storage.Actor{Subject: "who"}, func(rec, old *types.Record) bool {
			asked[rec.Key] = old != nil
			return rec.Key != "unwanted"
		})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(changed, []bool{true, true, false, false}) { // the first is a conflict, whose loser is kept
		t.Errorf("changed %v", changed)
	}
	if len(refused) != 1 || refused[0].Ref.Key != "ahead" || !errors.Is(refused[0].Err, types.ErrClockSkew) {
		t.Errorf("refused %v", refused)
	}
	if !asked["mine"] || asked["new"] {
		t.Errorf("asked %v", asked)
	}
	if got, err := s.Get(types.DataRef("mine")); err != nil || got.UUID != mine.UUID {
		t.Errorf("mine is %+v, %v", got, err)
	}
	if _, err := s.Get(types.DataRef("unwanted")); !errors.Is(err, types.ErrNotFound) {
		t.Errorf("unwanted: %v", err)
	}
	if s.Stats().Conflicts != 1 {
		t.Errorf("%d conflicts", s.Stats().Conflicts)
	}
}

// Snapshots come and go while others write, checkpoint and read.
func TestSnapshotsAtOnce(t *testing.T) {
	s := storagetest.Open(t, storage.Options{RevisionLimit: 2, CheckpointEvery: time.Millisecond})
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				storagetest.Put(t, s, types.Key(fmt.Sprint("k", i%10)), fmt.Sprint(i))
			}
		}
	})
	for range 2 {
		readers.Go(func() {
			for range 15 {
				p, err := s.Pin(time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				tree := merkle.New()
				err = p.Walk(t.Context(), 0, nil, func(k *storage.KeyState) error {
					e := merkle.EntryOf(&k.Current)
					tree.Add(e.Hash, e.Digest)
					return k.Err
				})
				if err == nil {
					err = p.Suspects(t.Context(), tree, p.Horizon(), func(s *storage.Suspect) error { return fmt.Errorf("suspected: %+v", s) })
				}
				if err != nil {
					t.Error(err)
				}
				p.Release()
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
}

// innerHook keeps versions overwritten within their commit, as package revisions
// does.
type innerHook struct{}

func (innerHook) Keyspace() byte { return storage.SpaceRevisions }

func (innerHook) Stage(tx *storage.HookTx, changes []storage.Staged) {
	for i := range changes {
		if old := changes[i].Old; old != nil && i > 0 && changes[i-1].New.UUID == old.UUID {
			key := binary.BigEndian.AppendUint16([]byte{byte(old.NS)}, uint16(len(old.Key)))
			tx.Set(append(append(key, old.Key...), old.UUID[:]...), codec.Append(nil, old))
		}
	}
}

func (innerHook) Committed(uint64, []storage.Staged) {}

// whoHook checks who is said to have made a merge.
type whoHook struct{ t *testing.T }

func (whoHook) Keyspace() byte                          { return 'w' }
func (whoHook) Stage(*storage.HookTx, []storage.Staged) {}

func (h whoHook) Committed(_ uint64, changes []storage.Staged) {
	for _, c := range changes {
		if c.Merged && (c.By == nil || c.By.Subject != "who") {
			h.t.Errorf("%s was merged by %+v", c.New.Ref, c.By)
		}
	}
}
