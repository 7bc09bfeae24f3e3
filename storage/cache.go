package storage

import (
	"hash/maphash"
	"sync"

	"kvs/types"
)

// cache holds current records that were read of late, tombstones included, so
// that a hot key costs no walk through Badger's levels: neither its readers nor
// the committer that overwrites it.
//
// It is exact: the committer, which alone changes records, updates it before
// anybody is told of a commit, and what a reader found in Badger enters only if
// nothing was committed to its shard since before the reader looked.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

const (
	cacheShards = 64
	// cacheMax is the largest value cached, in bytes: beyond it the read itself
	// is what costs.
	cacheMax = 32 << 10
)

// cacheShard evicts by the clock algorithm (Corbató, "A Paging Experiment with
// the Multics System", 1968): a hit sets a mark, and the hand takes the first
// entry without one.
type cacheShard struct {
	mu      sync.Mutex // guards all below
	entries map[types.Ref]*cacheEntry
	ring    []*cacheEntry
	hand    int
	bytes   int
	limit   int
	commits uint64 // to any key of the shard
}

type cacheEntry struct {
	rec   types.Record
	place int // in ring
	hit   bool
}

func (e *cacheEntry) weight() int { return recordWeight + len(e.rec.Key) + len(e.rec.Value) }

// newCache makes a cache of about limit bytes.
func newCache(limit int64) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].entries = make(map[types.Ref]*cacheEntry)
		c.shards[i].limit = int(limit / cacheShards)
	}
	return c
}

func (c *cache) shard(ref types.Ref) *cacheShard {
	return &c.shards[maphash.String(c.seed, string(ref.Key))%cacheShards]
}

// get gives the record of ref, or else a ticket for fill.
func (c *cache) get(ref types.Ref) (rec types.Record, ok bool, ticket uint64) {
	s := c.shard(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[ref]; e != nil {
		e.hit = true
		return e.rec, true, 0
	}
	return rec, false, s.commits
}

// fill puts in what was read from Badger after get gave the ticket.
func (c *cache) fill(rec types.Record, ticket uint64) {
	if len(rec.Value) > cacheMax {
		return
	}
	s := c.shard(rec.Ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commits != ticket || s.entries[rec.Ref] != nil {
		return
	}
	e := &cacheEntry{rec: rec, place: len(s.ring)}
	s.entries[rec.Ref] = e
	s.ring = append(s.ring, e)
	s.bytes += e.weight()
	for s.bytes > s.limit && len(s.ring) > 1 {
		s.evict()
	}
}

// evict drops one entry. s.mu is held.
func (s *cacheShard) evict() {
	for {
		s.hand %= len(s.ring)
		e := s.ring[s.hand]
		if !e.hit {
			s.remove(e)
			return
		}
		e.hit = false
		s.hand++
	}
}

func (s *cacheShard) remove(e *cacheEntry) {
	last := s.ring[len(s.ring)-1]
	s.ring[e.place], last.place = last, e.place
	s.ring = s.ring[:len(s.ring)-1]
	delete(s.entries, e.rec.Ref)
	s.bytes -= e.weight()
}

// commit tells of a committed record. One that nobody read does not enter: a
// bulk load would only push out what is in use.
func (c *cache) commit(rec types.Record) {
	s := c.shard(rec.Ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	e := s.entries[rec.Ref]
	if e == nil {
		return
	}
	if len(rec.Value) > cacheMax {
		s.remove(e)
		return
	}
	s.bytes -= e.weight()
	e.rec = rec
	s.bytes += e.weight()
	for s.bytes > s.limit && len(s.ring) > 1 {
		s.evict()
	}
}
