// Package hlc is a hybrid logical clock (Kulkarni et al., "Logical Physical
// Clocks and Consistent Snapshots in Globally Distributed Databases", 2014):
// readings that follow the wall clock as closely as causality allows.
//
// A reading is one integer: 48 bits of Unix milliseconds, then 16 bits of a
// counter. Readings compare as integers. The counter carries into the
// milliseconds, so more than 65,536 readings in one millisecond run ahead of
// the wall clock for a moment, and never repeat or block.
//
// Invariants:
//   - A reading is greater than every reading given or observed before.
//   - The clock never goes back, whatever the wall clock does.
//
// It does not judge: how far ahead an observed reading may be is the caller's
// to check, before it calls Observe. It keeps nothing on disk either: the
// caller hands in a floor that it knows to lie above everything ever given.
package hlc

import (
	"fmt"
	"math"
	"sync"
	"time"
)

const counterBits = 16

// Clock is safe for concurrent use.
type Clock struct {
	wall func() time.Time

	mu   sync.Mutex // guards last
	last uint64     // greatest reading given or observed
}

// New makes a clock over a wall clock, whose readings are all above floor.
func New(wall func() time.Time, floor uint64) *Clock {
	return &Clock{wall: wall, last: floor}
}

// Now gives the next reading.
func (c *Clock) Now() uint64 {
	wall := reading(c.wall())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == math.MaxUint64 {
		// The year 10889: nothing but an unchecked Observe leads here.
		panic("hlc: the clock has no reading left, since the greatest possible one was observed")
	}
	c.last = max(c.last+1, wall)
	return c.last
}

// Observe merges a reading of another clock: those given from now on are
// greater.
func (c *Clock) Observe(ts uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, ts)
}

// Last gives the greatest reading given or observed so far, or the floor.
func (c *Clock) Last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Wall reads the wall clock below.
func (c *Clock) Wall() time.Time { return c.wall() }

// Ahead tells how far the last reading is ahead of the wall clock, in whole
// milliseconds; 0 if it is not.
func (c *Clock) Ahead() time.Duration {
	ahead := int64(c.Last()>>counterBits) - int64(reading(c.wall())>>counterBits)
	// 48 bits of milliseconds exceed what a Duration holds.
	return time.Duration(min(max(ahead, 0), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// reading is the first reading of a time's millisecond.
func reading(t time.Time) uint64 {
	ms := t.UnixMilli()
	if ms < 0 || ms >= 1<<(64-counterBits) {
		panic(fmt.Sprintf("hlc: the wall clock shows %s, which a reading cannot hold", t))
	}
	return uint64(ms) << counterBits
}
