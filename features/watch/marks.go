package watch

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"kvs/storage"
	"kvs/types"
)

// marks remembers, durably, when commits were made and when what happened then
// will be forgotten. A place is a commit and an index; the marks tell of it
//
//   - a time before which its commit was not made, and so which expiries may be
//     missing behind it (madeAt);
//   - whether something behind it was purged already (gone).
//
// A mark is written every few seconds of use, in the transaction of a commit that
// is made anyway or else in one of its own. It covers what happened since the one
// before. What is going to be forgotten within fresh is covered at once: no
// horizon can pass it before it is durably known.
//
// Entries in the store, all integers big-endian:
//
//	'm' | sequence 8 | Unix ms 8 -> flags 1 (1: the commit made the mark) | changed 8 | expired 8
//	'l'                          -> shortest lag 8 | longest lag 8
type marks struct {
	horizon func() int64
	most    int // marks; beyond it, the older half becomes coarser

	mu    sync.Mutex // guards what follows; held by the committer for moments only
	ready bool       // start was called
	list  []mark     // ascending
	open  mark       // what happened since the last of list; without time
	dirty bool       // open is worth a mark
	lag   lag

	stored lag // what the store has of lag; the committer's, and start's
}

// mark is a moment: commit seq was the newest at this time.
type mark struct {
	seq  uint64
	time int64 // Unix ms
	// own says that the mark was written by commit seq, so that time is the
	// commit's.
	own bool
	// changed is the smallest purge time of the records that were changed since
	// the mark before, and expired that of the values that expired; never if none
	// has one.
	changed, expired int64
}

const never = math.MaxInt64

// lag says how long before its purge time a value expires: tombstone_grace, of
// whichever node wrote it, and some seconds of rounding. It is what makes the
// purge index an index of expiries.
type lag struct{ shortest, longest int64 }

func (l lag) none() bool { return l.shortest > l.longest }

var noLag = lag{math.MaxInt64, math.MinInt64}

const (
	markEvery = 5 * time.Second
	// fresh is far more than a mark may be late, and more than the horizon can be
	// ahead of the clock.
	fresh    = time.Minute
	maxMarks = 1024
	// lagStep rounds lags, so that they are written a few times in all.
	lagStep = 10_000
)

func newMarks() *marks {
	return &marks{most: maxMarks, open: mark{changed: never, expired: never}, lag: noLag, stored: noLag}
}

// Keyspace implements storage.Hook.
func (m *marks) Keyspace() byte { return storage.SpaceWatch }

// Committed implements storage.Hook.
func (m *marks) Committed(uint64, []storage.Staged) {}

// Stage implements storage.Hook.
func (m *marks) Stage(tx *storage.HookTx, changes []storage.Staged) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range changes {
		if rec := &changes[i].New; rec.NS == types.NSData {
			m.change(tx.Seq(), rec)
		}
	}
	if m.lag != m.stored {
		tx.Set([]byte{'l'}, m.lag.encode())
		m.stored = m.lag
	}
	now := tx.Now()
	if !m.ready || !m.due(now) && m.open.changed > now+fresh.Milliseconds() {
		return
	}
	if m.dirty {
		m.close(tx, now, len(changes) > 0)
	}
}

// change notes a changed record. mu is held.
func (m *marks) change(seq uint64, rec *types.Record) {
	m.open.seq, m.dirty = seq, true
	if rec.PurgeAt == 0 {
		return
	}
	m.open.changed = min(m.open.changed, rec.PurgeAt)
	if rec.ExpiresAt != 0 && !rec.Tombstone() {
		m.lag.add(rec)
	}
}

// add takes the lag of one value in. One that no sane node gives is taken for an
// extreme one: sums with it must not overflow.
func (l *lag) add(rec *types.Record) {
	const most = math.MaxInt64 / 4
	d := min(max(rec.PurgeAt, -most), most) - min(max(rec.ExpiresAt, -most), most)
	low := d - (d%lagStep+lagStep)%lagStep
	l.shortest, l.longest = min(l.shortest, low), max(l.longest, low+lagStep)
}

func (l lag) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(l.shortest))
	return binary.BigEndian.AppendUint64(b, uint64(l.longest))
}

// due reports whether open is worth a mark and the last one is old enough; so it
// is after the clock was set back. mu is held.
func (m *marks) due(now int64) bool {
	if !m.dirty || len(m.list) == 0 {
		return m.dirty
	}
	age := now - m.list[len(m.list)-1].time
	return age >= markEvery.Milliseconds() || age < 0
}

// close makes a mark of open, and drops or folds old ones. mu is held.
func (m *marks) close(tx *storage.HookTx, now int64, own bool) {
	done := m.open
	done.seq, done.time, done.own = tx.Seq(), now, own
	m.list = append(m.list, done)
	tx.Set(done.key(), done.value())
	m.open, m.dirty = mark{seq: done.seq, changed: never, expired: never}, false

	// Whatever is before a mark that is gone is gone too.
	horizon := m.horizon()
	for i := len(m.list) - 1; i > 0; i-- {
		if min(m.list[i].changed, m.list[i].expired) <= horizon {
			for _, old := range m.list[:i] {
				tx.Delete(old.key())
			}
			m.list = slices.Delete(m.list, 0, i)
			break
		}
	}
	if len(m.list) > m.most {
		m.coarsen(tx)
	}
}

// coarsen folds every second mark of the older half, but not the oldest, into its
// successor. mu is held.
func (m *marks) coarsen(tx *storage.HookTx) {
	kept := m.list[:1:1]
	i := 1
	for ; i+1 < len(m.list)/2; i += 2 {
		folded, into := m.list[i], m.list[i+1]
		into.changed, into.expired = min(into.changed, folded.changed), min(into.expired, folded.expired)
		tx.Delete(folded.key())
		tx.Set(into.key(), into.value())
		kept = append(kept, into)
	}
	m.list = append(kept, m.list[i:]...)
}

// expire notes that a value which was to expire at a time (Unix ms) has done so,
// or was overwritten before.
func (m *marks) expire(at int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lag.none() {
		return
	}
	m.open.expired, m.dirty = min(m.open.expired, at+m.lag.shortest), true
}

// keep writes a mark where no commit does, until ctx ends.
func (m *marks) keep(ctx context.Context, store *storage.Store) {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		// What is never forgotten can wait for the next commit.
		due := m.due(store.Now().UnixMilli()) && min(m.open.changed, m.open.expired) != never
		m.mu.Unlock()
		if due {
			// An error is that of the store, of which others tell. What is open
			// stays so, which only refuses more than need be.
			_ = store.CommitHooks(ctx)
		}
	}
}
