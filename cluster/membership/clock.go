package membership

import (
	"slices"
	"time"

	"kvs/types"
)

const (
	// offsetAge is how long a measured offset counts.
	offsetAge = 5 * time.Minute
	// offsetTrip bounds the round trip of a measurement, whose error is up to
	// half of it.
	offsetTrip = time.Second
)

// offset is another node's clock minus ours.
type offset struct {
	value time.Duration
	at    time.Time // monotonic
}

func (o offset) fresh() bool { return time.Since(o.at) < offsetAge }

// clockSeen takes in that a node's clock showed wall half a round trip ago.
func (m *Membership) clockSeen(id types.NodeID, wall time.Time, trip time.Duration) {
	if trip < 0 || trip > offsetTrip {
		return
	}
	value := wall.Sub(m.opts.Now().Add(-trip / 2))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offsets[id] = offset{value, time.Now()}
}

// Skew gives how far this node's clock is ahead of the median of the other
// nodes' clocks, negative if behind. It is unknown while none was measured in
// the last minutes.
func (m *Membership) Skew() (ahead time.Duration, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var values []time.Duration
	for id, o := range m.offsets {
		if !o.fresh() {
			delete(m.offsets, id)
			continue
		}
		values = append(values, o.value)
	}
	if len(values) == 0 {
		return 0, false
	}
	return -median(values), true
}

// median sorts values. Between the two in the middle it takes the one nearer to
// zero, so that one wrong clock of two is not enough to accuse this one.
func median(values []time.Duration) time.Duration {
	slices.Sort(values)
	lo, hi := values[(len(values)-1)/2], values[len(values)/2]
	if lo.Abs() < hi.Abs() {
		return lo
	}
	return hi
}
