package watch

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"time"

	"kvs/storage"
	"kvs/types"
)

// expiries are the values that expire soon, in order. It is bounded: it covers
// the time up to until, which is moved on by walking the purge index, and back
// when too many values would expire before it.
//
// An entry is a hint: whether the value is still that one is looked up when the
// time has come.
type expiries struct {
	most  int // entries
	queue expiryQueue
	// until: every value that expires at or before it, but not before it was
	// covered, is in queue.
	until int64 // Unix ms

	// A walk over the purge index is under way if target is not 0: it covers the
	// time from until to target. What is committed meanwhile is added as well.
	target int64
	next   storage.PurgePlace
	// held keeps what did not fit from being looked for again before it is due.
	held bool
}

// expiry says that a key's value expires at a time (Unix ms).
type expiry struct {
	at  int64
	key types.Key
}

// add takes a value that expires at a time that is not past. Beyond what is
// covered it is left to a later walk.
func (x *expiries) add(e expiry) {
	if e.at > max(x.until, x.target) {
		return
	}
	heap.Push(&x.queue, e)
	if len(x.queue) > x.most {
		x.cut()
	}
}

// cut drops the later half, and covers less.
func (x *expiries) cut() {
	slices.SortFunc(x.queue, expiry.compare) // which is a heap too
	first := x.queue[x.most/2].at            // covered no more
	n, _ := slices.BinarySearchFunc(x.queue, first, func(e expiry, at int64) int { return cmp.Compare(e.at, at) })
	clear(x.queue[n:])
	x.queue, x.held = x.queue[:n], true
	x.until = min(x.until, first-1)
	if x.target = min(x.target, first-1); x.target <= x.until {
		x.target = 0
	}
}

// due takes the next value that has expired by now.
func (x *expiries) due(now int64) (expiry, bool) {
	if len(x.queue) == 0 || x.queue[0].at > now {
		return expiry{}, false
	}
	return heap.Pop(&x.queue).(expiry), true
}

// soonest gives the time at which the next value expires, as far as time is
// covered, or else at which more is to be covered.
func (x *expiries) soonest() int64 {
	if len(x.queue) == 0 {
		return x.refill()
	}
	return min(x.queue[0].at, x.refill())
}

// refill gives the time at which the walk is to go on, or to begin.
func (x *expiries) refill() int64 {
	switch {
	case x.target != 0:
		return 0
	case x.held:
		return x.until + 1
	}
	return x.until - window.Milliseconds()/2
}

// reset covers nothing after a time.
func (x *expiries) reset(until int64) {
	clear(x.queue)
	x.queue, x.until, x.target, x.held = x.queue[:0], until, 0, false
}

// window is how far ahead expiries are looked for.
const window = time.Minute

// walkStep is how many entries of the purge index are read at a time: nobody is
// told anything meanwhile.
const walkStep = 512

// walk goes one step on to cover the next window, and gives what has expired by
// now and was current at commit seq. lags are those of all values.
func (x *expiries) walk(ctx context.Context, store *storage.Store, now int64, seq uint64, lags lag) (late []types.Record, err error) {
	if x.target == 0 {
		x.target, x.held = max(now, x.until)+window.Milliseconds(), false
		x.next = storage.PurgePlace{At: x.until + lags.shortest}
	}
	seen, more := 0, false
	err = store.WalkPurge(ctx, types.NSData, "", x.next, x.target+lags.longest, func(rec *types.Record, made uint64) bool {
		if seen++; seen > walkStep {
			more = true
			return false
		}
		x.next = storage.PurgePlace{At: rec.PurgeAt, Ref: rec.Ref}
		switch at := rec.ExpiresAt; {
		case rec.Tombstone() || at <= x.until || at > x.target:
		case at <= now && made <= seq:
			late = append(late, *rec)
		case at <= now: // it is told with its commit
		default:
			x.add(expiry{at, rec.Key})
		}
		return x.target != 0
	})
	if err == nil && !more && x.target != 0 {
		x.until, x.target = x.target, 0
	}
	return late, err
}

func (e expiry) compare(o expiry) int {
	return cmp.Or(cmp.Compare(e.at, o.at), cmp.Compare(e.key, o.key))
}

// expiryQueue is a heap.Interface, soonest first.
type expiryQueue []expiry

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].compare(q[j]) < 0 }
func (q expiryQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *expiryQueue) Push(e any)        { *q = append(*q, e.(expiry)) }
func (q *expiryQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = expiry{}
	*q = old[:len(old)-1]
	return e
}
