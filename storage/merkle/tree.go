package merkle

import (
	"fmt"
	"math/bits"
	"sync"

	"github.com/zeebo/xxh3"
)

// The shape of the tree.
const (
	Leaves = 1 << leafBits // nodes of level Depth
	Fanout = 16            // children of a node
	Depth  = 4             // level of the leaves; the root is level 0

	leafBits = 16
)

// Leaf is a bucket: how many records it has, and the sum of their digests.
type Leaf struct {
	Count uint64
	Sum   Digest
}

// digest is what the leaf contributes to its parent. It covers the count, so
// that no counting error hides below equal sums; by addition, because hashing
// each leaf would make a full fold several times dearer.
func (l *Leaf) digest() [16]byte { return l.Sum.Plus(Digest{l.Count, 0}).Bytes() }

// Tree is the digest tree. It is safe for concurrent use.
//
// Inner nodes are folded when somebody asks for one: a change costs two
// additions and a mark, and however many changes come between two readers,
// each inner node is hashed once.
type Tree struct {
	mu     sync.Mutex // guards everything below
	count  uint64     // sum of the leaves' counts
	leaves [Leaves]Leaf

	// Inner nodes, by level. dirty marks those of level 3 that stand above a
	// changed leaf; what is stale above them follows from it.
	root   [1][16]byte
	level1 [Fanout][16]byte
	level2 [Fanout * Fanout][16]byte
	level3 [Leaves / Fanout][16]byte
	dirty  [Leaves / Fanout / 64]uint64
}

// New gives an empty tree.
func New() *Tree { return &Tree{} }

// Bucket gives the leaf of a key hash.
func Bucket(hash uint64) uint32 { return uint32(hash >> (64 - leafBits)) }

// Updater changes a tree within Update.
type Updater struct{ t *Tree }

// Update makes several changes one step: no reader sees some of them only. The
// updater is not valid after fn returns, and fn must not call the tree.
func (t *Tree) Update(fn func(u Updater)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(Updater{t})
}

// Add puts a record in.
func (u Updater) Add(hash uint64, d Digest) {
	l := u.t.touch(Bucket(hash))
	l.Count++
	l.Sum = l.Sum.Plus(d)
	u.t.count++
}

// Remove takes a record out. Counts and sums are modular: Remove before the Add
// that it undoes leaves the same tree.
func (u Updater) Remove(hash uint64, d Digest) {
	l := u.t.touch(Bucket(hash))
	l.Count--
	l.Sum = l.Sum.Minus(d)
	u.t.count--
}

// Add puts one record in. Use Update for changes that belong together.
func (t *Tree) Add(hash uint64, d Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	Updater{t}.Add(hash, d)
}

// Remove takes one record out. Use Update for changes that belong together.
func (t *Tree) Remove(hash uint64, d Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	Updater{t}.Remove(hash, d)
}

// Leaf gives bucket i.
func (t *Tree) Leaf(i uint32) Leaf {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leaves[i]
}

// SetLeaf replaces bucket i, after a recount of its records.
func (t *Tree) SetLeaf(i uint32, l Leaf) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count += l.Count - t.leaves[i].Count
	*t.touch(i) = l
}

// Root gives the root's digest and how many records the tree holds.
func (t *Tree) Root() (digest [16]byte, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fold()
	return t.root[0], t.count
}

// Node gives the digest of a node, zero for an empty subtree. It panics if
// there is no such node: indexes from the network are checked by the decoder.
func (t *Tree) Node(level int, index uint32) [16]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if level == Depth {
		return t.leaves[index].digest()
	}
	t.fold()
	return t.inner(level)[index]
}

// Children gives the digests of a node's children, which are the nodes
// 16*index to 16*index+15 of the next level; zero for empty subtrees. It panics
// if there is no such node or it is a leaf.
func (t *Tree) Children(level int, index uint32) (digests [Fanout][16]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := int(index) * Fanout
	if level == Depth-1 {
		for i := range digests {
			digests[i] = t.leaves[first+i].digest()
		}
		return digests
	}
	t.fold()
	copy(digests[:], t.inner(level + 1)[first:first+Fanout])
	return digests
}

// Clone gives a copy of the leaves, the inner nodes to be folded when asked.
func (t *Tree) Clone() *Tree {
	u := New()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, l := range t.leaves {
		if l != (Leaf{}) {
			*u.touch(uint32(i)) = l
			u.count += l.Count
		}
	}
	return u
}

// Equal reports whether both trees hold the same.
func (t *Tree) Equal(u *Tree) bool { return len(t.Diff(u)) == 0 }

// Diff lists the buckets that differ, in order.
func (t *Tree) Diff(u *Tree) []uint32 {
	// A copy, because holding both locks would need an order among trees.
	u.mu.Lock()
	other := u.leaves
	u.mu.Unlock()

	t.mu.Lock()
	defer t.mu.Unlock()
	var differ []uint32
	for i := range t.leaves {
		if t.leaves[i] != other[i] {
			differ = append(differ, uint32(i))
		}
	}
	return differ
}

// touch gives leaf i to a writer. t.mu is held.
func (t *Tree) touch(i uint32) *Leaf {
	t.dirty[i/Fanout/64] |= 1 << (i / Fanout % 64)
	return &t.leaves[i]
}

// inner gives the nodes of an inner level. t.mu is held.
func (t *Tree) inner(level int) [][16]byte {
	switch level {
	case 0:
		return t.root[:]
	case 1:
		return t.level1[:]
	case 2:
		return t.level2[:]
	case 3:
		return t.level3[:]
	}
	panic(fmt.Sprintf("merkle: there is no inner level %d", level))
}

// fold brings the inner nodes up to date. t.mu is held.
func (t *Tree) fold() {
	var stale2 [Fanout * Fanout / 64]uint64 // marks of level 2
	var stale1 uint64                       // marks of level 1
	for w, marks := range t.dirty {
		for ; marks != 0; marks &= marks - 1 {
			i := w*64 + bits.TrailingZeros64(marks)
			var children [Fanout][16]byte
			for c := range children {
				children[c] = t.leaves[i*Fanout+c].digest()
			}
			t.level3[i] = foldNode(children[:])
			stale2[i/Fanout/64] |= 1 << (i / Fanout % 64)
		}
		t.dirty[w] = 0
	}
	for w, marks := range stale2 {
		for ; marks != 0; marks &= marks - 1 {
			i := w*64 + bits.TrailingZeros64(marks)
			t.level2[i] = foldNode(t.level3[i*Fanout : (i+1)*Fanout])
			stale1 |= 1 << (i / Fanout)
		}
	}
	if stale1 == 0 {
		return
	}
	for marks := stale1; marks != 0; marks &= marks - 1 {
		i := bits.TrailingZeros64(marks)
		t.level1[i] = foldNode(t.level2[i*Fanout : (i+1)*Fanout])
	}
	t.root[0] = foldNode(t.level1[:])
}

// foldNode gives the digest of a node from its children's: XXH3-128 of the
// sixteen, or zero if all are.
func foldNode(children [][16]byte) [16]byte {
	var b [Fanout * 16]byte
	for i := range children {
		copy(b[i*16:], children[i][:])
	}
	if b == [Fanout * 16]byte{} {
		return [16]byte{}
	}
	return xxh3.Hash128(b[:]).Bytes()
}
