package replication

import (
	"context"
	"sync"

	"kvs/types"
)

// acks tells writers how many peers hold their version.
//
// While a peer follows the ring, an acknowledged cursor at or past a version's
// commit proves that the peer has it. Where commits were caught up by a scan it
// proves less: a scan sends what is current, which need not descend from the
// version. So each peer has a floor, below which the cursor proves nothing; a
// version there that somebody waits for is pushed once more by itself (an
// extra). That is rare, harmless, and needs no memory of what was sent.
type acks struct {
	mu      sync.Mutex // guards all below
	peers   map[types.NodeID]*delivery
	waiters map[*waiter]struct{}
	change  chan struct{} // closed and replaced when a cursor moves
}

// delivery is what one peer has acknowledged.
type delivery struct {
	cursor  uint64                       // all that this node originated up to here was pushed and answered
	floor   uint64                       // up to here that proves nothing about a version
	idle    uint64                       // at this commit there was nothing more to push
	refused map[types.VersionID]struct{} // above floor, pushed but not stored by the peer
	extras  map[*waiter]struct{}         // to push by themselves
	wake    chan struct{}                // holds one token while there are extras
}

// maxRefused bounds the refused versions remembered per peer.
const maxRefused = 1024

type waiter struct {
	rec   types.Record
	seq   uint64
	n     int
	acked int
	state map[types.NodeID]waitState
	done  chan struct{} // closed when acked reaches n
}

type waitState byte

const (
	waiting waitState = iota // for the cursor
	extra                    // pushed by itself
	settled                  // acknowledged, or refused
)

func newAcks() *acks {
	return &acks{
		peers:   map[types.NodeID]*delivery{},
		waiters: map[*waiter]struct{}{},
		change:  make(chan struct{}),
	}
}

// add begins to count a peer whose cursor stands at cursor.
func (a *acks) add(id types.NodeID, cursor uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.peers[id] = &delivery{
		cursor: cursor, floor: cursor,
		refused: map[types.VersionID]struct{}{}, extras: map[*waiter]struct{}{},
		wake: make(chan struct{}, 1),
	}
	for w := range a.waiters {
		if w.state[id] == extra { // of a delivery that was removed meanwhile
			delete(w.state, id)
		}
		a.settle(w, id)
	}
}

func (a *acks) remove(id types.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.peers, id)
}

// await is Replicator.Await.
func (a *acks) await(ctx context.Context, rec types.Record, seq uint64, n int) (int, error) {
	if n <= 0 {
		return 0, nil
	}
	w := &waiter{rec: rec, seq: seq, n: n, state: map[types.NodeID]waitState{}, done: make(chan struct{})}
	a.mu.Lock()
	a.waiters[w] = struct{}{}
	for id := range a.peers {
		a.settle(w, id)
	}
	a.mu.Unlock()

	var err error
	select {
	case <-w.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiters, w)
	for _, d := range a.peers {
		delete(d.extras, w)
	}
	if w.acked >= w.n {
		err = nil
	}
	return w.acked, err
}

// settle decides what the peer's cursor says about a waiter. a.mu is held.
func (a *acks) settle(w *waiter, id types.NodeID) {
	d := a.peers[id]
	if w.state[id] != waiting || w.seq > d.cursor {
		return
	}
	if w.seq <= d.floor {
		w.state[id] = extra
		d.extras[w] = struct{}{}
		select {
		case d.wake <- struct{}{}:
		default:
		}
		return
	}
	w.settle(id, !contains(d.refused, w.rec.UUID))
}

func contains(set map[types.VersionID]struct{}, id types.VersionID) bool {
	_, ok := set[id]
	return ok
}

// settle notes the peer's last word on the version. acks.mu is held.
func (w *waiter) settle(id types.NodeID, acked bool) {
	w.state[id] = settled
	if !acked {
		return
	}
	if w.acked++; w.acked == w.n {
		close(w.done)
	}
}

// delivered notes that the peer has answered a push of units, refusing what
// refused names: for these, any version of the ref in the push counts as
// refused.
func (a *acks) delivered(id types.NodeID, units [][]types.Record, refused map[types.Ref]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.peers[id]
	if d == nil || len(refused) == 0 && len(a.waiters) == 0 {
		return
	}
	if len(refused) > 0 {
		for _, unit := range units {
			for i := range unit {
				if refused[unit[i].Ref] {
					d.refused[unit[i].UUID] = struct{}{}
				}
			}
		}
	}
	// Waiters are few, at most one for each request under way, and only those
	// that the cursor will not settle need to be looked for.
	byRef := map[types.Ref][]*waiter{}
	for w := range a.waiters {
		if w.state[id] == extra || w.state[id] == waiting {
			byRef[w.rec.Ref] = append(byRef[w.rec.Ref], w)
		}
	}
	if len(byRef) == 0 {
		return
	}
	for _, unit := range units {
		for i := range unit {
			for _, w := range byRef[unit[i].Ref] {
				if w.state[id] == settled || unit[i].UUID != w.rec.UUID && !unit[i].Context.Covers(w.rec.Version) {
					continue
				}
				delete(d.extras, w)
				w.settle(id, !refused[unit[i].Ref])
			}
		}
	}
}

// advance moves the peer's cursor and floor, neither of which goes back.
func (a *acks) advance(id types.NodeID, cursor, floor uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.peers[id]
	if d == nil {
		return
	}
	d.cursor, d.floor = max(d.cursor, cursor), max(d.floor, floor)
	for w := range a.waiters {
		a.settle(w, id)
	}
	if len(d.refused) > maxRefused {
		// Forget them, and with them that the cursor proves anything so far.
		d.floor = d.cursor
		clear(d.refused)
	}
	a.broadcast()
}

// idleAt notes that up to seq nothing is left to push.
func (a *acks) idleAt(id types.NodeID, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.peers[id]; d != nil && d.idle < seq {
		d.idle = seq
		a.broadcast()
	}
}

// broadcast wakes those who called moved. a.mu is held.
func (a *acks) broadcast() {
	close(a.change)
	a.change = make(chan struct{})
}

// moved gives a channel that is closed when a cursor moves.
func (a *acks) moved() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.change
}

// reached gives the commit up to which the peer lacks nothing.
func (a *acks) reached(id types.NodeID) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.peers[id]; d != nil {
		return max(d.cursor, d.idle)
	}
	return 0
}

// extras gives what is to be pushed to the peer by itself, and the channel that
// says when there is more.
func (a *acks) extras(id types.NodeID) (units [][]types.Record, wake <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.peers[id]
	if d == nil {
		return nil, nil
	}
	select {
	case <-d.wake: // this call answers it
	default:
	}
	for w := range d.extras {
		units = append(units, []types.Record{w.rec})
	}
	return units, d.wake
}
