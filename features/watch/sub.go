package watch

import (
	"context"
	"errors"
	"fmt"

	"kvs/types"
)

// How a subscription ends beside Close.
var (
	// ErrGone is about a place from which nobody can be brought up to date.
	ErrGone = errors.New("what happened since is not known any more")
	// ErrSlow ends a subscription that fell behind the ring.
	ErrSlow = errors.New("the events were not read in time")
	// ErrClosed ends all subscriptions when Run does.
	ErrClosed = errors.New("the hub has ended")
)

// SubOptions say what a subscriber wants.
type SubOptions struct {
	Prefix types.Key // of keys; empty: all
	From   *Place    // where to go on; nil: from now on
	// Visible, if any, says which records there are as far as the subscriber is
	// concerned. It is asked for each event, at the time when that is read, and
	// sees the record without its value.
	Visible func(*types.Record) bool
}

// Sub is one subscription. It is for one goroutine; whoever has it calls Close.
//
// A loop of its reader asks for Ready, then calls Take, and if that gives nothing
// waits for what Ready gave.
type Sub struct {
	hub    *Hub
	o      SubOptions
	group  *group
	epoch  int
	cursor uint64 // in the ring
	place  Place  // what is before it was taken, or is none of the subscriber's
	skip   Place  // events of the ring before it are not new

	catchup *catchup // nil: the ring is all there is to read
	behind  bool     // it has caught up since it last read all that was in the ring
	rejoins int      // how often, since then
	closed  bool
}

// Batch is what a subscriber takes at a time.
type Batch struct {
	Events [][]byte // encoded, and shared: not to be changed
	Place  Place    // from which to resume behind them
}

// batchBytes bounds a batch, but for one event that is larger.
const batchBytes = 64 << 10

// maxRejoins is how often in a row a subscriber may find that the ring has moved
// on while it caught up.
const maxRejoins = 4

// Subscribe begins a subscription. What was committed before the call, and was
// not before o.From, is caught up with; without o.From it is left out. The error
// wraps ErrGone, or is ErrClosed.
func (h *Hub) Subscribe(o SubOptions) (*Sub, error) {
	newest := h.store.Seq()
	s := &Sub{hub: h, o: o, group: h.fan.join(o.Prefix)}
	to, time, err := s.join()
	switch {
	case err != nil:
	case o.From == nil:
		s.place = behindAt(max(newest, to), time)
		s.skip = s.place
	default:
		if err = h.check(*o.From, newest); err == nil {
			s.place = *o.From
			s.catchUp(to, time)
		}
	}
	if err != nil {
		h.fan.leave(s.group)
		return nil, err
	}
	h.watchers.Add(1)
	return s, nil
}

// check refuses places from which something would be missed.
func (h *Hub) check(p Place, newest uint64) error {
	if p.Seq > newest {
		return fmt.Errorf("%w: this node is at commit %d, and the id is of commit %d", ErrGone, newest, p.Seq)
	}
	if h.marks.gone(p, newest) {
		return fmt.Errorf("%w: what was deleted or expired after commit %d is being forgotten", ErrGone, p.Seq)
	}
	return nil
}

// join begins to read the ring at its end: behind commit to, and the expiries up
// to time. The error is ErrClosed.
func (s *Sub) join() (to uint64, time int64, err error) {
	f := s.hub.fan
	s.hub.turn.Lock()
	defer s.hub.turn.Unlock()
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return 0, 0, ErrClosed
	}
	s.epoch, s.cursor = f.epoch, f.first+uint64(len(f.ring))-1
	return f.seq, f.time, nil
}

// catchUp has what is between the subscriber's place and the end of the ring, as
// join gave it, read first.
func (s *Sub) catchUp(to uint64, time int64) {
	s.skip, s.behind = s.place, true
	s.catchup = newCatchup(s.place, to, time, s.hub.marks)
}

// Place is from where to resume behind what Take gave.
func (s *Sub) Place() Place { return s.place }

// Ready gives a channel that is closed when Take has something.
func (s *Sub) Ready() <-chan struct{} {
	if s.catchup != nil {
		return always
	}
	return s.hub.fan.ready(s.group)
}

var always = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Take gives what there is, without waiting for more; while the subscriber
// catches up it reads the store. An empty batch says that there is nothing. The
// error ends the subscription: it is ErrSlow, ErrGone, ErrClosed, or the
// context's.
func (s *Sub) Take(ctx context.Context) (Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		if s.catchup == nil {
			b, again, err := s.takeLive()
			if !again || err != nil {
				return b, err
			}
			continue
		}
		out, done, err := s.catchup.step(ctx, s)
		if done {
			s.catchup.release(s.hub)
			s.catchup = nil
		}
		if err != nil || len(out) > 0 {
			return Batch{out, s.place}, err
		}
	}
}

// takeLive reads the ring. again says that it read nothing, and there is
// something to do before the next look.
func (s *Sub) takeLive() (b Batch, again bool, err error) {
	h := s.hub
	v := h.fan.after(s.group, s.cursor, batchBytes)
	switch {
	case v.closed:
		return b, false, ErrClosed
	case v.epoch != s.epoch, v.lost && s.behind:
		// The hub, or this subscriber while it caught up, was overtaken.
		if s.rejoins++; s.rejoins > maxRejoins {
			return b, false, s.slow()
		}
		if err := h.check(s.place, h.store.Seq()); err != nil {
			return b, false, err
		}
		to, time, err := s.join()
		if err == nil {
			s.catchUp(to, time)
		}
		return b, true, err
	case v.lost:
		return b, false, s.slow()
	}
	s.cursor = v.cursor
	for _, e := range v.events {
		if e.kind != Expire && s.skip.passed(e.place.Seq, int(e.place.Index)) {
			continue
		}
		s.place = later(s.place, e.place)
		if s.o.Visible == nil || s.o.Visible(&e.rec) {
			b.Events = append(b.Events, e.data)
		}
	}
	if v.all {
		s.place, s.behind, s.rejoins = later(s.place, v.end), false, 0
	}
	b.Place = s.place
	return b, !v.all && len(b.Events) == 0, nil
}

func (s *Sub) slow() error {
	s.hub.dropped.Add(1)
	return fmt.Errorf("%w: behind commit %d", ErrSlow, s.place.Seq)
}

// Close ends the subscription.
func (s *Sub) Close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.catchup != nil {
		s.catchup.release(s.hub)
	}
	s.hub.fan.leave(s.group)
	s.hub.watchers.Add(-1)
}
