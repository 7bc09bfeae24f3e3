package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// digest is what a cache knows a token by: a cache so holds no tokens, pins no
// request's buffers, and the time of its look-up tells nothing about a token.
type digest [sha256.Size]byte

func digestOf(token string) digest {
	var short [512]byte // on the stack, for nearly all tokens
	return sha256.Sum256(append(short[:0], token...))
}

// cache remembers values until they expire, as many as it was made for. It is
// safe for concurrent use, and readers do not keep each other waiting.
//
// It has two generations. When the young one is full it becomes the old one, and
// what was old is forgotten; what is read while old becomes young again. So what
// is in use stays, what expired is gone within two generations, and nothing ever
// scans.
type cache[K comparable, V any] struct {
	half int // values in a generation

	mu         sync.RWMutex // guards the generations
	young, old map[K]remembered[V]
}

type remembered[V any] struct {
	value   V
	expires time.Time
}

func newCache[K comparable, V any](size int) *cache[K, V] {
	return &cache[K, V]{half: size / 2, young: map[K]remembered[V]{}}
}

// get gives a value that has not expired: at the very moment of its expiry it
// has.
func (c *cache[K, V]) get(key K, now time.Time) (value V, ok bool) {
	c.mu.RLock()
	r, young := c.young[key]
	if ok = young; !ok {
		r, ok = c.old[key]
	}
	c.mu.RUnlock()
	if !ok || !now.Before(r.expires) {
		return value, false
	}
	if !young {
		c.put(key, r.value, r.expires)
	}
	return r.value, true
}

func (c *cache[K, V]) put(key K, value V, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.young[key]; !ok && len(c.young) >= c.half {
		c.young, c.old = make(map[K]remembered[V], c.half), c.young
	}
	c.young[key] = remembered[V]{value, expires}
}

// size counts what is held, expired or not; a value may count twice.
func (c *cache[K, V]) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.young) + len(c.old)
}
