package tamperlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"kvs/storage"
	"kvs/types"
)

// WitnessOptions configure a Witness.
type WitnessOptions struct {
	Now func() time.Time // nil = time.Now
	Log *slog.Logger     // nil = slog.Default
}

// Witness keeps checkpoints of other nodes' logs, so that a node that rewrites or
// cuts its own is found out. It is a storage.Hook, handed to storage.Open, and
// started after it. It is of use without a Log, too. Its methods are safe for
// concurrent use.
//
// The checkpoints of a node are kept in lines: in one line all are signed with
// the same key, and their numbers grow, as those of an honest node do for ever. A
// checkpoint that fits no line is evidence. It begins a new line, so that what it
// contradicts stays beside it.
type Witness struct {
	opts WitnessOptions
	log  *slog.Logger

	mu      sync.Mutex // guards what follows; held by the committer for moments only
	store   *storage.Store
	nodes   map[types.NodeID][]*line // in the order in which the lines began
	pending []mutation
	staged  int // of pending, given to the commit under way
	stats   WitnessStats
}

// mutation is a change of the keyspace that is not committed yet.
type mutation struct {
	key, value []byte
	remove     bool
}

// WitnessStats are counters since the start.
type WitnessStats struct {
	Witnessed uint64 // checkpoints kept
	Conflicts uint64 // those that contradict an earlier one
	Refused   uint64 // calls of Take that kept nothing because of what they were given
}

const (
	maxPending = 4096 // what waits while the store takes no commits
	maxNodes   = 1024 // whose checkpoints are kept
)

// Errors of Take.
var (
	// ErrForged: the checkpoint cannot be that of the node that sent it.
	ErrForged = errors.New("not a checkpoint of the node that sent it")
	// ErrTooManyLines: there are checkpoints of so many keys or nodes that no more
	// are kept.
	ErrTooManyLines = errors.New("too many lines of checkpoints")
)

// NewWitness gives a witness that is not started.
func NewWitness(o WitnessOptions) *Witness {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Witness{opts: o, log: o.Log, nodes: make(map[types.NodeID][]*line)}
}

// Start reads what was witnessed before. It is called once, after storage.Open.
func (w *Witness) Start(ctx context.Context, store *storage.Store) error {
	nodes := make(map[types.NodeID][]*line)
	err := walkWitnessed(ctx, store, []byte{witnessPrefix}, func(id lineID, received int64, c Checkpoint) {
		lines := nodes[id.node]
		if len(lines) == 0 || lines[len(lines)-1].id != id {
			lines = append(lines, &line{id: id, key: c.PublicKey})
			nodes[id.node] = lines
		}
		lines[len(lines)-1].append(&c, received)
	}, w.damaged)
	if err != nil {
		return fmt.Errorf("read the witnessed checkpoints: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store, w.nodes = store, nodes
	return nil
}

func (w *Witness) damaged(key []byte, err error) {
	w.log.Error("a witnessed checkpoint is damaged and left out", "key", fmt.Sprintf("%x", key), "error", err)
}

// Stats reads the counters.
func (w *Witness) Stats() WitnessStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// Keyspace implements storage.Hook.
func (w *Witness) Keyspace() byte { return storage.SpaceLog }

// Stage writes what waits. It is kept until Committed, and written again if the
// commit failed.
func (w *Witness) Stage(tx *storage.HookTx, _ []storage.Staged) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.pending {
		if m.remove {
			tx.Delete(m.key)
		} else {
			tx.Set(m.key, m.value)
		}
	}
	w.staged = len(w.pending)
}

// Committed implements storage.Hook.
func (w *Witness) Committed(uint64, []storage.Staged) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending = w.pending[w.staged:]; len(w.pending) == 0 {
		w.pending = nil
	}
	w.staged = 0
}

// Take keeps a checkpoint that a node sent of its own log; from is who the
// caller has made sure that it is. It is durable when Take returns nil. One that
// was taken before is taken again without effect, and so is an old one that
// comes late.
//
// The error wraps ErrForged, types.ErrCorrupt for what is no checkpoint,
// ErrTooManyLines, or is the store's, after which the sender tries again. A
// checkpoint that contradicts an earlier one is no error here: it is kept,
// logged and counted.
func (w *Witness) Take(ctx context.Context, from types.NodeID, encoded []byte) error {
	c, err := DecodeCheckpoint(encoded)
	if err == nil && c.Node != from {
		err = fmt.Errorf("%w: it is of node %s", ErrForged, c.Node)
	}
	if err == nil && !c.Verify() {
		err = fmt.Errorf("%w: its signature does not hold", ErrForged)
	}
	if err != nil {
		w.countRefused()
		return fmt.Errorf("checkpoint %d of node %s: %w", c.N, from, err)
	}
	store, err := w.keep(c)
	if err != nil {
		return fmt.Errorf("checkpoint %d of node %s: %w", c.N, from, err)
	}
	// Also where nothing was new: an earlier call may have ended before its
	// commit. Without anything to write this costs nothing.
	return store.CommitHooks(ctx)
}

func (w *Witness) countRefused() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Refused++
}

// keep decides what to do with c, and leaves it to the next commit.
func (w *Witness) keep(c Checkpoint) (*storage.Store, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.store == nil:
		return nil, errors.New("the witness is not started")
	case c.Node == w.store.Identity().UUID:
		w.stats.Refused++
		return nil, fmt.Errorf("%w: a node does not witness for itself", ErrForged)
	case len(w.pending) >= maxPending:
		return nil, errors.New("too many checkpoints wait to be written")
	}
	lines := w.nodes[c.Node]
	if len(lines) == 0 && len(w.nodes) >= maxNodes {
		w.stats.Refused++
		return nil, fmt.Errorf("%w: there are those of %d nodes", ErrTooManyLines, maxNodes)
	}
	v, err := place(lines, &c)
	if v.conflict != "" {
		w.stats.Conflicts++
		w.log.Error("a node's tamper log contradicts what this node has witnessed of it: "+v.conflict+". "+
			"Look at who had access to it, and run `kvs audit verify` on it with the checkpoints that this node keeps. "+
			"It is expected once after the node's disk was put back from an older copy, and after power loss with sync_writes off",
			"node", c.Node, "entry", c.N, "head", c.Head, "public_key", c.PublicKey, "kept", err == nil)
	}
	if err != nil {
		w.stats.Refused++
		return nil, err
	}
	if v.known {
		return w.store, nil
	}
	if v.line == nil {
		v.line = &line{id: lineID{c.Node, nextNumber(lines)}, key: c.PublicKey}
		w.nodes[c.Node] = append(lines, v.line)
	}
	if v.anew {
		for _, n := range v.line.clear() {
			w.pending = append(w.pending, mutation{key: v.line.id.key(n), remove: true})
		}
	}
	now := w.opts.Now().UnixMilli()
	w.pending = append(w.pending, mutation{key: v.line.id.key(c.N), value: append(appendNumber(nil, uint64(now)), c.Encode()...)})
	for _, n := range v.line.add(&c, now) {
		w.pending = append(w.pending, mutation{key: v.line.id.key(n), remove: true})
	}
	w.stats.Witnessed++
	return w.store, nil
}

// List gives the checkpoints that are kept of a node, line by line, each in the
// order of their numbers.
func (w *Witness) List(node types.NodeID) ([]Checkpoint, error) {
	w.mu.Lock()
	store := w.store
	w.mu.Unlock()
	if store == nil {
		return nil, errors.New("the witness is not started")
	}
	out := []Checkpoint{}
	err := walkWitnessed(context.Background(), store, append([]byte{witnessPrefix}, node[:]...), func(_ lineID, _ int64, c Checkpoint) {
		out = append(out, c)
	}, w.damaged)
	return out, err
}
