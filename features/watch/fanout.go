package watch

import (
	"slices"
	"sync"

	"kvs/types"
)

// fanout is the ring of encoded events, and who waits for which of them.
//
// Whoever watches one prefix is in one group. An event costs one look-up for each
// length that some group's prefix has, and eight bytes for each group that it
// concerns, however many subscribers that has.
type fanout struct {
	limit int // of bytes

	mu      sync.RWMutex // guards what follows, and the groups
	groups  map[types.Key]*group
	lengths []int       // of the groups' prefixes, ascending
	byLen   map[int]int // groups by the length of their prefix
	ring    []*event    // ring[0] has the number first
	first   uint64
	bytes   int
	touched []*group // have got events since the last wake

	seq    uint64 // every commit up to this one is in the ring, or was
	time   int64  // Unix ms; so is every expiry up to this time
	epoch  int    // changes when the ring lost its thread: subscribers catch up
	closed bool
}

// event is an event that somebody wants to know.
type event struct {
	data  []byte // encoded
	place Place
	kind  Kind
	rec   types.Record // without value
}

// group is who watches one prefix.
type group struct {
	prefix  types.Key
	members int
	// numbers are those of the group's events in the ring, ascending; lost is
	// that of its newest event that is not in the ring any more.
	numbers []uint64
	lost    uint64
	wake    chan struct{} // closed when the group has got events
	dirty   bool          // it is in touched
}

// eventWeight is what an event weighs beside its bytes and its key, and
// groupWeight what it weighs in a group.
const (
	eventWeight = 256
	groupWeight = 8
)

func newFanout(limit int) *fanout {
	return &fanout{limit: limit, groups: make(map[types.Key]*group), byLen: make(map[int]int), first: 1}
}

// matching calls fn with the groups that a key concerns. mu is held.
func (f *fanout) matching(key types.Key, fn func(*group)) {
	for _, n := range f.lengths {
		if n > len(key) {
			return
		}
		if g := f.groups[key[:n]]; g != nil {
			fn(g)
		}
	}
}

// wanted reports whether anybody watches a key.
func (f *fanout) wanted(key types.Key) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	found := false
	f.matching(key, func(*group) { found = true })
	return found
}

// add appends an event, and drops the oldest ones beyond the limit.
func (f *fanout) add(e *event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	number := f.first + uint64(len(f.ring))
	f.ring = append(f.ring, e)
	f.bytes += weightOf(e)
	f.matching(e.rec.Key, func(g *group) {
		g.numbers = append(g.numbers, number)
		f.bytes += groupWeight
		if !g.dirty {
			g.dirty = true
			f.touched = append(f.touched, g)
		}
	})
	drop := 0
	for f.bytes > f.limit && drop < len(f.ring)-1 {
		f.drop(f.ring[drop])
		f.ring[drop] = nil
		drop++
	}
	f.ring = f.ring[drop:]
}

func weightOf(e *event) int { return eventWeight + len(e.data) + len(e.rec.Key) }

// drop takes the oldest event, whose number is first, from its groups. mu is
// held.
func (f *fanout) drop(e *event) {
	f.bytes -= weightOf(e)
	f.matching(e.rec.Key, func(g *group) {
		if len(g.numbers) > 0 && g.numbers[0] == f.first {
			g.numbers, g.lost = g.numbers[1:], f.first
			f.bytes -= groupWeight
		}
	})
	f.first++
}

// wake wakes those for whom there are events.
func (f *fanout) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.touched {
		g.rouse()
	}
	clear(f.touched)
	f.touched = f.touched[:0]
}

// wakeAll wakes everybody, after change.
func (f *fanout) wakeAll(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	for _, g := range f.groups {
		g.rouse()
	}
}

func (g *group) rouse() {
	close(g.wake)
	g.wake, g.dirty = make(chan struct{}), false
}

// reached says how far the ring goes.
func (f *fanout) reached(seq uint64, time int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq, f.time = seq, time
}

// join makes one more member of the group of a prefix.
func (f *fanout) join(prefix types.Key) *group {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[prefix]
	if g == nil {
		g = &group{prefix: prefix, wake: make(chan struct{})}
		f.groups[prefix] = g
		if f.byLen[len(prefix)]++; f.byLen[len(prefix)] == 1 {
			i, _ := slices.BinarySearch(f.lengths, len(prefix))
			f.lengths = slices.Insert(f.lengths, i, len(prefix))
		}
	}
	g.members++
	return g
}

// leave undoes join.
func (f *fanout) leave(g *group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g.members--; g.members > 0 {
		return
	}
	delete(f.groups, g.prefix)
	f.bytes -= groupWeight * len(g.numbers)
	if f.byLen[len(g.prefix)]--; f.byLen[len(g.prefix)] == 0 {
		delete(f.byLen, len(g.prefix))
		i, _ := slices.BinarySearch(f.lengths, len(g.prefix))
		f.lengths = slices.Delete(f.lengths, i, i+1)
	}
	if len(f.groups) == 0 {
		f.first += uint64(len(f.ring))
		f.ring, f.bytes = nil, 0
	}
}

// view is what a member sees of the ring.
type view struct {
	events []*event
	cursor uint64 // the number of the last event that was looked at
	all    bool   // there is no later event; then
	end    Place  // everything before it is in events, or was before them
	lost   bool   // events behind the cursor are not in the ring any more
	epoch  int
	closed bool
}

// after gives the events of a group behind a cursor: most bytes of them, but one
// at least.
func (f *fanout) after(g *group, cursor uint64, most int) view {
	f.mu.RLock()
	defer f.mu.RUnlock()
	v := view{cursor: cursor, epoch: f.epoch, closed: f.closed, lost: g.lost > cursor}
	if v.lost || v.closed {
		return v
	}
	i, _ := slices.BinarySearch(g.numbers, cursor+1)
	for size := 0; i < len(g.numbers); i++ {
		e := f.ring[g.numbers[i]-f.first]
		if size += len(e.data); size > most && len(v.events) > 0 {
			return v
		}
		v.events = append(v.events, e)
		v.cursor = g.numbers[i]
	}
	v.all, v.end = true, behindAt(f.seq, f.time)
	v.cursor = f.first + uint64(len(f.ring)) - 1
	return v
}

// ready gives a channel that is closed when the group gets events.
func (f *fanout) ready(g *group) <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return g.wake
}
