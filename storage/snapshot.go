package storage

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/merkle"
)

// Snapshot is the state at one commit, to be read while others follow.
//
// It is a number and no open transaction. Badger forgets versions up to its
// discard mark, so the mark stays at or below the sequence of every snapshot
// that is held: all that was visible at it, history included, stays on disk.
// What would keep old tables alive are iterators, and a walk opens its own anew
// every snapshotPiece.
//
// What holding one costs is the space of what is overwritten meanwhile. So it
// ends by itself after some time, and then reading it is an error, never a
// wrong answer.
type Snapshot struct {
	store   *Store
	seq     uint64
	horizon int64
	tree    *merkle.Tree
	timer   *time.Timer
}

// ErrSnapshotOver says that a snapshot was released, or held for too long.
var ErrSnapshotOver = errors.New("the snapshot was held for too long, and what it shows may be gone")

// snapshotPiece bounds how long one iterator lives.
const snapshotPiece = 2 * time.Second

// pins are the snapshots that are held.
type pins struct {
	mu           sync.Mutex // guards what follows, and is held while Badger's mark is set
	held         map[*Snapshot]bool
	checkpointed uint64 // sequence of the durable checkpoint
}

// Pin gives a snapshot of the newest commit. It ends after most, or when it is
// released.
func (s *Store) Pin(most time.Duration) (*Snapshot, error) {
	p := &Snapshot{store: s}
	// Between two commits, so that the tree is that of the sequence.
	if err := s.inCommitter(func() {
		p.tree, p.horizon = s.tree.Clone(), s.Horizon()
		s.pins.mu.Lock()
		defer s.pins.mu.Unlock()
		p.seq = s.seq.Load() // at or above every mark that was set yet
		if s.pins.held == nil {
			s.pins.held = make(map[*Snapshot]bool)
		}
		s.pins.held[p] = true
	}); err != nil {
		return nil, err
	}
	p.timer = time.AfterFunc(most, p.end)
	return p, nil
}

// letDiscard lets Badger forget what only a state before at needed, as far as no
// snapshot needs it. A checkpoint of that sequence is durable.
func (s *Store) letDiscard(at uint64) {
	s.pins.mu.Lock()
	defer s.pins.mu.Unlock()
	s.pins.checkpointed = at
	s.moveMark()
}

// moveMark sets Badger's mark. The caller holds the lock.
func (s *Store) moveMark() {
	mark := s.pins.checkpointed
	for p := range s.pins.held {
		mark = min(mark, p.seq)
	}
	s.db.SetDiscardTs(mark)
}

// Release ends the snapshot. It may be called more than once.
func (p *Snapshot) Release() {
	p.timer.Stop()
	p.end()
}

func (p *Snapshot) end() {
	p.store.pins.mu.Lock()
	defer p.store.pins.mu.Unlock()
	if p.store.pins.held[p] {
		delete(p.store.pins.held, p)
		p.store.moveMark()
	}
}

func (p *Snapshot) over() bool {
	p.store.pins.mu.Lock()
	defer p.store.pins.mu.Unlock()
	return !p.store.pins.held[p]
}

// Seq is the commit that the snapshot is of.
func (p *Snapshot) Seq() uint64 { return p.seq }

// Horizon is E at that commit, in Unix ms.
func (p *Snapshot) Horizon() int64 { return p.horizon }

// pieces calls step with an iterator that stands on an entry at or after from,
// again and again up to the last one; step takes all entries of a key, gives the
// key and moves behind it.
func (p *Snapshot) pieces(ctx context.Context, o badger.IteratorOptions, from []byte, step func(*badger.Txn, *badger.Iterator) ([]byte, error)) error {
	from = slices.Clone(from)
	for {
		more, err := p.piece(ctx, o, &from, step)
		if err != nil || !more {
			return err
		}
	}
}

// piece is a part of pieces that lasts snapshotPiece at most, but for one step.
// from is where it begins, and then where the next one does.
func (p *Snapshot) piece(ctx context.Context, o badger.IteratorOptions, from *[]byte, step func(*badger.Txn, *badger.Iterator) ([]byte, error)) (more bool, err error) {
	txn := p.store.db.NewTransactionAt(p.seq, false)
	defer txn.Discard()
	it := txn.NewIterator(o)
	defer it.Close()
	// After the iterator is there: it holds what it will read.
	if p.over() {
		return false, ErrSnapshotOver
	}
	end := time.Now().Add(snapshotPiece)
	for it.Seek(*from); it.ValidForPrefix(o.Prefix); {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		key, err := step(txn, it)
		if err != nil {
			return false, err
		}
		*from = append(append((*from)[:0], key...), 0)
		if time.Now().After(end) {
			return true, nil
		}
	}
	return false, nil
}

// HookEntry is an entry of a hook's keyspace.
type HookEntry struct {
	Key, Value []byte // the key without the keyspace's byte
}

// Entries gives up to limit entries of a hook's keyspace, in order of key, at or
// after from; more says that there may be others behind them.
func (p *Snapshot) Entries(ctx context.Context, space byte, from []byte, limit int) (out []HookEntry, more bool, err error) {
	prefix := []byte{space}
	start := append(prefix[:1:1], from...)
	more, err = p.piece(ctx, badger.IteratorOptions{Prefix: prefix}, &start, func(_ *badger.Txn, it *badger.Iterator) ([]byte, error) {
		if len(out) == limit {
			return nil, errEnough
		}
		key := it.Item().KeyCopy(nil)
		value, err := it.Item().ValueCopy(nil)
		if err != nil {
			return nil, err
		}
		out = append(out, HookEntry{Key: key[1:], Value: value})
		it.Next()
		return key, nil
	})
	if errors.Is(err, errEnough) {
		more, err = true, nil
	}
	return out, more, err
}

// errEnough ends a walk early.
var errEnough = errors.New("enough")
