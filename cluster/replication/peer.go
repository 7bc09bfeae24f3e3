package replication

import (
	"context"
	"encoding/hex"
	"sync"
	"time"

	"kvs/types"
)

// peer is what this node knows about another one.
type peer struct {
	id     types.NodeID
	ctx    context.Context // ends when the peer leaves the roster
	cancel context.CancelFunc
	kick   chan struct{} // holds one token while a comparison is wanted at once

	mu      sync.Mutex // guards what follows
	told    Peer
	changed chan struct{} // closed and replaced when told changes
	pos     position      // as far as pushing is; the push loop alone changes it
	dirty   bool          // pos is ahead of what is stored
	marks   marks
	root    string // the peer's root as last seen, hex
}

func (r *Replicator) newPeer(ctx context.Context, info Peer) *peer {
	p := &peer{id: info.UUID, kick: make(chan struct{}, 1), told: info, changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(ctx)
	r.load(p)
	r.acks.add(p.id, p.pos.Cursor)
	return p
}

// info gives what membership says of the peer, and a channel that is closed
// when that changes.
func (p *peer) info() (Peer, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told, p.changed
}

func (p *peer) update(info Peer) (before Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.told
	if before != info {
		p.told = info
		close(p.changed)
		p.changed = make(chan struct{})
	}
	return before
}

func (p *peer) compareNow() {
	select {
	case p.kick <- struct{}{}:
	default: // one is wanted already
	}
}

func (p *peer) sawRoot(digest [16]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.root = hex.EncodeToString(digest[:])
}

// comparable reports whether a comparison with the peer makes sense: what a
// node that is being filled lacks, it is being sent.
func comparable(p Peer) bool { return p.Alive && p.Mode != types.ModeSyncing }

// Status is a snapshot of what replication did since the start, and is at.
type Status struct {
	PushedRecords   uint64 // acknowledged, once per peer
	PushBytes       uint64 // of push bodies sent, uncompressed
	ReceivedRecords uint64 // taken from pushes of others
	SyncRounds      uint64 // rounds of comparisons, begun by this node
	SyncMoved       uint64 // records that those repaired, on either side
	SyncBytes       uint64 // of their bodies, both ways, uncompressed
	SyncFailures    uint64 // rounds that ended in an error

	Syncing             bool   // the node is being filled
	BootDone, BootTotal uint64 // records taken, and what the source holds about; zero before
	Peers               []PeerStatus
}

// PeerStatus is the state towards one peer.
type PeerStatus struct {
	Peer
	Cursor     uint64    // the peer has acknowledged all that this node originated up to this commit
	Behind     uint64    // commits of this node that are not covered by that yet
	CatchingUp bool      // the peer is too far behind for the ring
	LastSync   time.Time // end of the last completed comparison, zero: never
	SyncSeq    uint64    // S_p: this node's sequence at its start
	SyncClock  int64     // H_p: the smaller of both clocks' readings at its start, Unix ms
	Root       string    // the peer's Merkle root as last seen, hex; empty: never
}

// Status gives the state.
func (r *Replicator) Status() Status {
	s := Status{
		PushedRecords: r.pushedRecords.Load(), PushBytes: r.pushBytes.Load(), ReceivedRecords: r.receivedRecords.Load(),
		SyncRounds: r.syncRounds.Load(), SyncMoved: r.syncMoved.Load(),
		SyncBytes: r.syncBytes.Load(), SyncFailures: r.syncFailures.Load(),
		Syncing: r.syncing.Load(), BootDone: r.done.Load(), BootTotal: r.total.Load(),
	}
	for _, p := range r.snapshot() {
		reached := r.acks.reached(p.id)
		p.mu.Lock()
		ps := PeerStatus{
			Peer: p.told, Cursor: p.pos.Cursor, CatchingUp: p.pos.Window != 0,
			SyncSeq: p.marks.Seq, SyncClock: p.marks.Clock, Root: p.root,
		}
		if p.marks.At != 0 {
			ps.LastSync = time.UnixMilli(p.marks.At)
		}
		p.mu.Unlock()
		if seq := r.store.Seq(); seq > reached {
			ps.Behind = seq - reached
		}
		s.Peers = append(s.Peers, ps)
	}
	return s
}
