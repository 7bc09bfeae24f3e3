package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"kvs/types"
)

// OpKind says what an Op does.
type OpKind int

// The kinds of operations.
const (
	OpPut OpKind = iota
	OpDelete
	OpGet
	OpMeta // writes the value that is there again, with what the guard made of View.Meta
)

// Op is one operation of a client.
type Op struct {
	Kind        OpKind
	Ref         types.Ref
	Value       []byte        // must not be changed once handed over
	Raw         bool          // the value is bytes, not JSON
	ContentType string        // of a raw value
	TTL         time.Duration // 0 = never expires
	KeepTTL     bool          // OpMeta: the expiry stays as it is, and TTL says nothing

	// Guard, if any, is called in the committer. Its error becomes Result.Err,
	// and nothing is staged. It must be quick, and use the store only through
	// the view.
	Guard func(v *View) error
	// OverDamaged lets a put take a record that cannot be read for absent.
	// Without it the operation fails with a *CorruptError.
	OverDamaged bool
	By          *Actor // for the hooks; nil: this node itself
}

// View is what a guard sees: the state at its operation's place in the commit.
type View struct {
	Current *types.Record // the live record of the key; nil if there is none
	// Meta is what the new version will have: that of Current, else
	// Options.DefaultMeta. The guard may change all but the content type.
	Meta types.Meta

	c *commit
}

// Live gives the live record of any other key, nil if there is none. The error
// is a *CorruptError.
func (v *View) Live(ref types.Ref) (*types.Record, error) {
	rec, err := v.c.record(ref)
	if err != nil || rec == nil || !rec.Live(v.c.now) {
		return nil, err
	}
	return rec, nil
}

// Result answers one Op.
type Result struct {
	Record  types.Record // put and delete: the version written; get: what is there
	Created bool         // put: there was no value before
	Seq     uint64       // put and delete: the commit that holds it
	Err     error        // types.ErrNotFound, a guard's error, ErrAborted
}

// ErrAborted is the Result.Err of operations that were not done because another
// one of their atomic batch failed.
var ErrAborted = errors.New("not done: another operation of the batch failed")

// MaxBatchOps bounds an atomic batch: with it, any batch fits one transaction.
// It is part of the protocol.
const MaxBatchOps = 1000

// Write runs ops in order and returns when they are durable. If atomic is set
// they are one commit, and as soon as one fails none is done. Otherwise each
// stands for itself.
//
// The error is about the whole call: types.ErrDiskFull, types.ErrTooLarge,
// types.ErrClockSkew, types.ErrClosed, or the context's, after which it is not
// known whether the operations were done.
func (s *Store) Write(ctx context.Context, ops []Op, atomic bool) ([]Result, error) {
	if atomic && len(ops) > MaxBatchOps {
		return nil, fmt.Errorf("%w: %d operations in an atomic batch, %d are allowed", types.ErrTooLarge, len(ops), MaxBatchOps)
	}
	w := &clientWork{ops: ops, atomic: atomic, results: make([]Result, len(ops))}
	if atomic {
		if w.needed = batchSize(ops); w.needed > s.txnBytes {
			return nil, fmt.Errorf("%w: the atomic batch needs %d bytes of a transaction, %d are allowed", types.ErrTooLarge, w.needed, s.txnBytes)
		}
	}
	if err := s.disk.admit(ops); err != nil {
		return nil, err
	}
	if err := s.submit(ctx, w); err != nil {
		return nil, err
	}
	return w.results, w.err
}

// opSize bounds what an operation adds to a transaction: the record, and its
// key in two more keyspaces.
func opSize(op *Op) int {
	if op.Kind == OpGet {
		return 0
	}
	value := len(op.Value)
	if op.Kind == OpMeta {
		value = valueThreshold // of a larger one the transaction holds a pointer
	}
	return 3*(len(op.Ref.Key)+entryOverhead) + entrySize(0, recordOverhead+len(op.Ref.Key)+value)
}

// copySize bounds what a hook adds that keeps a version which is overwritten
// within its own commit.
func copySize(op *Op) int {
	if op.Kind == OpGet {
		return 0
	}
	return len(op.Ref.Key) + entryOverhead + entrySize(0, recordOverhead+len(op.Ref.Key)+len(op.Value))
}

// batchSize bounds what an atomic batch adds to a transaction.
func batchSize(ops []Op) int {
	n := 0
	seen := make(map[types.Ref]bool, len(ops))
	for i := range ops {
		op := &ops[i]
		n += opSize(op)
		if seen[op.Ref] {
			n += copySize(op)
		}
		seen[op.Ref] = true
	}
	return n
}

const (
	entryOverhead  = 48  // prefix, hash or time, and Badger's own
	recordOverhead = 256 // a record without key, value and a long context
)

// clientWork is Write on its way through the committer.
type clientWork struct {
	ops     []Op
	atomic  bool
	needed  int // bytes of a transaction, if atomic
	results []Result
	err     error // of the whole call
}

func (w *clientWork) parts() int {
	if w.atomic {
		return 1
	}
	return len(w.ops)
}

func (w *clientWork) size(i int) int {
	if w.atomic {
		return w.needed
	}
	// Another one of the commit may be of the same key.
	return opSize(&w.ops[i]) + copySize(&w.ops[i])
}

func (w *clientWork) stage(c *commit, i int) {
	if !w.atomic {
		m := c.mark()
		if w.results[i] = c.do(&w.ops[i], 0); w.results[i].Err != nil {
			c.rollback(m)
		}
		return
	}
	m, unit := c.mark(), c.newUnit()
	for i := range w.ops {
		if w.results[i] = c.do(&w.ops[i], unit); w.results[i].Err != nil {
			c.rollback(m)
			for j := range w.results {
				if j != i {
					w.results[j] = Result{Err: ErrAborted}
				}
			}
			return
		}
	}
}

// do decides one operation at this point of the commit.
func (c *commit) do(op *Op, unit int) Result {
	old, err := c.record(op.Ref)
	if errors.Is(err, types.ErrCorrupt) && op.Kind == OpPut && op.OverDamaged {
		// The new version is later than any that is lost.
		c.recountBucket(op.Ref)
		old, err = nil, nil
	}
	if err != nil {
		return Result{Err: err}
	}
	v := View{Current: old, Meta: c.s.opts.DefaultMeta, c: c}
	if old != nil && !old.Live(c.now) {
		v.Current = nil
	}
	if v.Current != nil {
		v.Meta = v.Current.Meta
	}
	if op.Guard != nil {
		if err := op.Guard(&v); err != nil {
			return Result{Err: err}
		}
	}
	if v.Current == nil && op.Kind != OpPut {
		return Result{Err: types.ErrNotFound}
	}
	if op.Kind == OpGet {
		return Result{Record: *v.Current}
	}
	rec, err := c.version(op, old, &v)
	if err != nil {
		return Result{Err: err}
	}
	c.put(rec, old, source{unit: unit, by: op.By})
	return Result{Record: rec, Created: v.Current == nil, Seq: c.seq}
}

// version makes the record that op writes over old.
func (c *commit) version(op *Op, old *types.Record, v *View) (types.Record, error) {
	s := c.s
	var context types.Context
	if old != nil {
		// Later than what it replaces, whatever this node's clock says.
		s.clock.Observe(uint64(old.Timestamp))
		context = old.Context.Extend(old.Version)
	}
	ts := types.Timestamp(s.clock.Now())
	if ahead := s.clock.Ahead(); ahead > s.opts.MaxClockSkew {
		return types.Record{}, fmt.Errorf("%w: this machine's clock is %v behind the last timestamp in use; set the clock right, or wait", types.ErrClockSkew, ahead.Round(time.Millisecond))
	}
	id, err := uuid.NewV7()
	if err != nil {
		return types.Record{}, fmt.Errorf("make a version id: %w", err)
	}
	rec := types.Record{
		Ref:     op.Ref,
		Version: types.Version{Timestamp: ts, Origin: s.identity.UUID, OriginJoined: s.identity.Joined, UUID: types.VersionID(id)},
		Context: context,
		Meta:    v.Meta,
		Value:   op.Value,
	}
	rec.Meta.ContentType = op.ContentType
	if op.Raw {
		rec.Flags |= types.FlagRaw
	}
	switch op.Kind {
	case OpDelete:
		rec.Flags, rec.Value, rec.Meta.ContentType = types.FlagTombstone, nil, ""
	case OpMeta:
		live := v.Current
		rec.Flags, rec.Value, rec.Meta.ContentType, rec.ExpiresAt = live.Flags, live.Value, live.Meta.ContentType, live.ExpiresAt
	}
	if op.TTL > 0 && !op.KeepTTL && op.Kind != OpDelete {
		rec.ExpiresAt = ts.Millis() + min(max(op.TTL.Milliseconds(), 1), math.MaxInt64/4)
	} else if !op.KeepTTL {
		rec.ExpiresAt = 0
	}
	rec.PurgeAt = types.PurgeTime(rec.Tombstone(), ts, rec.ExpiresAt, s.Horizon(), s.opts.TombstoneGrace.Milliseconds())
	return rec, nil
}
