package tamperlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

func testKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

// checkpointOf gives a checkpoint whose head and time follow from n and line.
func checkpointOf(key ed25519.PrivateKey, n uint64, line byte) Checkpoint {
	c := Checkpoint{Node: types.NodeID{7}, N: n, Head: Hash{line, byte(n), byte(n >> 8)}, Time: int64(1000*int(line) + int(n))}
	c.sign(key)
	return c
}

func sampleCheckpoint() Checkpoint {
	c := checkpointOf(testKey(3), 300, 1)
	c.Time = 1_700_000_000_000
	c.sign(testKey(3))
	return c
}

// The bytes of version 1 travel between nodes and are on disks.
func TestGoldenCheckpoint(t *testing.T) {
	c := sampleCheckpoint()
	golden(t, "testdata/checkpoint-v1.hex", c.Encode())
	got, err := DecodeCheckpoint(c.Encode())
	if err != nil || got != c || !got.Verify() {
		t.Errorf("%+v, %v, want %+v", got, err, c)
	}
}

// Every flipped bit and every cut is noticed, by the decoder or the signature.
func TestDamagedCheckpoint(t *testing.T) {
	c := sampleCheckpoint()
	good := c.Encode()
	for i := range good {
		bad := bytes.Clone(good)
		for bit := range 8 {
			bad[i] = good[i] ^ 1<<bit
			if got, err := DecodeCheckpoint(bad); err == nil && got.Verify() {
				t.Fatalf("bit %d of byte %d flipped: %+v", bit, i, got)
			}
		}
		if _, err := DecodeCheckpoint(good[:i]); !errors.Is(err, types.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeCheckpoint(append(good, 0)); !errors.Is(err, types.ErrCorrupt) {
		t.Error("a byte too many was not noticed")
	}
	for name, c := range map[string]Checkpoint{"number 0": {}, "a large number": {N: maxNumber + 1}, "before 1970": {N: 1, Time: -1}} {
		if _, err := DecodeCheckpoint(c.Encode()); !errors.Is(err, types.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeCheckpoint(f *testing.F) {
	c := sampleCheckpoint()
	f.Add(c.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCheckpoint(b)
		if err != nil {
			if !errors.Is(err, types.ErrCorrupt) {
				t.Fatalf("error %v is not ErrCorrupt", err)
			}
			return
		}
		if again := c.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("decoded and encoded again:\n%x\nfrom\n%x", again, b)
		}
		c.Verify()
	})
}

// take hands checkpoints over, each of which must be taken.
func (n *node) take(list ...Checkpoint) {
	n.t.Helper()
	for _, c := range list {
		if err := n.witness.Take(n.t.Context(), c.Node, c.Encode()); err != nil {
			n.t.Fatal(err)
		}
	}
}

func TestTake(t *testing.T) {
	key, stolen := testKey(1), testKey(2)
	cp := func(n uint64, line byte) Checkpoint { return checkpointOf(key, n, line) }
	for name, c := range map[string]struct {
		given     []Checkpoint
		kept      []Checkpoint
		conflicts uint64
	}{
		"it grows":            {[]Checkpoint{cp(1, 0), cp(5, 0), cp(9, 0)}, []Checkpoint{cp(1, 0), cp(5, 0), cp(9, 0)}, 0},
		"twice":               {[]Checkpoint{cp(5, 0), cp(5, 0), cp(5, 0)}, []Checkpoint{cp(5, 0)}, 0},
		"an old one again":    {[]Checkpoint{cp(1, 0), cp(5, 0), cp(1, 0)}, []Checkpoint{cp(1, 0), cp(5, 0)}, 0},
		"one comes late":      {[]Checkpoint{cp(1, 0), cp(5, 0), cp(3, 0)}, []Checkpoint{cp(1, 0), cp(5, 0)}, 0},
		"another head":        {[]Checkpoint{cp(5, 0), cp(5, 1)}, []Checkpoint{cp(5, 0), cp(5, 1)}, 1},
		"another head before": {[]Checkpoint{cp(3, 0), cp(5, 0), cp(3, 1)}, []Checkpoint{cp(3, 0), cp(5, 0), cp(3, 1)}, 1},
		"a shorter log": {[]Checkpoint{cp(5, 0), cp(3, 1), cp(4, 1), cp(9, 1)},
			[]Checkpoint{cp(5, 0), cp(3, 1), cp(4, 1), cp(9, 1)}, 1},
		"the old line again": {[]Checkpoint{cp(5, 0), cp(3, 1), cp(5, 0), cp(4, 1)}, []Checkpoint{cp(5, 0), cp(3, 1), cp(4, 1)}, 1},
		"another key": {[]Checkpoint{cp(5, 0), checkpointOf(stolen, 6, 0), checkpointOf(stolen, 7, 0)},
			[]Checkpoint{cp(5, 0), checkpointOf(stolen, 6, 0), checkpointOf(stolen, 7, 0)}, 1},
		// Who has not the key cannot disturb what is kept under it.
		"another key in between": {[]Checkpoint{cp(5, 0), checkpointOf(stolen, 1<<40, 1), cp(6, 0), checkpointOf(stolen, 1<<50, 1), cp(7, 0)},
			[]Checkpoint{cp(5, 0), cp(6, 0), cp(7, 0), checkpointOf(stolen, 1<<40, 1), checkpointOf(stolen, 1<<50, 1)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := openNode(t, "")
			n.take(c.given...)
			// What Take answered is on disk, and is gone on with.
			for range 2 {
				if got := n.list(types.NodeID{7}); !reflect.DeepEqual(got, c.kept) {
					t.Errorf("kept\n%+v, want\n%+v", got, c.kept)
				}
				if s := n.witness.Stats(); s.Conflicts != c.conflicts || s.Witnessed != uint64(len(c.kept)) || s.Refused != 0 {
					t.Errorf("stats %+v", s)
				}
				stats := n.witness.stats
				n = n.reopen()
				n.take(c.kept...)
				n.witness.stats = stats // of before the start, since those given again count for nothing
			}
			if len(n.entries(Filter{})) == 0 {
				t.Error("the log and the checkpoints do not get on in one keyspace")
			}
			n.sound(VerifyOptions{})
		})
	}
}

func TestTakeRefuses(t *testing.T) {
	n := openNode(t, "")
	c := checkpointOf(testKey(1), 5, 0)
	forged := c
	forged.N++
	own := c
	own.Node = n.id()
	own.sign(testKey(1))
	for name, call := range map[string]struct {
		from    types.NodeID
		encoded []byte
		want    error
	}{
		"another node's":  {types.NodeID{8}, c.Encode(), ErrForged},
		"its own":         {own.Node, own.Encode(), ErrForged},
		"a bad signature": {c.Node, forged.Encode(), ErrForged},
		"no checkpoint":   {c.Node, []byte("x"), types.ErrCorrupt},
		"nothing":         {c.Node, nil, types.ErrCorrupt},
	} {
		if err := n.witness.Take(t.Context(), call.from, call.encoded); !errors.Is(err, call.want) {
			t.Errorf("%s: %v, want %v", name, err, call.want)
		}
	}
	if got := n.list(types.NodeID{7}); len(got) != 0 {
		t.Errorf("kept %+v", got)
	}
	if s := n.witness.Stats(); s != (WitnessStats{Refused: 5}) {
		t.Errorf("stats %+v", s)
	}
	if err := NewWitness(WitnessOptions{}).Take(t.Context(), c.Node, c.Encode()); err == nil {
		t.Error("a witness that is not started took a checkpoint")
	}
	if _, err := NewWitness(WitnessOptions{}).List(c.Node); err == nil {
		t.Error("a witness that is not started gave a list")
	}
}

// However often a node contradicts itself, what is kept is bounded, and the
// first and the latest line stay.
func TestEvidenceIsBounded(t *testing.T) {
	n := openNode(t, "")
	key := testKey(1)
	for line := range byte(20) {
		n.take(checkpointOf(key, 5, line), checkpointOf(key, 6, line))
	}
	got := n.list(types.NodeID{7})
	if len(got) != 2*maxLines || got[0] != checkpointOf(key, 5, 0) || got[len(got)-1] != checkpointOf(key, 6, 19) {
		t.Errorf("kept %+v", got)
	}
	if s := n.witness.Stats(); s.Conflicts != 19 {
		t.Errorf("stats %+v", s)
	}
	for k := range byte(20) {
		c := checkpointOf(testKey(100+k), 5, 0)
		if err := n.witness.Take(t.Context(), c.Node, c.Encode()); (err == nil) != (int(k) < maxKeys-1) || err != nil && !errors.Is(err, ErrTooManyLines) {
			t.Errorf("key %d: %v", k, err)
		}
	}
	n.take(checkpointOf(key, 7, 19))
	n = n.reopen()
	n.take(checkpointOf(key, 8, 19))
	got = n.list(types.NodeID{7})
	if want := 2*maxLines + 2 + maxKeys - 1; len(got) != want {
		t.Errorf("%d checkpoints are kept, want %d", len(got), want)
	}
}

// Of a long line the newest and one an hour are kept, whatever the node says of
// the time, and a start changes nothing.
func TestThinning(t *testing.T) {
	n := openNode(t, "")
	key := testKey(1)
	now := time.Unix(1_700_000_000, 0).Truncate(time.Hour)
	n.witness.opts.Now = func() time.Time { return now }
	var want []uint64
	const step, total = 3 * time.Minute, 1200 // 60 hours
	for i := range uint64(total) {
		c := Checkpoint{Node: types.NodeID{7}, N: i + 1, Head: Hash{byte(i)}, Time: int64(i) * 7_200_000} // it claims two hours each
		c.sign(key)
		if i == total/2 {
			n = n.reopen()
			n.witness.opts.Now = func() time.Time { return now }
		}
		n.take(c)
		if i%20 == 0 || i >= total-keepNewest {
			want = append(want, c.N)
		}
		now = now.Add(step)
	}
	var got []uint64
	for _, c := range n.list(types.NodeID{7}) {
		got = append(got, c.N)
	}
	if !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	lines := n.witness.nodes[types.NodeID{7}]
	if n = n.reopen(); !reflect.DeepEqual(n.witness.nodes[types.NodeID{7}], lines) {
		t.Error("after a start the witness knows something else")
	}
}

// The hourly ones are bounded too; the first stays.
func TestHourlyBound(t *testing.T) {
	var l line
	dropped := map[uint64]bool{}
	const total = keepHourly + keepNewest + 500
	for i := range uint64(total) {
		c := Checkpoint{N: i + 1}
		for _, n := range l.add(&c, int64(i)*hourMillis) {
			if dropped[n] {
				t.Fatalf("%d is dropped twice", n)
			}
			dropped[n] = true
		}
	}
	if len(l.marks) != keepHourly+keepNewest || l.marks[0].n != 1 || len(dropped) != 500 || !dropped[2] || !dropped[501] || l.marks[1].n != 502 {
		t.Errorf("%d kept, from %d and %d on, %d dropped", len(l.marks), l.marks[0].n, l.marks[1].n, len(dropped))
	}
}

// A Take that could not be written is not answered with success, and the next
// one makes up for it.
func TestTakeOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		free.Store(1 << 40)
		w := NewWitness(WitnessOptions{})
		s := storagetest.Open(t, storage.Options{Hooks: []storage.Hook{w}, MinFreeDisk: 1 << 30,
			FreeDisk: func(string) (int64, error) { return free.Load(), nil }})
		if err := w.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		free.Store(1 << 20)
		time.Sleep(2 * time.Second)
		list := func() []Checkpoint {
			got, err := w.List(types.NodeID{7})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		c := checkpointOf(testKey(1), 5, 0)
		for range 2 {
			if err := w.Take(t.Context(), c.Node, c.Encode()); !errors.Is(err, types.ErrDiskFull) {
				t.Errorf("%v", err)
			}
		}
		if got := list(); len(got) != 0 {
			t.Errorf("kept %+v", got)
		}
		free.Store(1 << 40)
		time.Sleep(2 * time.Second)
		if err := w.Take(t.Context(), c.Node, c.Encode()); err != nil {
			t.Fatal(err)
		}
		if got := list(); !reflect.DeepEqual(got, []Checkpoint{c}) {
			t.Errorf("kept %+v", got)
		}
	})
}

// Where a call was given up, it is not known whether the checkpoint was written;
// the same one again is.
func TestTakeCancelled(t *testing.T) {
	n := openNode(t, "")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range uint64(20) {
		c := checkpointOf(testKey(1), i+1, 0)
		if err := n.witness.Take(cancelled, c.Node, c.Encode()); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		n.take(c)
		if got := n.list(c.Node); len(got) != int(i+1) || got[i] != c {
			t.Fatalf("kept %+v", got)
		}
	}
}

// Checkpoints that come at once are all kept.
func TestTakeConcurrently(t *testing.T) {
	n := openNode(t, "")
	var wg sync.WaitGroup
	for g := range byte(8) {
		wg.Go(func() {
			for i := range uint64(50) {
				c := Checkpoint{Node: types.NodeID{g + 1}, N: i + 1, Time: int64(i)}
				c.sign(testKey(g))
				if err := n.witness.Take(t.Context(), c.Node, c.Encode()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for g := range byte(8) {
		if got := n.list(types.NodeID{g + 1}); len(got) != 50 {
			t.Errorf("node %d: %d checkpoints", g, len(got))
		}
	}
	if len(n.witness.pending) != 0 {
		t.Errorf("%d changes still wait", len(n.witness.pending))
	}
}

// A damaged checkpoint is left out; those around it are there.
func TestDamagedWitnessed(t *testing.T) {
	n := openNode(t, "")
	key := testKey(1)
	n.take(checkpointOf(key, 1, 0), checkpointOf(key, 2, 0), checkpointOf(key, 3, 0))
	id := lineID{node: types.NodeID{7}}
	n.attack(func(tx *storage.HookTx) {
		tx.Set(id.key(2), []byte("rubbish"))
		c := checkpointOf(key, 9, 0)
		tx.Set(id.key(4), append(make([]byte, 8), c.Encode()...)) // under another number
	})
	n = n.reopen()
	if got := n.list(types.NodeID{7}); !reflect.DeepEqual(got, []Checkpoint{checkpointOf(key, 1, 0), checkpointOf(key, 3, 0)}) {
		t.Errorf("%+v", got)
	}
	n.take(checkpointOf(key, 4, 0))
	if got := n.list(types.NodeID{7}); len(got) != 3 {
		t.Errorf("%+v", got)
	}
}

// A node that cuts and rewrites its log, and goes on, is found out by who
// witnessed it: when it happens, and when its log is verified.
func TestRewriterIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n, w := openNode(t, ""), openNode(t, "")
		for i := range 10 {
			storagetest.Put(t, n.store, types.Key(fmt.Sprint(i)), `1`)
			n.witnessedBy(w)
		}
		if s := w.witness.Stats(); s.Conflicts != 0 {
			t.Fatalf("%+v", s)
		}
		n.replace(n.blocks()[:5])
		n = n.reopen()
		n.flush()
		n.witnessedBy(w)
		if s := w.witness.Stats(); s.Conflicts != 1 {
			t.Errorf("a shorter log: %+v", s)
		}
		for i := range 10 {
			storagetest.Put(t, n.store, types.Key(fmt.Sprint(i)), `2`)
			n.witnessedBy(w)
		}
		if s := w.witness.Stats(); s.Conflicts != 1 || s.Witnessed != 21 {
			t.Errorf("%+v", s)
		}
		if r := n.sound(VerifyOptions{}); len(r.Gaps) != 1 {
			t.Errorf("gaps %+v", r.Gaps)
		}
		r := n.verify(VerifyOptions{Witnessed: w.list(n.id())})
		if len(r.Problems) == 0 || r.Problems[0].Kind != KindRewritten || r.Problems[0].First != 7 || r.WitnessedTo != r.Last {
			t.Errorf("to %d of %d, %+v", r.WitnessedTo, r.Last, r.Problems)
		}
	})
}
