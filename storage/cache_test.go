package storage

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"kvs/types"
)

// Readers of a hot key never see an older version than one they were told of.
func TestCacheIsNeverStale(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir(), ScrubEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var mu sync.Mutex
	acked := map[types.Ref]int{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			ref := types.DataRef(types.Key(fmt.Sprintf("k%d", w)))
			for i := range 300 {
				res, err := s.Write(t.Context(), []Op{{Kind: OpPut, Ref: ref, Value: []byte(strconv.Itoa(i))}}, false)
				if err != nil || res[0].Err != nil {
					t.Error(err, res)
					return
				}
				mu.Lock()
				acked[ref] = i
				mu.Unlock()
				if i%50 == 0 { // so that readers meet misses too
					s.cache.drop()
				}
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				ref := types.DataRef(types.Key(fmt.Sprintf("k%d", rand.IntN(4))))
				mu.Lock()
				want, known := acked[ref]
				mu.Unlock()
				if !known {
					continue
				}
				rec, err := s.Get(ref)
				if got, _ := strconv.Atoi(string(rec.Value)); err != nil || got < want {
					t.Errorf("%s: read %d, %v after %d was acknowledged", ref, got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// drop empties the cache.
func (c *cache) drop() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for len(s.ring) > 0 {
			s.remove(s.ring[0])
		}
		s.mu.Unlock()
	}
}

func TestCacheStaysWithinItsLimit(t *testing.T) {
	c := newCache(64 << 10)
	put := func(i, size int) {
		rec := types.Record{Ref: types.DataRef(types.Key(strconv.Itoa(i))), Value: make([]byte, size)}
		_, ok, ticket := c.get(rec.Ref)
		if ok {
			c.commit(rec)
		} else {
			c.fill(rec, ticket)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		put(r.IntN(500), r.IntN(700))
	}
	for i := range c.shards {
		s := &c.shards[i]
		sum := 0
		for place, e := range s.ring {
			sum += e.weight()
			if e.place != place || s.entries[e.rec.Ref] != e {
				t.Fatal("the ring and the map disagree")
			}
		}
		if sum != s.bytes || len(s.entries) != len(s.ring) || s.bytes > s.limit && len(s.ring) > 1 {
			t.Fatalf("shard %d: %d bytes counted, %d held, limit %d", i, s.bytes, sum, s.limit)
		}
	}
}
