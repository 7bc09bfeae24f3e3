package storage

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/codec"
	"kvs/storage/merkle"
	"kvs/types"
)

// commit is one transaction under construction. Only the committer touches it.
//
// Nothing is handed to Badger before apply: a guard that fails, or an atomic
// batch that is given up, is rolled back by cutting these slices.
type commit struct {
	s    *Store
	seq  uint64
	now  int64       // Unix ms, one reading for the whole commit
	read *badger.Txn // the state before the commit

	current map[types.Ref]*types.Record // what this commit read or made current; nil = absent
	journal []undo                      // how to take current back
	entries []entry
	deltas  []delta
	changes []Staged
	recount map[uint32]bool // buckets whose leaf must be counted anew from disk
	size    int             // bytes, as Badger counts a transaction, at most
	units   int
	// What a hook may add that keeps versions which are overwritten within the
	// commit: all that are overwritten, since which these are is not looked for.
	kept, keptEntries int
	forHooks          bool // they are called even if there are no changes
}

// source is where a change comes from.
type source struct {
	unit   int
	by     *Actor
	merged bool
}

type undo struct {
	ref types.Ref
	old *types.Record
	had bool
}

type entry struct {
	key, value []byte
	remove     bool
}

type delta struct {
	merkle.Entry
	remove bool
}

// mark is a point to which a commit can be rolled back.
type mark struct{ journal, entries, deltas, changes, size, kept, keptEntries int }

func (s *Store) begin() *commit {
	return &commit{
		s:       s,
		seq:     s.seq.Load() + 1,
		now:     s.clock.Wall().UnixMilli(),
		read:    s.snapshot(),
		current: make(map[types.Ref]*types.Record),
	}
}

func (c *commit) mark() mark {
	return mark{len(c.journal), len(c.entries), len(c.deltas), len(c.changes), c.size, c.kept, c.keptEntries}
}

func (c *commit) rollback(m mark) {
	for i := len(c.journal) - 1; i >= m.journal; i-- {
		if u := c.journal[i]; u.had {
			c.current[u.ref] = u.old
		} else {
			delete(c.current, u.ref)
		}
	}
	c.journal, c.entries, c.deltas = c.journal[:m.journal], c.entries[:m.entries], c.deltas[:m.deltas]
	c.changes, c.size, c.kept, c.keptEntries = c.changes[:m.changes], m.size, m.kept, m.keptEntries
}

func (c *commit) set(key, value []byte) {
	c.entries = append(c.entries, entry{key: key, value: value})
	c.size += entrySize(len(key), len(value))
}

func (c *commit) delete(key []byte) {
	c.entries = append(c.entries, entry{key: key, remove: true})
	c.size += entrySize(len(key), 0)
}

// entrySize is what Badger counts for an entry: values in the value log weigh
// no more than a pointer.
func entrySize(key, value int) int {
	if value >= valueThreshold {
		value = 12
	}
	return key + value + 32
}

// record gives the record of ref as of this point in the commit, nil if there
// is none or the horizon has passed it. The error is a *CorruptError.
func (c *commit) record(ref types.Ref) (*types.Record, error) {
	if rec, ok := c.current[ref]; ok {
		return rec, nil
	}
	cached, ok, ticket := c.s.cache.get(ref)
	if ok {
		c.remember(ref, &cached)
		return &cached, nil
	}
	rec, err := readRecord(c.read, ref)
	if err != nil {
		if errors.Is(err, types.ErrNotFound) {
			c.remember(ref, nil)
			return nil, nil
		}
		return nil, err
	}
	c.s.cache.fill(rec, ticket)
	c.remember(ref, &rec)
	return &rec, nil
}

func (c *commit) remember(ref types.Ref, rec *types.Record) {
	old, had := c.current[ref]
	c.journal = append(c.journal, undo{ref, old, had})
	c.current[ref] = rec
}

// put makes rec current in place of old, which is what record gave, or nil.
func (c *commit) put(rec types.Record, old *types.Record, from source) {
	e := merkle.EntryOf(&rec)
	encoded := codec.Append(make([]byte, 0, codec.Size(&rec)), &rec)
	// The ring keeps the value: as a part of this, so that it does not keep the
	// whole body in which the record came.
	rec.Value = codec.ValueOf(encoded, len(rec.Value))
	c.set(recordKey(rec.Ref), encoded)
	if old == nil {
		c.set(hashKey(e.Hash, rec.Ref), nil)
	} else {
		c.deltas = append(c.deltas, delta{merkle.EntryOf(old), true})
		if c.s.opts.RevisionLimit > 0 {
			c.kept += entrySize(len(old.Key)+entryOverhead, codec.Size(old))
			c.keptEntries++
		}
		if old.PurgeAt != 0 && old.PurgeAt != rec.PurgeAt {
			c.delete(purgeKey(old.PurgeAt, rec.Ref))
		}
	}
	if rec.PurgeAt != 0 && (old == nil || old.PurgeAt != rec.PurgeAt) {
		c.set(purgeKey(rec.PurgeAt, rec.Ref), nil)
	}
	c.deltas = append(c.deltas, delta{e, false})
	c.changes = append(c.changes, Staged{Old: old, New: rec, Unit: from.unit, By: from.by, Merged: from.merged})
	c.remember(rec.Ref, &rec)
}

// merge lets rec and the current record of its key decide, and keeps the loser
// of a conflict. unit marks the changes of one atomic batch.
func (c *commit) merge(rec types.Record, unit int) error {
	from := source{unit: unit, merged: true}
	old, err := c.record(rec.Ref)
	switch {
	case errors.Is(err, types.ErrCorrupt):
		// A copy that can be read is better than one that cannot. What the
		// tree holds for the key is not known, so its bucket is counted anew.
		c.recountBucket(rec.Ref)
		c.put(rec, nil, from)
		c.s.counters.repaired.Add(1)
		return nil
	case err != nil:
		return err
	case old == nil:
		c.put(rec, nil, from)
		return nil
	}
	m := types.Merge(*old, rec)
	if m.Second {
		c.put(m.Winner, old, from)
	}
	if m.Conflict && rec.NS == types.NSData {
		return c.keepLoser(m.Winner, m.Loser)
	}
	return nil
}

// keepLoser writes the loser of a conflict to the conflicts namespace. The
// record has the loser's own version, so that every node that sees the conflict
// writes the same one.
func (c *commit) keepLoser(winner, loser types.Record) error {
	expires := winner.Timestamp.Millis() + c.s.opts.ConflictRetention.Milliseconds()
	rec := types.Record{
		Ref:       types.Ref{NS: types.NSConflicts, Key: types.ConflictKey(loser.Key, loser.UUID)},
		Version:   loser.Version,
		ExpiresAt: expires,
		PurgeAt:   types.PurgeTime(false, loser.Timestamp, expires, c.s.Horizon(), c.s.opts.TombstoneGrace.Milliseconds()),
		Meta:      loser.Meta,
		Value:     codec.Append(nil, &loser),
	}
	before := len(c.changes)
	if err := c.merge(rec, 0); err != nil {
		return err
	}
	if len(c.changes) > before {
		c.s.counters.conflicts.Add(1)
	}
	return nil
}

func (c *commit) recountBucket(ref types.Ref) {
	if c.recount == nil {
		c.recount = make(map[uint32]bool)
	}
	c.recount[merkle.Bucket(merkle.KeyHash(ref))] = true
}

// full reports whether size more bytes may be too many for the transaction.
func (c *commit) full(size int) bool {
	return c.size > 0 && (c.size+c.kept+size > c.s.txnBytes || len(c.entries)+c.keptEntries > c.s.txnEntries)
}

func (c *commit) newUnit() int {
	c.units++
	return c.units
}

// apply writes the commit and makes it visible. After an error nothing of it is
// visible, and the store takes no more writes: what Badger's log holds is then
// not known until the next start.
func (c *commit) apply() error {
	defer c.read.Discard()
	s := c.s
	if len(c.changes) > 0 || c.forHooks {
		for _, h := range s.opts.Hooks {
			h.Stage(&HookTx{h.Keyspace(), c}, c.changes)
		}
	}
	if len(c.entries) == 0 {
		return nil
	}
	seq := c.seq
	if len(c.changes) == 0 {
		seq-- // nothing that others follow: the sequence stays
	} else if err := s.ceiling.cover(s.clock.Last(), seq); err != nil {
		return fmt.Errorf("write the clock's ceiling: %w", err)
	}
	txn := s.db.NewTransactionAt(seq, true)
	defer txn.Discard()
	for _, e := range c.entries {
		var err error
		if e.remove {
			err = txn.Delete(e.key)
		} else {
			err = txn.SetEntry(&badger.Entry{Key: e.key, Value: e.value})
		}
		if err != nil {
			return fmt.Errorf("stage %d entries of %d bytes: %w", len(c.entries), c.size, err)
		}
	}
	if err := txn.CommitAt(seq, nil); err != nil {
		return err
	}
	c.publish()
	return nil
}

// publish makes a durable commit visible: tree and ring first, so that who sees
// the sequence finds the commit in both, and the waiting last, so that nobody
// wakes to find nothing.
func (c *commit) publish() {
	s := c.s
	if len(c.changes) == 0 {
		if c.forHooks {
			c.tellHooks()
		}
		return
	}
	s.tree.Update(func(u merkle.Updater) {
		for _, d := range c.deltas {
			if d.remove {
				u.Remove(d.Hash, d.Digest)
			} else {
				u.Add(d.Hash, d.Digest)
			}
		}
	})
	s.ring.add(c.seq, c.changes)
	s.seq.Store(c.seq)
	// After the sequence: a reader who got a ticket after this must not find
	// the state before it.
	for i := range c.changes {
		s.cache.commit(c.changes[i].New)
	}
	s.counters.commits.Add(1)
	for bucket := range c.recount {
		s.recountNow(bucket)
	}
	c.tellHooks() // before anybody is woken: what they know of the changes is then true
	s.ring.announce()
}

func (c *commit) tellHooks() {
	for _, h := range c.s.opts.Hooks {
		h.Committed(c.seq, c.changes)
	}
}
