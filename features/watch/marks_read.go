package watch

import (
	"context"
	"encoding/binary"
	"fmt"

	"kvs/storage"
	"kvs/types"
)

// start reads what the store has. What was committed after the last mark is
// looked at again; it cannot have been forgotten yet, see fresh.
func (m *marks) start(ctx context.Context, store *storage.Store) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := store.HookWalk(storage.SpaceWatch, nil, m.load); err != nil {
		return err
	}
	m.open.seq, m.ready = store.Seq(), true
	if len(m.list) == 0 {
		return m.begin(ctx, store)
	}
	last := m.list[len(m.list)-1]
	err := store.ChangedBetween(ctx, last.seq, m.open.seq, types.Ref{}, func(rec *types.Record) bool {
		if rec.NS == types.NSData {
			m.change(m.open.seq, rec)
		}
		return true
	})
	if err != nil || m.lag.none() {
		return err
	}
	// What expired since, be it while the node was off.
	return store.WalkPurge(ctx, types.NSData, "", storage.PurgePlace{At: last.time + m.lag.shortest}, never, func(rec *types.Record, _ uint64) bool {
		m.open.expired, m.dirty = rec.PurgeAt, true
		return false
	})
}

// begin is start on a store that was written without marks, or is new. mu is
// held.
func (m *marks) begin(ctx context.Context, store *storage.Store) error {
	m.dirty = true
	if m.horizon() > 0 {
		m.open.changed = 0 // who knows what is gone
	}
	return store.WalkPurge(ctx, types.NSData, "", storage.PurgePlace{}, never, func(rec *types.Record, _ uint64) bool {
		m.change(m.open.seq, rec)
		return true
	})
}

// load takes an entry of the store. mu is held.
func (m *marks) load(key, value []byte) error {
	if len(key) == 1 && key[0] == 'l' && len(value) == 16 {
		m.lag = lag{int64(binary.BigEndian.Uint64(value)), int64(binary.BigEndian.Uint64(value[8:]))}
		m.stored = m.lag
		return nil
	}
	at, err := decodeMark(key, value)
	if err == nil {
		m.list = append(m.list, at)
	}
	return err
}

// lags gives the lags of all values that ever had an expiry; ok is false if none
// had.
func (m *marks) lags() (l lag, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lag, !m.lag.none()
}

// madeAt gives a time (Unix ms) that is not after the commit of a place was made;
// 0 if nothing is known.
func (m *marks) madeAt(p Place) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.list) - 1; i >= 0; i-- {
		if at := &m.list[i]; at.seq < p.Seq || at.own && at.seq == p.Seq {
			return at.time
		}
	}
	return 0
}

// gone reports whether something that happened behind a place may be forgotten.
// newest is the newest commit: a place behind all of it that says no time is
// taken for now, since that is how a list of the present names it.
func (m *marks) gone(p Place, newest uint64) bool {
	horizon := m.horizon()
	if horizon == 0 {
		return false
	}
	told, timed := p.until()
	present := p == Behind(newest)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open.expired <= horizon && !present || m.open.changed <= horizon && !p.passed(m.open.seq, everything) {
		return true
	}
	for i := len(m.list) - 1; i >= 0 && m.list[i].seq >= p.Seq; i-- {
		at := &m.list[i]
		// What expired before the mark was told before the place?
		expiriesTold := at.seq == p.Seq && (at.own || timed && at.time <= told || present)
		if at.expired <= horizon && !expiriesTold || at.changed <= horizon && !p.passed(at.seq, everything) {
			return true
		}
	}
	return false
}

func (k mark) key() []byte {
	b := binary.BigEndian.AppendUint64([]byte{'m'}, k.seq)
	return binary.BigEndian.AppendUint64(b, uint64(k.time))
}

func (k mark) value() []byte {
	b := []byte{0}
	if k.own {
		b[0] = 1
	}
	b = binary.BigEndian.AppendUint64(b, uint64(k.changed))
	return binary.BigEndian.AppendUint64(b, uint64(k.expired))
}

func decodeMark(key, value []byte) (mark, error) {
	if len(key) != 17 || key[0] != 'm' || len(value) != 17 || value[0] > 1 {
		return mark{}, fmt.Errorf("watch: the mark %x cannot be read: %x", key, value)
	}
	return mark{
		seq:     binary.BigEndian.Uint64(key[1:]),
		time:    int64(binary.BigEndian.Uint64(key[9:])),
		own:     value[0] == 1,
		changed: int64(binary.BigEndian.Uint64(value[1:])),
		expired: int64(binary.BigEndian.Uint64(value[9:])),
	}, nil
}
