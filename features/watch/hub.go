package watch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kvs/storage"
	"kvs/types"
)

// Options configure a Hub. Encode is required.
type Options struct {
	// Encode appends an event as subscribers get it. It is called once for all
	// that hear of an event when it happens, and once for each that catches up.
	Encode func(b []byte, e *Event) []byte

	RingBytes int          // of encoded events kept for those who read; 0 = 16 MiB
	Horizon   func() int64 // what is forgotten, Unix ms; nil = the store's
	Log       *slog.Logger // nil = slog.Default
}

// Hub follows a store and tells subscribers. Hook is handed to storage.Open,
// Start is called before the first write, and then Run. Its methods are safe for
// concurrent use.
type Hub struct {
	encode func([]byte, *Event) []byte
	log    *slog.Logger
	store  *storage.Store // set by Start
	marks  *marks
	fan    *fanout

	// turn is held while what one commit did, or what expired at one moment, goes
	// into the ring: whoever holds it finds the ring at the end of a commit.
	turn sync.Mutex

	// What follows is Run's.
	seq      uint64 // of the last commit that was told
	time     int64  // Unix ms; all expiries up to it were told, of what seq covers
	expiries expiries
	scratch  []byte
	unwoken  int // bytes added since somebody was woken

	scanning chan struct{} // a slot for each subscriber that reads much at once
	room     lending       // for those that catch up
	watchers atomic.Int64
	dropped  atomic.Uint64
}

const (
	// followBytes bounds what is taken from the store at a time.
	followBytes = 1 << 20
	// wakeBytes is how much of one commit readers are left unaware of.
	wakeBytes = 256 << 10
	// nap is the longest time without a look at the clock, which may be set.
	nap = time.Second
	// maxExpiries bounds the expiries that are known in advance; an entry is some
	// 100 bytes.
	maxExpiries = 1 << 17
	// maxScans bounds the subscribers that read much of the store at once.
	maxScans = 2
)

// New makes a Hub.
func New(o Options) *Hub {
	if o.RingBytes == 0 {
		o.RingBytes = 16 << 20
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	h := &Hub{
		encode: o.Encode, log: o.Log, marks: newMarks(), fan: newFanout(o.RingBytes),
		expiries: expiries{most: maxExpiries}, scanning: make(chan struct{}, maxScans),
		room: lending{most: 4 << 20, least: 64 << 10, total: 32 << 20},
	}
	h.marks.horizon = o.Horizon
	return h
}

// Hook is what takes part in the store's commits.
func (h *Hub) Hook() storage.Hook { return h.marks }

// Start prepares for subscribers, who then hear of what is committed from here
// on once Run runs. It is called once.
func (h *Hub) Start(ctx context.Context, store *storage.Store) error {
	h.store = store
	if h.marks.horizon == nil {
		h.marks.horizon = store.Horizon
	}
	if err := h.marks.start(ctx, store); err != nil {
		return err
	}
	h.seq, h.time = store.Seq(), store.Now().UnixMilli()
	h.expiries.reset(h.time)
	h.fan.reached(h.seq, h.time)
	return nil
}

// Run tells subscribers until ctx ends; then their subscriptions end with
// ErrClosed.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.marks.keep(ctx, h.store) })
	defer h.fan.wakeAll(func() { h.fan.closed = true })

	timer := time.NewTimer(nap)
	defer timer.Stop()
	for ctx.Err() == nil {
		committed := h.store.Committed() // these three in this order: nothing falls between
		seq := h.store.Seq()
		commits, ok := h.store.Recent(h.seq, followBytes)
		// The clock is read after the commits: it shows no time before theirs. So
		// expiries up to their time are told before them.
		if err := h.expire(ctx, h.store.Now().UnixMilli()); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		if !ok {
			h.jump(seq)
			continue
		}
		told := false
		for i := range commits {
			// A commit is in the store's ring before it can be read.
			if commits[i].Seq <= seq {
				h.tellCommit(&commits[i])
				told = true
			}
		}
		if told {
			continue
		}
		pause := time.Duration(h.expiries.soonest()-h.store.Now().UnixMilli()) * time.Millisecond
		timer.Reset(min(max(pause, 0), nap))
		select {
		case <-committed:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// jump goes on at a commit, after those before it have left the store's ring
// unseen. Subscribers have to catch up by themselves.
func (h *Hub) jump(seq uint64) {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.log.Debug("more was written than could be told in time; watchers read it from the store", "from", h.seq, "to", seq)
	h.seq = seq
	h.expiries.reset(h.time) // some of the missed values may expire soon
	h.fan.wakeAll(func() {
		h.fan.seq, h.fan.time = h.seq, h.time
		h.fan.epoch++
	})
}

// tellCommit tells what a commit changed.
func (h *Hub) tellCommit(c *storage.Commit) {
	h.turn.Lock()
	defer h.turn.Unlock()
	for i := range c.Changes {
		rec := &c.Changes[i].Record
		if rec.NS != types.NSData {
			continue
		}
		kind := kindOf(rec, h.time)
		if kind == Put && rec.ExpiresAt != 0 {
			h.expiries.add(expiry{rec.ExpiresAt, rec.Key})
		}
		if h.fan.wanted(rec.Key) {
			h.tell(&Event{kind, Place{c.Seq, int32(i)}, rec})
		}
	}
	h.seq = c.Seq
	h.reached()
}

// expire tells what has expired by now.
func (h *Hub) expire(ctx context.Context, now int64) error {
	now = max(now, h.time) // the clock may have been set back
	for x := &h.expiries; x.until < now || x.refill() <= now; {
		if err := h.refill(ctx, now); err != nil {
			return err
		}
		if x.until >= now {
			break // the rest has time
		}
	}
	h.turn.Lock()
	defer h.turn.Unlock()
	var last expiry
	for {
		e, ok := h.expiries.due(now)
		if !ok {
			break
		}
		if e == last {
			continue // a walk and a commit both found it
		}
		last = e
		h.time = max(h.time, e.at-1)
		h.marks.expire(e.at)
		if !h.fan.wanted(e.key) {
			continue
		}
		rec, seq, err := h.store.Current(types.DataRef(e.key))
		// What was committed since h.seq is told with its commit. A record that
		// cannot be read is told when it was repaired.
		if err == nil && seq <= h.seq && rec.ExpiresAt == e.at && !rec.Tombstone() {
			h.tell(&Event{Expire, behindAt(h.seq, h.time), &rec})
		}
	}
	if now > h.time {
		h.time = now
	}
	h.reached()
	return nil
}

// refill covers more time, and tells what it finds too late.
func (h *Hub) refill(ctx context.Context, now int64) error {
	lags, ok := h.marks.lags()
	if !ok {
		h.expiries.reset(now + window.Milliseconds()) // nothing ever had an expiry
		return nil
	}
	late, err := h.expiries.walk(ctx, h.store, now, h.seq, lags)
	h.turn.Lock()
	defer h.turn.Unlock()
	for i := range late {
		h.marks.expire(late[i].ExpiresAt)
		if h.fan.wanted(late[i].Key) {
			h.tell(&Event{Expire, behindAt(h.seq, h.time), &late[i]})
		}
	}
	return err
}

// tell puts an event into the ring. turn is held.
func (h *Hub) tell(e *Event) {
	h.scratch = h.encode(h.scratch[:0], e)
	h.fan.add(&event{data: append([]byte(nil), h.scratch...), place: e.Place, kind: e.Kind, rec: head(e.Record)})
	if h.unwoken += len(h.scratch); h.unwoken > wakeBytes {
		h.fan.wake()
		h.unwoken = 0
	}
	if cap(h.scratch) > maxScratch {
		h.scratch = nil
	}
}

// maxScratch keeps the odd huge event from staying in memory.
const maxScratch = 1 << 20

// head is a record without what only its readers need.
func head(rec *types.Record) types.Record {
	r := *rec
	r.Value, r.Context = nil, nil
	return r
}

// reached ends a turn.
func (h *Hub) reached() {
	h.fan.reached(h.seq, h.time)
	h.fan.wake()
	h.unwoken = 0
}

// Stats are counters since the start.
type Stats struct {
	Watchers int    // subscriptions that are open
	Dropped  uint64 // subscriptions that ended with ErrSlow
}

// Stats reads the counters.
func (h *Hub) Stats() Stats { return Stats{int(h.watchers.Load()), h.dropped.Load()} }
