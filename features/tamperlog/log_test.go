package tamperlog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// foreign gives a version that another node made.
func foreign(key types.Key, ms int64, tombstone bool) types.Record {
	rec := types.Record{Ref: types.DataRef(key), Version: types.Version{Timestamp: types.TimestampOf(ms), Origin: types.NodeID{9}, UUID: version(byte(ms))}, Value: []byte("1")}
	if tombstone {
		rec.Flags, rec.Value = types.FlagTombstone, nil
	}
	return rec
}

func TestEveryChangeIsInTheLog(t *testing.T) {
	n := openNode(t, "")
	ann := &storage.Actor{Subject: "ann", Token: "jti", Address: "10.0.0.1"}
	self := storage.Actor{Subject: "node:" + n.id().String()}
	other := storage.Actor{Subject: "node:" + types.NodeID{9}.String()}
	put := func(key types.Key, value string, ttl time.Duration) types.VersionID {
		return storagetest.One(t, n.store, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(value), TTL: ttl, By: ann}).Record.UUID
	}
	var want []Entry
	line := func(a Action, ns types.Namespace, key string, before, after types.VersionID, by storage.Actor) {
		want = append(want, Entry{Action: a, NS: ns, Key: key, Before: before, After: after, By: by})
	}

	a1 := put("a", `1`, 0)
	line(ActionPut, types.NSData, "a", types.VersionID{}, a1, *ann)
	a2 := put("a", `2`, 0)
	line(ActionPut, types.NSData, "a", a1, a2, *ann)
	a3 := put("a", `2`, 0) // the same again is a put
	line(ActionPut, types.NSData, "a", a2, a3, *ann)
	a4 := put("a", `2`, time.Hour) // with an expiry it is metadata
	line(ActionMetadata, types.NSData, "a", a3, a4, *ann)
	meta := storagetest.One(t, n.store, storage.Op{Kind: storage.OpMeta, Ref: types.DataRef("a"), KeepTTL: true, By: ann, Guard: func(v *storage.View) error {
		v.Meta.Owner = "somebody"
		return nil
	}}).Record.UUID
	line(ActionMetadata, types.NSData, "a", a4, meta, *ann)
	gone := storagetest.One(t, n.store, storage.Op{Kind: storage.OpDelete, Ref: types.DataRef("a"), By: ann}).Record.UUID
	line(ActionDelete, types.NSData, "a", meta, gone, *ann)
	again := put("a", ``, 0) // over a tombstone it is a put, though neither has a value
	line(ActionPut, types.NSData, "a", gone, again, *ann)

	user := storagetest.One(t, n.store, storage.Op{Kind: storage.OpPut, Ref: types.Ref{NS: types.NSAuth, Key: "user/1"}, Value: []byte(`{}`)}).Record.UUID
	line(ActionPut, types.NSAuth, "user/1", types.VersionID{}, user, self)

	storagetest.Merge(t, n.store, foreign("m", 1000, false))
	line(ActionMerge, types.NSData, "m", types.VersionID{}, version(1000&0xff), other)
	storagetest.Merge(t, n.store, foreign("m", 2000, true))
	line(ActionMerge, types.NSData, "m", version(1000&0xff), version(2000&0xff), other)
	want[len(want)-1].Detail = "deleted"
	// A conflict: the loser's record is a change as well.
	conflict := types.Key(types.ConflictKey("m", version(1000&0xff)))
	line(ActionMerge, types.NSConflicts, string(conflict), types.VersionID{}, version(1000&0xff), other)

	got := n.entries(Filter{})
	if first := got[0]; first.N != 1 || first.Action != ActionOpened || first.By != self || first.Count != 0 || !strings.HasPrefix(first.Detail, "begun at sequence 1, key ") {
		t.Errorf("first entry %+v", first)
	}
	for i := range got {
		if e := &got[i]; e.N != uint64(i+1) || e.Seq == 0 || time.Since(time.UnixMilli(e.Time)).Abs() > time.Minute {
			t.Errorf("entry %d: number %d, sequence %d, time %d", i+1, e.N, e.Seq, e.Time)
		}
		got[i].N, got[i].Seq, got[i].Time = 0, 0, 0
	}
	if !reflect.DeepEqual(got[1:], want) {
		for i, e := range got[1:] {
			t.Logf("%+v", e)
			if i < len(want) && !reflect.DeepEqual(e, want[i]) {
				t.Errorf("want\n%+v", want[i])
			}
		}
		t.Fatalf("%d entries, want %d", len(got)-1, len(want))
	}
	r := n.sound(VerifyOptions{})
	if r.Entries != uint64(len(got)) || r.Last != uint64(len(got)) || len(r.Gaps) != 0 {
		t.Errorf("report %+v", r)
	}
	if s := n.log.Stats(); s.Entries != r.Entries || s.Last != r.Last {
		t.Errorf("stats %+v", s)
	}
}

func TestPutOrMetadata(t *testing.T) {
	base := types.Record{Ref: types.DataRef("k"), Value: []byte(`1`)}
	for name, c := range map[string]struct {
		change func(o, n *types.Record)
		want   Action
	}{
		"the same":              {func(o, n *types.Record) {}, ActionPut},
		"another value":         {func(o, n *types.Record) { n.Value, n.Meta.Owner = []byte(`2`), "x" }, ActionPut},
		"another owner":         {func(o, n *types.Record) { n.Meta.Owner = "x" }, ActionMetadata},
		"another mode":          {func(o, n *types.Record) { n.Meta.Mode = 1 }, ActionMetadata},
		"an expiry":             {func(o, n *types.Record) { n.ExpiresAt = 2000 }, ActionMetadata},
		"no expiry any more":    {func(o, n *types.Record) { o.ExpiresAt = 2000 }, ActionMetadata},
		"over an expired value": {func(o, n *types.Record) { o.ExpiresAt = 999 }, ActionPut},
		"as bytes":              {func(o, n *types.Record) { n.Flags, n.Meta.ContentType = types.FlagRaw, "text/plain" }, ActionPut},
		"over a tombstone": {func(o, n *types.Record) {
			o.Flags, o.Value, n.Value, n.Meta.Owner = types.FlagTombstone, nil, nil, "x"
		}, ActionPut},
		"a deletion": {func(o, n *types.Record) { n.Flags, n.Value = types.FlagTombstone, nil }, ActionDelete},
	} {
		o, n := base, base
		c.change(&o, &n)
		if got := New(Options{}).entryOf(&storage.Staged{Old: &o, New: n}, 1000); got.Action != c.want {
			t.Errorf("%s: %v, want %v", name, got.Action, c.want)
		}
	}
}

// No value is in the log, and no two commits share a block.
func TestValuesAreNotInTheLog(t *testing.T) {
	n := openNode(t, "")
	storagetest.Put(t, n.store, "k", `"a value that nobody else may read"`)
	storagetest.Put(t, n.store, "k", `"another value that nobody may read"`)
	blocks := n.blocks()
	if len(blocks) != 2 {
		t.Errorf("%d blocks for two commits", len(blocks))
	}
	for _, b := range blocks {
		if strings.Contains(string(b.value), "nobody") {
			t.Errorf("block %x holds a value", b.key)
		}
	}
}

// Blocks of commits of usual size are small enough to be kept beside their keys;
// those of large commits take no more of the transaction than its reserve.
func TestBlockSizes(t *testing.T) {
	const inline, reserve = 2 << 10, 32 << 10 // below the former a value takes room in the transaction
	l := New(Options{})
	l.store = &storage.Store{}
	for _, c := range []struct {
		changes, key  int
		small, single bool
	}{{1, 10, true, true}, {20, 20, true, true}, {30, 20, true, true}, {40, 20, true, false}, {300, 20, true, false}, {3000, 20, false, false}, {20_000, 20, false, false},
		{1, maxKey, false, true}, {10, maxKey, false, false}, {1000, maxKey, false, false}, {15, 1900, true, false}} {
		changes := make([]storage.Staged, c.changes)
		for i := range changes {
			rec := foreign(types.Key(strings.Repeat("k", min(c.key, maxKey))), int64(1000+i), false)
			changes[i] = storage.Staged{Old: &rec, New: rec, By: &storage.Actor{Subject: fmt.Sprint(i)}}
			if c.key > maxKey { // long names
				changes[i].New.Key = "k"
				changes[i].By = &storage.Actor{Subject: strings.Repeat(fmt.Sprint(i%10), maxText), Token: strings.Repeat("t", maxText)}
			}
		}
		var tx memory
		l.stage(&tx, changes)
		l.Committed(0, nil)
		beside, large, entries := 0, 0, 0
		for _, b := range tx.blocks {
			if len(b.value) < inline {
				beside += len(b.value)
			} else {
				large++
			}
			block := b.decoded(t)
			entries += len(block.Entries)
		}
		if entries != c.changes || beside > reserve || c.small && large > 0 || c.single != (len(tx.blocks) == 1) {
			t.Errorf("%d changes with keys of %d bytes: %d entries in %d blocks, %d of them large, %d bytes beside their keys",
				c.changes, c.key, entries, len(tx.blocks), large, beside)
		}
	}
}

// The log does not make a transaction too large, which would end all writing,
// though the store fills transactions without regard to hooks.
func TestFullTransactions(t *testing.T) {
	t.Parallel()
	n := openNode(t, "")
	for _, c := range []struct{ ops, key int }{{40_000, 10}, {6000, 900}} {
		ops := make([]storage.Op, c.ops)
		for i := range ops {
			key := types.Key(fmt.Sprintf("%0*d", c.key, i))
			ops[i] = storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte("1"), By: &storage.Actor{Subject: fmt.Sprint(i)}}
		}
		for range 2 { // new keys, and overwrites, of which more go into one
			if _, err := n.store.Write(t.Context(), ops, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := n.sound(VerifyOptions{})
	if most := n.store.Stats().Commits; most > 60 || r.Entries != 2*(40_000+6000)+1 {
		t.Errorf("%d commits, which are too small for this test, or %d entries", most, r.Entries)
	}
}

// A large commit makes several blocks.
func TestLargeCommit(t *testing.T) {
	t.Parallel()
	n := openNode(t, "")
	unit := make([]types.Record, 2*maxEntries+100)
	for i := range unit {
		unit[i] = foreign(types.Key(fmt.Sprintf("k%06d", i)), int64(1000+i), false)
	}
	storagetest.Merge(t, n.store, unit...)
	r := n.sound(VerifyOptions{})
	if r.Blocks < 3 || r.Blocks > 20 || r.Entries != uint64(len(unit)+1) {
		t.Errorf("%d blocks, %d entries for %d changes", r.Blocks, r.Entries, len(unit))
	}
	storagetest.Put(t, n.store, "next", `1`)
	n = n.reopen()
	storagetest.Put(t, n.store, "later", `1`)
	n.sound(VerifyOptions{})
	// Each page begins within a block.
	var after, count uint64
	for {
		list, next, err := Entries(t.Context(), n.store, Filter{After: after, Limit: 777})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if count++; e.N != count {
				t.Fatalf("entry %d after %d", e.N, count-1)
			}
		}
		if after = next; next == 0 {
			break
		}
	}
	if last, err := Last(n.store); err != nil || count != last || last != uint64(len(unit)+4) {
		t.Errorf("%d entries in pages, last %d, %v", count, last, err)
	}
}

func TestReopenContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n := openNode(t, "")
		var checkpoints []Checkpoint
		for i := range 4 {
			storagetest.Put(t, n.store, types.Key(fmt.Sprintf("k%d", i)), `1`)
			c, ok := n.log.Checkpoint()
			if !ok || !c.Verify() || c.Node != n.id() {
				t.Fatalf("checkpoint %+v, %v", c, ok)
			}
			if i > 0 && c.PublicKey != checkpoints[0].PublicKey {
				t.Error("the key is another one after a start")
			}
			checkpoints = append(checkpoints, c)
			n = n.reopen()
			if again, ok := n.log.Checkpoint(); !ok || again != c {
				t.Errorf("after a start the checkpoint is %+v, %v, and not %+v", again, ok, c)
			}
		}
		n.flush()
		r := n.sound(VerifyOptions{Witnessed: checkpoints})
		if r.Entries != 4+5 || r.Witnessed != 4 || r.WitnessedTo != checkpoints[3].N || len(r.Gaps) != 0 {
			t.Errorf("%+v", r)
		}
		if opened := n.entries(Filter{Action: ActionOpened}); len(opened) != 5 {
			t.Errorf("%d starts are in the log", len(opened))
		}
	})
}

func TestCheckpointOnlyWhenNew(t *testing.T) {
	n := openNode(t, "")
	if c, ok := n.log.Checkpoint(); ok {
		t.Errorf("a checkpoint of an empty log: %+v", c)
	}
	storagetest.Put(t, n.store, "a", `1`)
	c, ok := n.log.Checkpoint()
	if again, ok2 := n.log.Checkpoint(); !ok || !ok2 || c != again {
		t.Errorf("%+v, %v, then %+v, %v", c, ok, again, ok2)
	}
	n.log.Confirm(c)
	if c, ok := n.log.Checkpoint(); ok {
		t.Errorf("a checkpoint though nothing is new: %+v", c)
	}
	storagetest.Put(t, n.store, "a", `2`)
	if next, ok := n.log.Checkpoint(); !ok || next.N != c.N+1 {
		t.Errorf("%+v, %v after one of entry %d", next, ok, c.N)
	}
}

// While the log is off changes are made without it; that is told, and is no
// problem.
func TestOffIsVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n := openNode(t, "")
		storagetest.Put(t, n.store, "a", `1`)
		n = n.reopen(logOff)
		for i := range 3 {
			storagetest.Put(t, n.store, types.Key(fmt.Sprintf("off%d", i)), `1`)
		}
		if r := n.verify(VerifyOptions{}); !reflect.DeepEqual(kinds(r.Problems), []Kind{KindUnlogged}) {
			t.Errorf("with the log on: %+v", r.Problems)
		}
		if r := n.sound(VerifyOptions{Off: true}); len(r.Gaps) != 1 || r.Gaps[0].Records != 3 || r.Gaps[0].Entry != 0 {
			t.Errorf("with the log off: %+v", r.Gaps)
		}
		n = n.reopen()
		storagetest.Put(t, n.store, "b", `1`)
		r := n.sound(VerifyOptions{})
		if len(r.Gaps) != 1 || r.Gaps[0].Records != 3 || r.Gaps[0].Entry != 3 || r.Gaps[0].AfterSeq >= r.Gaps[0].Seq {
			t.Errorf("afterwards: %+v", r.Gaps)
		}
		// A start without a gap tells of none.
		n = n.reopen()
		storagetest.Put(t, n.store, "c", `1`)
		if r := n.sound(VerifyOptions{}); len(r.Gaps) != 1 {
			t.Errorf("after another start: %+v", r.Gaps)
		}
	})
}

// What is written before Start is not in the log, and the log says so.
func TestWriteBeforeStart(t *testing.T) {
	n := prepareNode(t, "")
	storagetest.Put(t, n.store, "early", `1`)
	n.log.Refused(storage.Actor{}, "early", "forbidden")
	if err := n.log.Start(t.Context(), n.store); err != nil {
		t.Fatal(err)
	}
	n.log.Refused(storage.Actor{}, "early", "forbidden")
	storagetest.Put(t, n.store, "late", `1`)
	got := n.entries(Filter{})
	if len(got) != 3 || got[0].Action != ActionOpened || got[0].Count != 1 || got[1].Action != ActionRefused || got[1].Count != 2 || got[2].Key != "late" {
		t.Errorf("%+v", got)
	}
	n.sound(VerifyOptions{})
}

// memory is a transaction that keeps what is set.
type memory struct {
	seq    uint64
	blocks []rawBlock
}

func (m *memory) Seq() uint64 { return m.seq }
func (m *memory) Now() int64  { return 1_700_000_000_000 }
func (m *memory) Set(key, value []byte) {
	m.blocks = append(m.blocks, rawBlock{key, append([]byte(nil), value...)})
}

// A commit that failed does not move the chain, and what waited is not lost.
func TestFailedCommit(t *testing.T) {
	n := openNode(t, "")
	n.flush()
	rec := foreign("k", 1000, false)
	changes := []storage.Staged{{New: rec, Merged: true}}
	n.log.Refused(storage.Actor{Subject: "eve"}, "k", "forbidden")
	var failed, done memory
	before, _ := n.log.Checkpoint()
	n.log.stage(&failed, changes)
	if c, _ := n.log.Checkpoint(); c != before {
		t.Errorf("the checkpoint moved to %+v before the commit", c)
	}
	n.log.Refused(storage.Actor{Subject: "eve"}, "k", "forbidden")
	n.log.stage(&done, changes)
	n.log.Committed(0, nil)
	a, b := failed.blocks[0].decoded(t), done.blocks[0].decoded(t)
	if a.First != 2 || b.First != 2 || a.Prev != b.Prev || len(a.Entries) != 2 || len(b.Entries) != 3 {
		t.Errorf("failed %+v\ndone %+v", a, b)
	}
	if c, ok := n.log.Checkpoint(); !ok || c.N != 4 || c.Head != b.Hash {
		t.Errorf("checkpoint %+v, %v", c, ok)
	}
	var next memory
	n.log.stage(&next, changes)
	if c := next.blocks[0].decoded(t); c.Prev != b.Hash || c.Previous != 3 || len(c.Entries) != 1 {
		t.Errorf("next %+v", c)
	}
}

// A large commit does not hold on to its memory for ever, nor do many small ones
// pile up.
func TestBufferIsBounded(t *testing.T) {
	n := openNode(t, "")
	large := make([]storage.Staged, 60_000)
	for i := range large {
		large[i] = storage.Staged{New: foreign("k", int64(1000+i), false), Merged: true}
	}
	n.log.stage(&memory{}, large)
	if len(n.log.encoder.buf) < keepBuffer {
		t.Fatalf("the commit takes %d bytes, which is not large", len(n.log.encoder.buf))
	}
	for range 20_000 {
		n.log.stage(&memory{}, large[:1])
	}
	if c := cap(n.log.encoder.buf); c > 1000 {
		t.Errorf("the buffer for one change has %d bytes", c)
	}
}

func TestConcurrency(t *testing.T) {
	n, w := openNode(t, ""), openNode(t, "")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			by := &storage.Actor{Subject: fmt.Sprint(g)}
			for i := range 100 {
				res, err := n.store.Write(t.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef(types.Key(fmt.Sprintf("%d/%d", g, i))), Value: []byte("1"), By: by}}, false)
				if err != nil || res[0].Err != nil {
					t.Error(err, res)
				}
				n.log.Refused(*by, fmt.Sprint(i%3), "forbidden")
			}
		})
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			kept, err := w.witness.List(n.id())
			r, err2 := Verify(t.Context(), n.store, VerifyOptions{Witnessed: kept})
			_, _, err3 := Entries(t.Context(), n.store, Filter{Who: "1"})
			if err := errors.Join(err, err2, err3); err != nil || !r.OK() {
				t.Error(err, r.Problems)
			}
			if c, ok := n.log.Checkpoint(); ok {
				if err := w.witness.Take(t.Context(), n.id(), c.Encode()); err != nil {
					t.Error(err)
				}
				n.log.Confirm(c)
			}
		}
	})
	wg.Wait()
	close(stop)
	readers.Wait()
	n.flush()
	n.log.refused.since = time.Time{} // the gap entry, if there is one, is due
	n.flush()
	n.witnessedBy(w)
	r := n.sound(VerifyOptions{Witnessed: w.list(n.id())})
	s := n.log.Stats()
	if r.Refused != 400 || s.Refused != 400 || r.Suppressed != s.Suppressed || r.WitnessedTo != r.Last || s.Last != r.Last {
		t.Errorf("report %+v, stats %+v", r, s)
	}
	if puts := n.entries(Filter{Action: ActionPut}); len(puts) != 400 {
		t.Errorf("%d puts", len(puts))
	}
	if s := w.witness.Stats(); s.Conflicts != 0 || s.Witnessed == 0 {
		t.Errorf("witness %+v", s)
	}
}

const childDir = "KVS_TAMPERLOG_TEST_DIR"

// TestChild is not a test but the process that TestKilled kills.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	n := openNode(t, dir)
	for i := 0; ; i++ {
		rec := storagetest.Put(t, n.store, types.Key(fmt.Sprintf("k%d", i%50)), `1`)
		n.log.Refused(storage.Actor{Subject: "eve"}, fmt.Sprint(i), "forbidden")
		fmt.Printf("wrote %s\n", rec.UUID)
	}
}

// After kill -9 the log is sound, and holds every write that was answered and
// every record that is there.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestChild$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		answered := map[string]bool{}
		for lines := bufio.NewScanner(out); len(answered) < 300 && lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "wrote "); ok {
				answered[id] = true
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var ended *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &ended) || len(answered) < 300 {
			t.Fatalf("the child ended by itself after %d writes: %v", len(answered), err)
		}
		n := openNode(t, dir)
		if r := n.sound(VerifyOptions{}); len(r.Gaps) != 0 {
			t.Errorf("gaps %+v", r.Gaps)
		}
		logged := map[types.VersionID]bool{}
		for _, e := range n.entries(Filter{}) {
			logged[e.After] = true
			delete(answered, e.After.String())
		}
		if len(answered) > 0 {
			t.Errorf("%d answered writes are not in the log", len(answered))
		}
		if err := n.store.Walk(t.Context(), types.Ref{}, func(rec *types.Record) bool {
			if !logged[rec.UUID] {
				t.Errorf("record %s is not in the log", rec.Ref)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		storagetest.Put(t, n.store, "after", `1`)
		n.sound(VerifyOptions{})
		n.close()
	}
}
