package storage

import (
	"context"
	"sort"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/feed"
	"kvs/types"
)

// The values in which the store tells what it committed; see package feed.
type (
	Change  = feed.Change
	Commit  = feed.Commit
	Refusal = feed.Refusal
)

// ring holds the latest commits in memory, for those who follow live. It is
// bounded in bytes; who falls behind its floor reads ChangedBetween.
type ring struct {
	mu      sync.Mutex // guards all below
	commits []Commit   // ascending sequence
	bytes   []int      // of each commit
	total   int
	limit   int
	floor   uint64 // every commit above it is here
	wake    chan struct{}
}

func newRing(limit int, floor uint64) *ring {
	return &ring{limit: limit, floor: floor, wake: make(chan struct{})}
}

// recordWeight is what a record in the ring weighs beside key and value.
const recordWeight = 256

// add puts a commit into the ring; announce then wakes those who wait.
func (r *ring) add(seq uint64, staged []Staged) {
	commit := Commit{Seq: seq, Changes: make([]Change, len(staged))}
	weight := 0
	for i := range staged {
		commit.Changes[i] = Change{Record: staged[i].New, Unit: staged[i].Unit}
		weight += recordWeight + len(staged[i].New.Key) + len(staged[i].New.Value)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits, r.bytes, r.total = append(r.commits, commit), append(r.bytes, weight), r.total+weight
	drop := 0
	for r.total > r.limit && drop < len(r.commits)-1 {
		r.total -= r.bytes[drop]
		r.floor = r.commits[drop].Seq
		r.commits[drop] = Commit{}
		drop++
	}
	r.commits, r.bytes = r.commits[drop:], r.bytes[drop:]
}

func (r *ring) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.wake)
	r.wake = make(chan struct{})
}

// Committed gives a channel that is closed when the next commit is visible. Ask
// for it before looking, then look, then wait.
func (s *Store) Committed() <-chan struct{} {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	return s.ring.wake
}

// Seq is the sequence number of the newest durable commit.
func (s *Store) Seq() uint64 { return s.seq.Load() }

// Recent gives the commits after a sequence number from memory: whole ones, at
// least one if there is one, and otherwise maxBytes at most. ok is false if the
// ring does not reach back that far.
func (s *Store) Recent(after uint64, maxBytes int) (commits []Commit, ok bool) {
	r := s.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if after < r.floor {
		return nil, false
	}
	from := sort.Search(len(r.commits), func(i int) bool { return r.commits[i].Seq > after })
	to, size := from, 0
	for to < len(r.commits) && (to == from || size+r.bytes[to] <= maxBytes) {
		size += r.bytes[to]
		to++
	}
	return append([]Commit(nil), r.commits[from:to]...), true
}

// ChangedBetween calls fn with each record that is current now and was last
// changed in (from, to], in order of refs after the given one, until fn gives
// false. What changed again since to is left for a later window.
func (s *Store) ChangedBetween(ctx context.Context, from, to uint64, after types.Ref, fn func(*types.Record) bool) error {
	return s.walk(ctx, after, badger.IteratorOptions{SinceTs: from}, func(item *badger.Item, rec *types.Record) bool {
		return item.Version() > to || fn(rec)
	})
}

// Walk calls fn with every record, tombstones and all namespaces included, in
// order of refs after the given one and from one snapshot, until fn gives
// false. A walk that may last is done in pieces: the snapshot keeps old tables
// alive.
func (s *Store) Walk(ctx context.Context, after types.Ref, fn func(*types.Record) bool) error {
	return s.walk(ctx, after, badger.IteratorOptions{}, func(_ *badger.Item, rec *types.Record) bool { return fn(rec) })
}

func (s *Store) walk(ctx context.Context, after types.Ref, o badger.IteratorOptions, fn func(*badger.Item, *types.Record) bool) error {
	txn := s.snapshot()
	defer txn.Discard()
	o.Prefix = []byte{spaceRecords}
	from := o.Prefix
	if after != (types.Ref{}) {
		from = append(recordKey(after), 0)
	}
	looked := 0
	var failed error
	eachFrom(txn, o, from, func(item *badger.Item) bool {
		if looked++; looked%scanStep == 0 {
			if failed = ctx.Err(); failed != nil {
				return false
			}
		}
		rec, err := itemRecord(item, refOfRecordKey(item.Key()))
		if err != nil {
			s.reportCorrupt(err)
			return true // anti-entropy sees that it is missing
		}
		return fn(item, &rec)
	})
	return failed
}
