// Package backoff spaces out the attempts at something that keeps failing: each
// pause about twice the one before, with jitter, so that those who failed
// together do not try again together.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff gives the pauses between attempts, from Min to Max. It is not safe
// for concurrent use.
type Backoff struct {
	Min time.Duration // of the first pause; 0: 100 ms
	Max time.Duration // no pause is longer; 0: 30 s. Below Min it counts as Min

	pause time.Duration // the last pause without its jitter; 0 at the start
}

// Next gives the next pause: between half and all of Min, 2*Min, 4*Min and so
// on up to Max.
func (b *Backoff) Next() time.Duration {
	first, last := b.Min, b.Max
	if first <= 0 {
		first = 100 * time.Millisecond
	}
	if last <= 0 {
		last = 30 * time.Second
	}
	last = max(first, last)
	switch {
	case b.pause == 0:
		b.pause = first
	case b.pause > last/2: // doubling would pass it, or overflow
		b.pause = last
	default:
		b.pause *= 2
	}
	half := b.pause / 2
	return half + rand.N(b.pause-half+1)
}

// Reset begins again at Min, after a success.
func (b *Backoff) Reset() { b.pause = 0 }

// Sleep waits for d and reports true, or false as soon as ctx ends.
func Sleep(ctx context.Context, d time.Duration) bool {
	// Checked first, because a select takes either case when both are ready.
	if ctx.Err() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
