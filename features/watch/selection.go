package watch

import (
	"cmp"
	"container/heap"
	"slices"

	"kvs/types"
)

// selection finds the first keys of a scan in the order of commits, though the
// scan comes in the order of keys, within bounded memory: as many as there is
// room for, and with the next scan those that follow.
type selection struct {
	room   int64 // bytes
	bytes  int64
	found  keyHeap // the last one first
	after  changedKey
	sorted []changedKey // what was found, in order; taken from the front
	// complete says that nothing comes after what was found. If it does not,
	// limit is the first key that there was no room for, and nothing from there
	// on is found.
	complete bool
	limit    changedKey
}

// changedKey is a key and the commit that changed it last.
type changedKey struct {
	seq uint64
	key types.Key
}

// keyWeight is what a key weighs beside its bytes.
const keyWeight = 48

func (k changedKey) weight() int64 { return keyWeight + int64(len(k.key)) }

func (k changedKey) compare(o changedKey) int {
	return cmp.Or(cmp.Compare(k.seq, o.seq), cmp.Compare(k.key, o.key))
}

// begin goes on behind the last key that was found.
func (s *selection) begin(room int64) {
	s.room, s.bytes, s.found, s.complete = room, 0, s.found[:0], true
}

// offer is given what a scan finds.
func (s *selection) offer(seq uint64, key []byte) bool {
	if s.after.before(seq, key) && (s.complete || !s.limit.before(seq, key)) {
		k := changedKey{seq, types.Key(key)}
		heap.Push(&s.found, k)
		s.bytes += k.weight()
		for s.bytes > s.room && len(s.found) > 1 {
			s.limit, s.complete = heap.Pop(&s.found).(changedKey), false
			s.bytes -= s.limit.weight()
		}
	}
	return true
}

// before reports whether a key that is not k comes after it.
func (k changedKey) before(seq uint64, key []byte) bool {
	return seq > k.seq || seq == k.seq && string(key) > string(k.key)
}

// sort ends the scan.
func (s *selection) sort() {
	slices.SortFunc(s.found, changedKey.compare)
	s.sorted = s.found
	if len(s.sorted) > 0 {
		s.after = s.sorted[len(s.sorted)-1]
	}
}

// take gives the next key.
func (s *selection) take() changedKey {
	k := s.sorted[0]
	s.sorted = s.sorted[1:]
	return k
}

// ends reports whether no key of a commit follows what was taken.
func (s *selection) ends(seq uint64) bool {
	if len(s.sorted) > 0 {
		return s.sorted[0].seq != seq
	}
	return s.complete
}

// keyHeap is a heap.Interface, the last one first.
type keyHeap []changedKey

func (h keyHeap) Len() int           { return len(h) }
func (h keyHeap) Less(i, j int) bool { return h[i].compare(h[j]) > 0 }
func (h keyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *keyHeap) Push(e any)        { *h = append(*h, e.(changedKey)) }
func (h *keyHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = changedKey{}
	*h = old[:len(old)-1]
	return e
}
