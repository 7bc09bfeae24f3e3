package watch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"kvs/storage"
	"kvs/types"
)

// catchup reads what happened between a subscriber's place and the moment at
// which it joined the ring: first the values that were there before the place and
// expired since, then the changes in the order of the commits. In this order,
// because the place of a change says that earlier expiries were told.
type catchup struct {
	from Place
	to   uint64 // the newest commit at the moment of joining
	time int64  // what the ring says of expiries at that moment
	// step gives the next events, perhaps none; s.place is then behind them. done
	// says that they are the last.
	step func(ctx context.Context, s *Sub) (out [][]byte, done bool, err error)

	// The walk over the purge index for what expired after since.
	since int64 // Unix ms
	walk  storage.PurgePlace
	end   int64 // a purge time

	// The scan over changed keys, where the store's ring does not reach back.
	base   uint64 // what changed after it
	keys   selection
	filler int32 // events of the commit under way
}

func newCatchup(from Place, to uint64, time int64, m *marks) *catchup {
	c := &catchup{from: from, to: to, time: time}
	var ok bool
	if c.since, ok = from.until(); !ok {
		c.since = m.madeAt(from)
	}
	c.step = c.recent
	if lags, ok := m.lags(); ok && c.since < time {
		c.walk, c.end = storage.PurgePlace{At: c.since + lags.shortest}, time+lags.longest
		c.step = c.expired
	}
	return c
}

// expired walks over values that were there before the place. Those events have
// the place itself: until all of them are told, there is no later one.
func (c *catchup) expired(ctx context.Context, s *Sub) (out [][]byte, _ bool, err error) {
	release, err := s.hub.slot(ctx)
	if err != nil {
		return nil, false, err
	}
	defer release()
	size, more := 0, false
	err = s.hub.store.WalkPurge(ctx, types.NSData, s.o.Prefix, c.walk, c.end, func(rec *types.Record, made uint64) bool {
		if more = size >= batchBytes; more {
			return false
		}
		c.walk = storage.PurgePlace{At: rec.PurgeAt, Ref: rec.Ref}
		// Of the place's own commit too: what is before the place is not told again
		// as a change.
		missing := rec.ExpiresAt > c.since && rec.ExpiresAt <= c.time && !rec.Tombstone() && made <= c.from.Seq
		if missing && s.sees(rec) {
			out = append(out, s.hub.encode(nil, &Event{Expire, c.from, rec}))
			size += len(out[len(out)-1])
		}
		return true
	})
	if err == nil {
		err = s.hub.check(c.from, s.hub.store.Seq())
	}
	if err != nil {
		return nil, false, err
	}
	if !more {
		c.step = c.recent
	}
	return out, false, nil
}

// recent reads the store's ring, for as long as it reaches back to the place.
func (c *catchup) recent(_ context.Context, s *Sub) (out [][]byte, done bool, err error) {
	if s.place.before() >= c.to {
		return nil, c.arrive(s), nil
	}
	commits, ok := s.hub.store.Recent(s.place.before(), batchBytes)
	if !ok {
		c.base, c.step = s.place.before(), c.scan
		return nil, false, nil
	}
	size := 0
	for _, commit := range commits {
		if commit.Seq > c.to {
			break
		}
		for i := range commit.Changes {
			rec := &commit.Changes[i].Record
			if s.place.passed(commit.Seq, i) || !s.watches(rec) {
				continue
			}
			if size >= batchBytes {
				return out, false, nil
			}
			s.place = Place{commit.Seq, int32(i)}
			if s.sees(rec) {
				out = append(out, s.hub.encode(nil, &Event{kindOf(rec, c.time), s.place, rec}))
				size += len(out[len(out)-1])
			}
		}
		s.place = Behind(commit.Seq)
	}
	return out, s.place.before() >= c.to && c.arrive(s), nil
}

// scan reads the current records of the keys that changed. The events of one
// commit are in the order of keys, and but for the last one have a place before
// it.
func (c *catchup) scan(ctx context.Context, s *Sub) (out [][]byte, done bool, err error) {
	h := s.hub
	if len(c.keys.sorted) == 0 {
		if c.keys.complete {
			return nil, c.arrive(s), nil
		}
		if err := c.choose(ctx, s); err != nil {
			return nil, false, err
		}
	}
	begun, size := s.place, 0
	for size < batchBytes && len(c.keys.sorted) > 0 {
		k := c.keys.take()
		last := c.keys.ends(k.seq)
		rec, seq, err := h.store.Current(types.DataRef(k.key))
		if err != nil && !errors.Is(err, types.ErrNotFound) && !errors.Is(err, types.ErrCorrupt) {
			return nil, false, err
		}
		if last {
			s.place, c.filler = Place{k.seq, firstFiller}, 0
		} else {
			c.filler++
			s.place = Place{k.seq - 1, firstFiller + c.filler}
		}
		// What changed again belongs to a later commit; what cannot be read is
		// told when it was repaired.
		if err == nil && seq == k.seq && s.sees(&rec) {
			out = append(out, h.encode(nil, &Event{kindOf(&rec, c.time), s.place, &rec}))
			size += len(out[len(out)-1])
		}
	}
	// What was read is all there was, if nothing behind the place was forgotten
	// until now.
	if err := h.check(begun, h.store.Seq()); err != nil {
		s.place = begun
		return nil, false, err
	}
	return out, false, nil
}

// choose finds the keys that are next.
func (c *catchup) choose(ctx context.Context, s *Sub) error {
	release, err := s.hub.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	s.hub.room.giveBack(c.keys.room)
	c.keys.begin(s.hub.room.borrow())
	err = s.hub.store.ChangedKeys(ctx, types.NSData, s.o.Prefix, c.base, c.to, c.keys.offer)
	c.keys.sort()
	return err
}

// arrive ends the catching up, behind everything before the ring.
func (c *catchup) arrive(s *Sub) bool {
	if s.place.Seq <= c.to {
		s.place = behindAt(c.to, c.time)
	} else if s.place.whole() {
		s.place = behindAt(s.place.Seq, c.time)
	}
	return true
}

// release gives back what was borrowed.
func (c *catchup) release(h *Hub) {
	h.room.giveBack(c.keys.room)
	c.keys = selection{}
}

// watches reports whether a record is of what the subscriber asked for.
func (s *Sub) watches(rec *types.Record) bool {
	n := len(s.o.Prefix)
	return rec.NS == types.NSData && len(rec.Key) >= n && rec.Key[:n] == s.o.Prefix
}

// sees asks whether the subscriber may see a record.
func (s *Sub) sees(rec *types.Record) bool { return s.o.Visible == nil || s.o.Visible(rec) }

// slot waits for one of the slots of those who read much at once.
func (h *Hub) slot(ctx context.Context) (release func(), err error) {
	select {
	case h.scanning <- struct{}{}:
		return func() { <-h.scanning }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to read the store: %w", ctx.Err())
	}
}

// lending says how many bytes of keys those who catch up by scanning may keep:
// more make fewer scans. It is most each, until all of them together have total,
// and then least each.
type lending struct {
	most, least, total int64
	lent               atomic.Int64
}

func (l *lending) borrow() int64 {
	if l.lent.Add(l.most) <= l.total {
		return l.most
	}
	l.lent.Add(l.least - l.most)
	return l.least
}

func (l *lending) giveBack(n int64) { l.lent.Add(-n) }
