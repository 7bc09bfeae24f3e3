// Package replicationtest has what tests of replication run on: a store in
// memory and a network of function calls, with faults drawn from a seed. Both
// block on channels and timers only, and so work inside testing/synctest.
package replicationtest

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kvs/storage/codec"
	"kvs/storage/feed"
	"kvs/storage/merkle"
	"kvs/types"
)

// Store is a store in memory with the promises of the real one as far as
// replication relies on them. Records are kept encoded, so that none is shared
// between nodes or with a body.
type Store struct {
	ID      types.NodeID
	Joined  int64
	RingLen int // commits that Recent reaches back

	skew atomic.Int64 // added to the clock, ns

	mu        sync.Mutex // guards what follows
	seq       uint64
	clock     types.Timestamp
	records   map[types.Ref]*stored
	order     []types.Ref // sorted; nil: to be made anew
	byHash    map[uint64][]types.Ref
	buckets   map[uint32][]uint64 // hashes, unsorted, no duplicates
	ring      []feed.Commit
	floor     uint64 // the commit before the ring's first
	meta      map[string][]byte
	committed chan struct{}
	tree      *merkle.Tree
	horizon   int64
	maxSkew   time.Duration
	down      error
	metaPuts  int
	versions  uint64
}

type stored struct {
	body []byte
	seq  uint64
	bad  bool
}

// NewStore makes an empty store of a node.
func NewStore(id types.NodeID, joined int64) *Store {
	return &Store{
		ID: id, Joined: joined, RingLen: 64,
		records: map[types.Ref]*stored{}, byHash: map[uint64][]types.Ref{}, buckets: map[uint32][]uint64{},
		meta: map[string][]byte{}, committed: make(chan struct{}), tree: merkle.New(),
	}
}

// CorruptError is the answer for a record that Corrupt has damaged.
type CorruptError struct{ Ref types.Ref }

func (e *CorruptError) Error() string        { return fmt.Sprintf("%s cannot be read", e.Ref) }
func (e *CorruptError) Is(target error) bool { return target == types.ErrCorrupt }

// Put writes a user's key, or deletes it, and gives the version and its commit.
func (s *Store) Put(key types.Key, value []byte, tombstone bool) (types.Record, uint64) {
	recs, seq := s.PutBatch([]types.Key{key}, value, tombstone)
	return recs[0], seq
}

// PutBatch writes several keys as one atomic batch.
func (s *Store) PutBatch(keys []types.Key, value []byte, tombstone bool) ([]types.Record, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unit := 0
	if len(keys) > 1 {
		unit = 1
	}
	var out []types.Record
	var changes []feed.Change
	for _, key := range keys {
		rec := types.Record{Ref: types.DataRef(key)}
		now := types.TimestampOf(s.now().UnixMilli())
		s.clock = max(s.clock+1, now)
		rec.Version = types.Version{Timestamp: s.clock, Origin: s.ID, OriginJoined: s.Joined, UUID: s.version()}
		if cur, err := s.read(rec.Ref); err == nil {
			rec.Context = cur.Context.Extend(cur.Version)
		}
		rec.Context = rec.Context.Extend(rec.Version)
		if tombstone {
			rec.Flags = types.FlagTombstone
		} else {
			rec.Value = value
		}
		changes = append(changes, s.stage(rec, unit)...)
		out = append(out, rec)
	}
	s.commit(changes)
	return out, s.seq
}

func (s *Store) version() (id types.VersionID) {
	s.versions++
	copy(id[:], s.ID[:4])
	binary.BigEndian.PutUint64(id[8:], s.versions)
	return id
}

// stage makes rec current. s.mu is held.
func (s *Store) stage(rec types.Record, unit int) []feed.Change {
	hash := merkle.KeyHash(rec.Ref)
	body := codec.Append(nil, &rec)
	if cur := s.records[rec.Ref]; cur != nil {
		old, _, err := codec.Decode(cur.body)
		if err != nil {
			panic(err)
		}
		s.tree.Remove(hash, merkle.RecordDigest(&old))
		cur.body, cur.seq, cur.bad = body, s.seq+1, false
	} else {
		s.records[rec.Ref] = &stored{body: body, seq: s.seq + 1}
		s.order = nil
		if len(s.byHash[hash]) == 0 {
			s.buckets[merkle.Bucket(hash)] = append(s.buckets[merkle.Bucket(hash)], hash)
		}
		s.byHash[hash] = append(s.byHash[hash], rec.Ref)
	}
	s.tree.Add(hash, merkle.RecordDigest(&rec))
	rec, _, _ = codec.Decode(body)
	return []feed.Change{{Record: rec, Unit: unit}}
}

// commit publishes staged changes. s.mu is held.
func (s *Store) commit(changes []feed.Change) {
	if len(changes) > 0 {
		s.ring = append(s.ring, feed.Commit{Seq: s.seq + 1, Changes: changes})
		if over := len(s.ring) - s.RingLen; over > 0 {
			s.floor = s.ring[over-1].Seq
			s.ring = slices.Clone(s.ring[over:])
		}
	}
	s.seq++
	close(s.committed)
	s.committed = make(chan struct{})
}

// read gives the current record. s.mu is held.
func (s *Store) read(ref types.Ref) (types.Record, error) {
	cur := s.records[ref]
	if cur == nil {
		return types.Record{}, types.ErrNotFound
	}
	if cur.bad {
		return types.Record{}, &CorruptError{ref}
	}
	rec, _, err := codec.Decode(cur.body)
	return rec, err
}

// Merge merges records of other nodes.
func (s *Store) Merge(ctx context.Context, units [][]types.Record) ([]feed.Refusal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmp.Or(s.down, ctx.Err()); err != nil {
		return nil, err
	}
	var refusals []feed.Refusal
	var changes []feed.Change
	for i, unit := range units {
		for _, rec := range unit {
			if s.maxSkew > 0 && rec.Timestamp.Time().After(s.now().Add(s.maxSkew)) {
				refusals = append(refusals, feed.Refusal{Ref: rec.Ref, Err: types.ErrClockSkew})
				continue
			}
			s.clock = max(s.clock, rec.Timestamp)
			cur, err := s.read(rec.Ref)
			if err != nil {
				changes = append(changes, s.stage(rec, i+1)...)
				continue
			}
			m := types.Merge(cur, rec)
			if m.Second {
				changes = append(changes, s.stage(m.Winner, i+1)...)
			}
			if m.Conflict && rec.NS == types.NSData {
				loser := m.Loser
				loser.Ref = types.Ref{NS: types.NSConflicts, Key: types.ConflictKey(loser.Key, loser.UUID)}
				if s.records[loser.Ref] == nil {
					changes = append(changes, s.stage(loser, i+1)...)
				}
			}
		}
	}
	if len(changes) > 0 {
		s.commit(changes)
	}
	return refusals, nil
}

// Repair replaces a record.
func (s *Store) Repair(_ context.Context, rec types.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commit(s.stage(rec, 0))
	return nil
}

// Corrupt makes a record unreadable.
func (s *Store) Corrupt(ref types.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[ref].bad = true
}

// Fail makes Merge and PutMeta fail with err, until it is nil.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// SetHorizon sets E.
func (s *Store) SetHorizon(e int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.horizon = e
}

// ForgetRing makes Recent reach back to nothing, as after a restart long ago.
func (s *Store) ForgetRing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring, s.floor = nil, s.seq
}

// MetaPuts counts the writes of meta entries.
func (s *Store) MetaPuts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.metaPuts
}

// SetSkew makes the clock run ahead by d.
func (s *Store) SetSkew(d time.Duration) { s.skew.Store(int64(d)) }

// SetMaxSkew has records refused that are dated more than d ahead; 0: none are.
func (s *Store) SetMaxSkew(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxSkew = d
}

func (s *Store) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

// Now gives the node's wall clock.
func (s *Store) Now() time.Time { return s.now() }

// Horizon gives E.
func (s *Store) Horizon() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.horizon
}

// Seq gives the newest commit.
func (s *Store) Seq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// Committed gives a channel that the next commit closes.
func (s *Store) Committed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed
}

// Recent gives commits of the ring.
func (s *Store) Recent(after uint64, maxBytes int) (out []feed.Commit, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after < s.floor {
		return nil, false
	}
	size := 0
	for _, c := range s.ring {
		if c.Seq <= after {
			continue
		}
		if size > maxBytes {
			break
		}
		out = append(out, c)
		for i := range c.Changes {
			size += codec.Size(&c.Changes[i].Record)
		}
	}
	return out, true
}

// sorted gives the refs in order. s.mu is held.
func (s *Store) sorted() []types.Ref {
	if s.order == nil {
		s.order = make([]types.Ref, 0, len(s.records))
		for ref := range s.records {
			s.order = append(s.order, ref)
		}
		slices.SortFunc(s.order, compareRefs)
	}
	return s.order
}

func compareRefs(a, b types.Ref) int {
	return cmp.Or(cmp.Compare(a.NS, b.NS), cmp.Compare(a.Key, b.Key))
}

// ChangedBetween gives the records last changed in (from, to].
func (s *Store) ChangedBetween(ctx context.Context, from, to uint64, after types.Ref, fn func(*types.Record) bool) error {
	return s.walk(ctx, after, func(st *stored) bool { return st.seq > from && st.seq <= to }, fn)
}

// Walk gives all records.
func (s *Store) Walk(ctx context.Context, after types.Ref, fn func(*types.Record) bool) error {
	return s.walk(ctx, after, func(*stored) bool { return true }, fn)
}

func (s *Store) walk(ctx context.Context, after types.Ref, want func(*stored) bool, fn func(*types.Record) bool) error {
	s.mu.Lock()
	refs := s.sorted()
	s.mu.Unlock()
	i, found := slices.BinarySearchFunc(refs, after, compareRefs)
	if found {
		i++
	}
	for _, ref := range refs[i:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		st := s.records[ref]
		ok := want(st)
		var rec types.Record
		var err error
		if ok {
			rec, err = s.read(ref)
		}
		s.mu.Unlock()
		if !ok || err != nil { // the real store too skips what it cannot read
			continue
		}
		if !fn(&rec) {
			return nil
		}
	}
	return nil
}

// Lookup gives the current record.
func (s *Store) Lookup(ref types.Ref) (types.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(ref)
}

// Tree gives the Merkle tree.
func (s *Store) Tree() *merkle.Tree { return s.tree }

// Bucket lists a Merkle bucket.
func (s *Store) Bucket(bucket uint32) []merkle.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	hashes := slices.Sorted(slices.Values(s.buckets[bucket]))
	var out []merkle.Entry
	for _, hash := range hashes {
		for _, ref := range s.byHash[hash] {
			if rec, err := s.read(ref); err == nil {
				out = append(out, merkle.EntryOf(&rec))
			}
		}
	}
	return out
}

// ByHash gives the records of a key hash.
func (s *Store) ByHash(hash uint64) []types.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []types.Record
	for _, ref := range s.byHash[hash] {
		if rec, err := s.read(ref); err == nil {
			out = append(out, rec)
		}
	}
	return out
}

// GetMeta gives an entry, nil if there is none.
func (s *Store) GetMeta(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta[name], nil
}

// PutMeta stores entries. It does not move the sequence.
func (s *Store) PutMeta(ctx context.Context, values map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmp.Or(s.down, ctx.Err()); err != nil {
		return err
	}
	for name, v := range values {
		s.meta[name] = slices.Clone(v)
	}
	s.metaPuts++
	return nil
}
