package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kvs/cluster/replication/wire"
	"kvs/types"
)

// Replicator replicates one node.
type Replicator struct {
	o     Options
	store Store
	log   *slog.Logger

	acks    *acks
	empty   bool        // the node started without data, or half filled
	syncing atomic.Bool // the node is being filled
	streams chan struct{}

	done, total atomic.Uint64 // records, of the bootstrap

	persistFails bool // the persist loop's

	pushedRecords, pushBytes, receivedRecords      atomic.Uint64
	syncRounds, syncMoved, syncBytes, syncFailures atomic.Uint64

	mu    sync.Mutex             // guards what follows
	peers map[types.NodeID]*peer // changed by Run alone
	nodes []types.NodeID         // the roster, this node included
}

// New makes a Replicator. Handlers may be served at once; Run does the rest.
func New(o Options) (*Replicator, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &Replicator{
		o: o, store: o.Store, log: o.Log,
		acks:    newAcks(),
		streams: make(chan struct{}, maxStreams),
		peers:   map[types.NodeID]*peer{},
		nodes:   []types.NodeID{o.Self},
	}
	data, err := r.HasData()
	if err != nil {
		return nil, err
	}
	_, unfinished := read(r, metaBootstrap, decodeProgress)
	r.empty = unfinished || !data
	r.setSyncing(r.empty && o.Joining != nil)
	return r, nil
}

// Run replicates until ctx ends, and returns when all its goroutines have.
func (r *Replicator) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.bootstrapLoop(ctx) })
	wg.Go(func() { r.persistLoop(ctx) })
	for {
		changed := r.o.PeersChanged() // before Peers, so that no change falls between
		r.reconcile(ctx, &wg, r.o.Peers())
		select {
		case <-changed:
		case <-ctx.Done():
			wg.Wait()
			// The loops stand still: what they reached is final. A crash instead
			// loses a second of cursors, and repeats what that second sent.
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.persist(final)
			return nil
		}
	}
}

// reconcile starts the loops of new peers, ends those of removed ones, and
// tells the others what changed.
func (r *Replicator) reconcile(ctx context.Context, wg *sync.WaitGroup, now []Peer) {
	// Made before the lock is taken, because that reads the store. Only this
	// goroutine writes r.peers, so it may read it freely.
	fresh := map[types.NodeID]*peer{}
	for _, info := range now {
		if r.peers[info.UUID] == nil && fresh[info.UUID] == nil && info.UUID != r.o.Self && !info.UUID.IsZero() {
			fresh[info.UUID] = r.newPeer(ctx, info)
		}
	}
	var lost bool
	var kick []*peer
	r.mu.Lock()
	seen := map[types.NodeID]bool{}
	nodes := []types.NodeID{r.o.Self}
	for _, info := range now {
		if info.UUID == r.o.Self || info.UUID.IsZero() || seen[info.UUID] {
			continue
		}
		seen[info.UUID] = true
		nodes = append(nodes, info.UUID)
		p := r.peers[info.UUID]
		if p == nil {
			p = fresh[info.UUID]
			r.peers[info.UUID] = p
			wg.Go(func() { r.pushLoop(p.ctx, p) })
			wg.Go(func() { r.syncLoop(p.ctx, p) })
			continue
		}
		before := p.update(info)
		lost = lost || before.Alive && !info.Alive
		if comparable(info) && !comparable(before) || before.Address != info.Address {
			kick = append(kick, p)
		}
	}
	for id, p := range r.peers {
		if !seen[id] {
			p.cancel()
			delete(r.peers, id)
			r.acks.remove(id)
			lost = true
		}
	}
	r.nodes = nodes
	if lost {
		// What the lost node had pushed to some only, the others lack.
		kick = kick[:0]
		for _, p := range r.peers {
			kick = append(kick, p)
		}
	}
	r.mu.Unlock()
	for _, p := range kick {
		p.compareNow()
	}
}

func (r *Replicator) snapshot() []*peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*peer, 0, len(r.peers))
	for _, p := range r.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *peer) int { return slices.Compare(a.id[:], b.id[:]) })
	return out
}

// alive gives the peers that membership reaches.
func (r *Replicator) alive() []Peer {
	var out []Peer
	for _, p := range r.snapshot() {
		if info, _ := p.info(); info.Alive {
			out = append(out, info)
		}
	}
	return out
}

func (r *Replicator) setSyncing(on bool) {
	if r.syncing.Swap(on) == on {
		return
	}
	r.o.SetSyncing(on)
	if !on {
		for _, p := range r.snapshot() {
			p.compareNow()
		}
	}
}

// Await waits until n peers hold rec, which this node wrote in commit seq, or a
// version that descends from it: until they have durably answered a push of it.
// It gives how many do; the error is the context's, or nil once n is reached.
func (r *Replicator) Await(ctx context.Context, rec types.Record, seq uint64, n int) (int, error) {
	return r.acks.await(ctx, rec, seq, n)
}

// Flush waits until every live peer has acknowledged all that was committed
// before the call. The error names those that had not when ctx ended.
func (r *Replicator) Flush(ctx context.Context) error {
	target := r.store.Seq()
	for {
		moved := r.acks.moved()
		var behind []string
		for _, p := range r.snapshot() {
			if info, _ := p.info(); info.Alive && r.acks.reached(p.id) < target {
				behind = append(behind, info.NodeID)
			}
		}
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-moved:
		case <-r.o.PeersChanged():
		case <-ctx.Done():
			return fmt.Errorf("flush: not all was acknowledged by %v: %w", behind, ctx.Err())
		}
	}
}

// call posts a body to a peer, bounded in time, and counts it.
func (r *Replicator) call(ctx context.Context, p Peer, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	return r.o.Caller.Call(ctx, p.Address, path, body)
}

// errStranger is an answer by another node than the one that was called.
var errStranger = errors.New("another node answers at the peer's address")

// errForgotten is an answer in which records may be that this node has
// forgotten.
var errForgotten = errors.New("it was read under a smaller horizon than this node's")

// answered judges a decoded answer: what decoding said, who answered, and under
// which horizon.
func (r *Replicator) answered(p Peer, h wire.Header, err error) error {
	switch {
	case err != nil:
	case h.Sender != p.UUID:
		err = fmt.Errorf("%w: %s, not %s", errStranger, h.Sender, p.UUID)
	case h.Horizon < r.store.Horizon():
		err = errForgotten
	default:
		return nil
	}
	return fmt.Errorf("answer of %s at %s: %w", p.NodeID, p.Address, err)
}

// header begins a body. It is taken before the records of the body are read.
func (r *Replicator) header() wire.Header {
	return wire.Header{Sender: r.o.Self, Horizon: r.store.Horizon()}
}
