package tamperlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kvs/storage"
	"kvs/types"
)

// newChainFile in the data directory lets Start begin a new chain behind a
// broken one. The operator makes it; it is removed when it was obeyed.
const newChainFile = "audit.new-chain"

// maxUnlogged bounds how many records are looked at that were changed without
// the log.
const maxUnlogged = 1000

// BrokenError says that the end of the log is damaged, so that nothing may be
// appended.
type BrokenError struct {
	Dir string
	Err error
}

// Error says what is broken and what to do.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("the tamper log in %s is broken at its end (%v), and going on from there would hide it. "+
		"Run `kvs audit verify` on the directory to see what is wrong, and keep its answer. Then, to go on: make an empty file %s, "+
		"and a new chain is begun behind the broken one, which stays where it is as evidence; "+
		"or set tamper_logging_enabled: false, to start without the log",
		e.Dir, e.Err, filepath.Join(e.Dir, newChainFile))
}

// Unwrap gives what is broken.
func (e *BrokenError) Unwrap() error { return e.Err }

// Start continues the log that is in the store, or begins it. It is called once,
// after storage.Open and before the first write. The next commit, or Run, then
// writes an entry with ActionOpened.
//
// Where the last block cannot be read, or does not follow from the one before
// it, the error is a *BrokenError.
func (l *Log) Start(ctx context.Context, store *storage.Store) error {
	key, made, err := loadKey(l.opts.Dir)
	if err != nil {
		return err
	}
	node := store.Identity().UUID
	end, broken := lastHead(ctx, store, node)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	marker := filepath.Join(l.opts.Dir, newChainFile)
	wanted, err := exists(marker)
	if err != nil {
		return err
	}
	switch {
	case broken != nil && !wanted:
		return &BrokenError{l.opts.Dir, broken}
	case broken != nil:
		if end, err = newChain(store, node); err != nil {
			return &BrokenError{l.opts.Dir, err}
		}
		l.log.Error("the tamper log is broken, and a new chain is begun behind it", "first_entry", end.n+1, "broken", broken)
	case wanted:
		// It must not lie there until something does break.
		l.log.Warn("the tamper log is not broken at its end: no new chain is begun, and the file that asks for one is removed", "file", marker)
		if err := os.Remove(marker); err != nil {
			return err
		}
	}
	unlogged, err := changedIn(ctx, store, end.seq, store.Seq())
	if err != nil {
		return err
	}
	l.attach(store, key, end, unlogged, broken != nil)
	if made && end.n > 0 {
		l.log.Error("the key of the tamper log was missing and a new one was made: other nodes will report that it changed", "file", filepath.Join(l.opts.Dir, keyFile))
	}
	if broken == nil {
		return nil
	}
	if err := store.CommitHooks(ctx); err != nil {
		return fmt.Errorf("begin a new chain of the tamper log: %w", err)
	}
	return os.Remove(marker)
}

// attach makes the log take part in commits.
func (l *Log) attach(store *storage.Store, key []byte, end head, unlogged int, newChain bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.store, l.node, l.key = store, store.Identity().UUID, key
	l.durable, l.staged, l.stats.Last = end, end, end.n
	what := "continued"
	switch {
	case newChain:
		what = "new chain behind a broken one"
	case end.n == 0:
		what = "begun"
	}
	public := publicOf(l.key)
	e := Entry{Action: ActionOpened, By: storage.Actor{Subject: "node:" + l.node.String()}, Count: uint64(unlogged),
		Detail: fmt.Sprintf("%s at sequence %d, key %s", what, store.Seq(), public)}
	// Before the refused attempts that came first: they are told from here.
	l.refused.waiting = append([]Entry{e}, l.refused.waiting...)
	for a := range l.refused.index {
		l.refused.index[a]++
	}
	if unlogged > 0 && end.n > 0 {
		l.log.Warn("records were changed without the tamper log: it was switched off, or its end is missing, which `kvs audit verify` with other nodes' checkpoints can tell",
			"records", unlogged, "since_entry", end.n)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// lastHead reads where the log ends. The error says why nothing can follow.
func lastHead(ctx context.Context, store *storage.Store, node types.NodeID) (head, error) {
	key, value, ok, err := store.HookLast(storage.SpaceLog, []byte{blockPrefix})
	switch {
	case err != nil:
		return head{}, fmt.Errorf("its last block cannot be read: %w", err)
	case !ok:
		return head{hash: genesis(node, 1)}, nil
	}
	n, err := numberOf(key)
	if err != nil {
		return head{}, err
	}
	b, err := blockUnder(n, value)
	if err != nil {
		return head{}, err
	}
	end := head{n: b.Last(), count: uint64(len(b.Entries)), hash: b.Hash, seq: b.Seq, time: b.Time}
	if b.Previous == 0 {
		if b.Prev != genesis(node, b.First) {
			return head{}, fmt.Errorf("block %d is not the first of a log of this node", n)
		}
		return end, nil
	}
	before := b.First - b.Previous
	err = walk(ctx, store, blockKey(before), func(key, value []byte) error {
		if m, err := numberOf(key); err != nil || m != before {
			return fmt.Errorf("block %d is missing, which block %d follows", before, n)
		}
		p, err := blockUnder(before, value)
		if err != nil {
			return err
		}
		if p.Last()+1 != b.First || p.Hash != b.Prev {
			return fmt.Errorf("block %d does not follow from block %d", n, before)
		}
		return errStop
	})
	return end, err
}

// newChain gives the point behind everything that is in the log: whatever block
// the last key is of, it has no more than maxEntries entries.
func newChain(store *storage.Store, node types.NodeID) (head, error) {
	key, _, _, err := store.HookLast(storage.SpaceLog, []byte{blockPrefix})
	if err != nil && key == nil {
		return head{}, fmt.Errorf("its last block cannot be read: %w", err)
	}
	var digits [8]byte
	copy(digits[:], key[1:])
	n := beNumber(digits[:])
	if n > maxNumber-2*maxEntries {
		return head{}, fmt.Errorf("its last key, %x, leaves no number for a new chain: somebody put it there; "+
			"move the data directory away and start with an empty one, the other nodes have the data", key)
	}
	n += maxEntries
	// Which changes the broken part told of is not known, so nothing is said
	// about changes without the log.
	return head{n: n, hash: genesis(node, n+1), seq: store.Seq()}, nil
}

// changedIn counts the current records that were last changed in (from, to], at
// most maxUnlogged.
func changedIn(ctx context.Context, store *storage.Store, from, to uint64) (n int, err error) {
	if from >= to {
		return 0, nil
	}
	err = store.ChangedBetween(ctx, from, to, types.Ref{}, func(*types.Record) bool {
		n++
		return n < maxUnlogged
	})
	return n, err
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Last gives the number of the log's last entry, 0 if there is none.
func Last(store *storage.Store) (uint64, error) {
	key, value, ok, err := store.HookLast(storage.SpaceLog, []byte{blockPrefix})
	if err != nil || !ok {
		return 0, err
	}
	n, err := numberOf(key)
	if err != nil {
		return 0, err
	}
	h, err := decodeHeader(value)
	if err != nil || h.first != n {
		return n, nil // at least; Entries and Verify show what is wrong
	}
	return h.last(), nil
}
