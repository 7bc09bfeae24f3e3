package ratelimit

import (
	"container/heap"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxShards     = 64
	leastPerShard = 256 // below this the shards would fill too unevenly

	// dropSteps bounds the work that a newcomer makes.
	dropSteps = 8
)

// shard holds the clients whose keys hash to it.
type shard struct {
	mu      sync.Mutex // guards all below, and the buckets
	most    int
	clients map[Key]*client
	byFull  fullHeap // the same clients
}

// client is one entry of the table.
type client struct {
	key    Key
	bucket *rate.Limiter
	// full is a time before which the bucket is not full again. Requests move the
	// true time on and leave this one behind, so that they need not touch the
	// heap; drop catches up.
	full time.Time
}

// newShards divides most among shards. Their sizes differ a little, as keys hash
// unevenly: the first is full while the table holds some less than most.
func newShards(most int) []shard {
	n := 1
	for n < maxShards && most/(2*n) >= leastPerShard {
		n *= 2
	}
	shards := make([]shard, n)
	for i := range shards {
		shards[i].most = most / n
		shards[i].clients = map[Key]*client{}
	}
	return shards
}

// admit makes an entry, nil where there is no room for one. The lock is held.
func (s *shard) admit(l *Limiter, key Key, now time.Time) *client {
	s.drop(l, now)
	if len(s.clients) >= s.most {
		return nil
	}
	c := &client{key: key, bucket: l.bucket(), full: now.Add(l.refill(1))}
	s.clients[key] = c
	heap.Push(&s.byFull, c)
	return c
}

// drop forgets some clients whose buckets are full again. It takes dropSteps at
// most, each of which forgets a client or learns when the bucket of one will be
// full: so the table shrinks faster than newcomers make it grow, and where a
// step ends early, no bucket is full.
func (s *shard) drop(l *Limiter, now time.Time) {
	for range dropSteps {
		if len(s.byFull) == 0 {
			return
		}
		first := s.byFull[0]
		if first.full.After(now) {
			return
		}
		if left := l.refill(float64(l.burst) - first.bucket.TokensAt(now)); left > 0 {
			first.full = now.Add(left)
			heap.Fix(&s.byFull, 0)
			continue
		}
		heap.Pop(&s.byFull)
		delete(s.clients, first.key)
	}
}

// fullHeap has the client with the earliest full first.
type fullHeap []*client

func (h fullHeap) Len() int           { return len(h) }
func (h fullHeap) Less(i, j int) bool { return h[i].full.Before(h[j].full) }
func (h fullHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *fullHeap) Push(x any)        { *h = append(*h, x.(*client)) }

func (h *fullHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return c
}
