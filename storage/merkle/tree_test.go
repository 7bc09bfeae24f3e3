package merkle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/zeebo/xxh3"

	"kvs/types"
)

// rebuilt makes a tree from nothing but a set of entries.
func rebuilt(entries map[Entry]int) *Tree {
	t := New()
	for e, n := range entries {
		for range n {
			t.Add(e.Hash, e.Digest)
		}
	}
	return t
}

// dumb computes a node's digest from the leaves by recursion, without any of
// the tree's bookkeeping.
func dumb(t *Tree, level int, index uint32) [16]byte {
	if level == Depth {
		l := t.Leaf(index)
		return l.digest()
	}
	var b []byte
	empty := true
	for c := range uint32(Fanout) {
		d := dumb(t, level+1, index*Fanout+c)
		empty = empty && d == [16]byte{}
		b = append(b, d[:]...)
	}
	if empty {
		return [16]byte{}
	}
	return xxh3.Hash128(b).Bytes()
}

func randomEntry(r *rand.Rand) Entry {
	// Few buckets, so that leaves are shared and emptied again.
	bucket := uint64(r.IntN(50)) * 1311
	return Entry{
		Hash:   bucket<<48 | uint64(r.IntN(3)),
		Digest: Digest{^uint64(0) - uint64(r.IntN(3)), ^uint64(0) - uint64(r.IntN(3))},
	}
}

func TestIncrementalEqualsRebuilt(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	tree, held := New(), map[Entry]int{}
	for step := range 4000 {
		e := randomEntry(r)
		if held[e] > 0 && r.IntN(2) == 0 {
			tree.Remove(e.Hash, e.Digest)
			if held[e]--; held[e] == 0 {
				delete(held, e)
			}
		} else {
			tree.Add(e.Hash, e.Digest)
			held[e]++
		}
		// Folding at some steps only leaves marks to pile up at others.
		if r.IntN(10) == 0 {
			tree.Root()
		}
		if step%200 != 0 {
			continue
		}
		fresh := rebuilt(held)
		got, count := tree.Root()
		want, wantCount := fresh.Root()
		if got != want || count != wantCount || !tree.Equal(fresh) || !fresh.Equal(tree) {
			t.Fatalf("step %d: incremental root %x of %d records, rebuilt %x of %d", step, got, count, want, wantCount)
		}
	}
	if root, _ := tree.Root(); root != dumb(tree, 0, 0) {
		t.Fatal("the root is not the hash of what is below it")
	}
	for e, n := range held {
		for range n {
			tree.Remove(e.Hash, e.Digest)
		}
	}
	if root, count := tree.Root(); root != [16]byte{} || count != 0 || !tree.Equal(New()) {
		t.Fatalf("the emptied tree has root %x and %d records", root, count)
	}
}

func TestOrderIsIrrelevant(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	entries := make([]Entry, 300)
	for i := range entries {
		entries[i] = Entry{Hash: r.Uint64(), Digest: Digest{r.Uint64(), r.Uint64()}}
	}
	a, b := New(), New()
	for _, e := range entries {
		a.Add(e.Hash, e.Digest)
	}
	stray := Entry{Hash: 7, Digest: Digest{1, 2}}
	b.Remove(stray.Hash, stray.Digest) // before its Add
	r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for _, e := range entries {
		b.Add(e.Hash, e.Digest)
	}
	b.Add(stray.Hash, stray.Digest)
	rootA, countA := a.Root()
	rootB, countB := b.Root()
	if rootA != rootB || countA != countB {
		t.Fatalf("roots %x (%d) and %x (%d)", rootA, countA, rootB, countB)
	}
}

func TestDescentFindsExactlyTheDifferingBuckets(t *testing.T) {
	a, b := New(), New()
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		h, d := r.Uint64(), Digest{r.Uint64(), r.Uint64()}
		a.Add(h, d)
		b.Add(h, d)
	}
	want := []uint32{0, 15, 16, 4711, 65535}
	for _, i := range want {
		a.Add(uint64(i)<<48, Digest{0, 1})
	}
	nodes := []uint32{0}
	for level := range Depth {
		var next []uint32
		for _, n := range nodes {
			ca, cb := a.Children(level, n), b.Children(level, n)
			for c := range ca {
				child := n*Fanout + uint32(c)
				if ca[c] != a.Node(level+1, child) || ca[c] != dumb(a, level+1, child) {
					t.Fatalf("Children(%d, %d)[%d] differs from the node", level, n, c)
				}
				if ca[c] != cb[c] {
					next = append(next, child)
				}
			}
		}
		nodes = next
	}
	if !slices.Equal(nodes, want) || !slices.Equal(a.Diff(b), want) {
		t.Fatalf("descent found %v, Diff %v, want %v", nodes, a.Diff(b), want)
	}
}

func TestSetLeafRecounts(t *testing.T) {
	a, b := New(), New()
	a.Add(5<<48, Digest{1, 1})
	a.Add(5<<48|9, Digest{2, ^uint64(0)})
	b.Add(5<<48, Digest{9, 9})
	b.SetLeaf(5, Leaf{Count: 2, Sum: Digest{1, 1}.Plus(Digest{2, ^uint64(0)})})
	rootA, countA := a.Root()
	rootB, countB := b.Root()
	if rootA != rootB || countA != countB {
		t.Fatalf("after SetLeaf: root %x (%d), want %x (%d)", rootB, countB, rootA, countA)
	}
	b.SetLeaf(5, Leaf{})
	if root, count := b.Root(); root != [16]byte{} || count != 0 {
		t.Fatalf("after an empty SetLeaf: root %x, %d records", root, count)
	}
}

func TestCountAloneChangesTheRoot(t *testing.T) {
	a, b := New(), New()
	a.SetLeaf(1, Leaf{Count: 1, Sum: Digest{0, 5}})
	b.SetLeaf(1, Leaf{Count: 2, Sum: Digest{0, 5}})
	rootA, _ := a.Root()
	if rootB, _ := b.Root(); rootA == rootB {
		t.Fatal("equal roots in spite of different counts")
	}
}

func TestUpdateIsOneStep(t *testing.T) {
	tree := New()
	tree.Add(1, Digest{0, 1})
	want, _ := tree.Root()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		defer close(stop)
		for range 2000 {
			tree.Update(func(u Updater) { // changes that cancel out
				u.Remove(1, Digest{0, 1})
				u.Add(1<<60, Digest{0, 7})
				u.Remove(1<<60, Digest{0, 7})
				u.Add(1, Digest{0, 1})
			})
		}
	})
	wg.Go(func() {
		for {
			if got, count := tree.Root(); got != want || count != 1 {
				t.Errorf("a reader saw half of an update: root %x, %d records", got, count)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	wg.Wait()
}

func TestDigestArithmetic(t *testing.T) {
	const top = ^uint64(0)
	for _, c := range []struct{ a, b, sum Digest }{
		{Digest{0, 1}, Digest{0, 2}, Digest{0, 3}},
		{Digest{0, top}, Digest{0, 1}, Digest{1, 0}},
		{Digest{top, top}, Digest{0, 1}, Digest{0, 0}},
		{Digest{top, top}, Digest{top, top}, Digest{top, top - 1}},
	} {
		if got := c.a.Plus(c.b); got != c.sum {
			t.Errorf("%x + %x = %x, want %x", c.a, c.b, got, c.sum)
		}
		if got := c.sum.Minus(c.b); got != c.a {
			t.Errorf("%x - %x = %x, want %x", c.sum, c.b, got, c.a)
		}
	}
	if got, want := fmt.Sprintf("%x", Digest{1, 2}.Bytes()), "00000000000000010000000000000002"; got != want {
		t.Errorf("Bytes gives %s, want %s", got, want)
	}
}

func sample() types.Record {
	return types.Record{
		Ref: types.DataRef("users/1"),
		Version: types.Version{
			Timestamp:    types.TimestampOf(1_700_000_000_000) + 3,
			Origin:       types.NodeID(uuid.MustParse("01890000-0000-7000-8000-000000000001")),
			OriginJoined: 1_600_000_000_000,
			UUID:         types.VersionID(uuid.MustParse("01890000-0000-7000-8000-000000000002")),
		},
		PurgeAt: 1_700_000_010_000,
		Value:   []byte(`{"a":1}`),
	}
}

// The values are part of the sync protocol and of the checkpoint format: a
// change of one needs a new version of both.
func TestPinnedHashes(t *testing.T) {
	const (
		pinnedKeyHash = 0x147785fb116bd319
		pinnedRoot    = "7863e350295e2e06cf5c390b1c0e760e"
	)
	pinnedDigest := Digest{0x49d3d46f883228b6, 0x3b19710dcb62d153}
	r := sample()
	if got := KeyHash(r.Ref); got != pinnedKeyHash {
		t.Errorf("KeyHash gives %#x", got)
	}
	if got := RecordDigest(&r); got != pinnedDigest {
		t.Errorf("RecordDigest gives %#x", got)
	}
	tree := New()
	e := EntryOf(&r)
	tree.Add(e.Hash, e.Digest)
	root, _ := tree.Root()
	if got := fmt.Sprintf("%x", root); got != pinnedRoot {
		t.Errorf("the root of the sample alone is %s", got)
	}
}

func TestDigestCoversTheLogicalVersion(t *testing.T) {
	base := sample()
	changes := map[string]func(*types.Record){
		"namespace": func(r *types.Record) { r.NS = types.NSJobs },
		"key":       func(r *types.Record) { r.Key += "x" },
		"timestamp": func(r *types.Record) { r.Timestamp++ },
		"origin":    func(r *types.Record) { r.Origin[15]++ },
		"uuid":      func(r *types.Record) { r.UUID[15]++ },
		"flags":     func(r *types.Record) { r.Flags |= types.FlagRaw },
		"purge_at":  func(r *types.Record) { r.PurgeAt++ },
	}
	for name, change := range changes {
		r := base
		change(&r)
		if RecordDigest(&r) == RecordDigest(&base) {
			t.Errorf("the digest does not cover %s", name)
		}
	}
	r := base
	r.Value, r.ExpiresAt, r.Meta.Owner, r.OriginJoined = nil, 1, "x", 1
	if RecordDigest(&r) != RecordDigest(&base) {
		t.Error("the digest covers more than the version")
	}
	if KeyHash(types.Ref{NS: types.NSData, Key: "k"}) == KeyHash(types.Ref{NS: types.NSAuth, Key: "k"}) {
		t.Error("the key hash does not cover the namespace")
	}
}

func TestHashesDoNotAllocate(t *testing.T) {
	r := sample()
	if n := testing.AllocsPerRun(100, func() { EntryOf(&r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEntryOf(b *testing.B) {
	r := sample()
	for b.Loop() {
		EntryOf(&r)
	}
}

func BenchmarkAdd(b *testing.B) {
	tree := New()
	for i := uint64(0); b.Loop(); i++ {
		tree.Add(i*0x9e3779b97f4a7c15, Digest{i, i})
	}
}

func BenchmarkFoldAll(b *testing.B) {
	tree := New()
	for i := range uint64(Leaves) {
		tree.Add(i<<48, Digest{i, i})
	}
	for b.Loop() {
		for i := range tree.dirty {
			tree.dirty[i] = ^uint64(0)
		}
		tree.Root()
	}
}

func BenchmarkEncode(b *testing.B) {
	tree := New()
	for b.Loop() {
		Encode(tree, 1, 0)
	}
}
