package ratelimit

import (
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Options configure a Limiter.
type Options struct {
	Requests   int              // a window, and at once after a pause; 0: 100,000
	Window     time.Duration    // 0: 1m
	MaxClients int              // that have a bucket of their own at a time; 0: 65536
	Now        func() time.Time // nil: time.Now
}

// Decision is the answer to one request.
type Decision struct {
	OK         bool
	Limit      int           // Options.Requests
	Remaining  int           // requests that would be taken at once after this one
	RetryAfter time.Duration // until one would be taken; 0 where this one is
	Reset      time.Duration // until Limit would be taken at once, with none in between
}

// Limiter decides about requests. It is safe for concurrent use.
type Limiter struct {
	rate  rate.Limit // tokens a second
	least float64    // tokens a nanosecond: a bucket lets pass what lacks less than this
	burst int
	now   func() time.Time

	seed     maphash.Seed // random, so that nobody can aim at one shard
	shards   []shard
	overflow *rate.Limiter // of all whom the table has no room for

	limited, overflowed atomic.Uint64
}

// New makes a Limiter that knows no client yet.
func New(o Options) *Limiter {
	if o.Requests <= 0 {
		o.Requests = 100_000
	}
	if o.Window <= 0 {
		o.Window = time.Minute
	}
	if o.MaxClients <= 0 {
		o.MaxClients = 1 << 16
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Limiter{
		rate:  rate.Limit(float64(o.Requests) / o.Window.Seconds()),
		burst: o.Requests,
		now:   o.Now,
		seed:  maphash.MakeSeed(),
	}
	l.least = float64(l.rate) / float64(time.Second)
	l.overflow = l.bucket()
	l.shards = newShards(o.MaxClients)
	return l
}

func (l *Limiter) bucket() *rate.Limiter { return rate.NewLimiter(l.rate, l.burst) }

// Allow decides about one request of a client, and counts it if it is taken.
func (l *Limiter) Allow(key Key) Decision {
	now := l.now()
	s := &l.shards[maphash.Comparable(l.seed, key)%uint64(len(l.shards))]

	s.mu.Lock()
	c := s.clients[key]
	if c == nil {
		c = s.admit(l, key, now)
	}
	if c != nil {
		d := l.take(c.bucket, now)
		s.mu.Unlock()
		return d
	}
	s.mu.Unlock()

	l.overflowed.Add(1)
	return l.take(l.overflow, now)
}

func (l *Limiter) take(b *rate.Limiter, now time.Time) Decision {
	d := Decision{OK: b.AllowN(now, 1), Limit: l.burst}
	// In the shared bucket others may take some in between: then the figures are
	// theirs too, as the bucket is.
	tokens := b.TokensAt(now)
	d.Remaining = min(max(0, int(tokens+l.least)), l.burst)
	d.Reset = l.refill(float64(l.burst) - tokens)
	if !d.OK {
		d.RetryAfter = l.refill(1 - tokens)
		l.limited.Add(1)
	}
	return d
}

// refill is the time that so many tokens take, to the nanosecond. Who waits for
// it has waited long enough (see least).
func (l *Limiter) refill(tokens float64) time.Duration {
	d := math.Round(tokens / float64(l.rate) * float64(time.Second))
	return time.Duration(max(0, d))
}

// Clients is how many have a bucket of their own now, those included whose
// bucket is full again and who are dropped when others come.
func (l *Limiter) Clients() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.clients)
		s.mu.Unlock()
	}
	return n
}

// Limited is how many requests were refused.
func (l *Limiter) Limited() uint64 { return l.limited.Load() }

// Overflowed is how many requests were decided by the bucket that newcomers
// share while the table is full.
func (l *Limiter) Overflowed() uint64 { return l.overflowed.Load() }
