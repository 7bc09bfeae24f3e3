package backup

import (
	"cmp"
	"slices"

	"kvs/types"
)

// plan says what of a key is restored.
type plan struct {
	at      int64 // Unix ms; 0: what was current when the backup was made
	horizon int64 // of the newest backup of the chain
	older   int   // how many versions of the history
}

// fate is what becomes of a key.
type fate int

const (
	restored fate = iota
	left          // it belongs to the old cluster alone
	absent        // it was deleted, and that long ago, or not written yet
	unknown       // no backup tells what it was at that time
)

// of gives the versions to write, ascending, the current one last.
//
// A backup has of most keys the newest versions alone, so a time may lie before
// what is known of a key. Each version tells when the one was written that it
// replaced; where that one is not here, something is missing in between.
func (p plan) of(k *history) ([]types.Record, fate) {
	switch {
	case k.ref.NS == types.NSCluster:
		return nil, left
	case p.at == 0, k.ref.NS != types.NSData:
		// Users, groups and above all revocations are never older than they could
		// be. The other namespaces have no history.
		return p.newest(k)
	}
	return p.asOf(k)
}

func (p plan) newest(k *history) ([]types.Record, fate) {
	if k.current == nil || k.current.Purged(p.horizon) || p.at != 0 && k.ref.NS == types.NSConflicts && k.current.Timestamp.Millis() > p.at {
		return nil, absent
	}
	return p.with(k, *k.current)
}

// with gives a version and the newest of those before it, as far as they are of
// the same life of the key.
func (p plan) with(k *history, current types.Record) ([]types.Record, fate) {
	var life types.Timestamp
	for _, g := range k.gone {
		if g.at < current.Timestamp {
			life = max(life, g.at)
		}
	}
	var out []types.Record
	for i := range k.versions {
		if v := &k.versions[i]; v.Timestamp > life && v.Version.Compare(current.Version) < 0 {
			out = append(out, *v)
		}
	}
	return append(out[max(0, len(out)-p.older):], current), restored
}

// event is a version, or the end of a key that left none.
type event struct {
	at, previous types.Timestamp
	version      int // -1: the key vanished
}

func (p plan) asOf(k *history) ([]types.Record, fate) {
	events := make([]event, 0, len(k.versions)+len(k.gone))
	for i := range k.versions {
		events = append(events, event{k.versions[i].Timestamp, previous(&k.versions[i]), i})
	}
	for _, g := range k.gone {
		events = append(events, event{g.at, g.previous, -1})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	n := len(events)
	for n > 0 && events[n-1].at.Millis() > p.at {
		n--
	}
	var reached types.Timestamp
	if n > 0 {
		reached = events[n-1].at
	}
	switch {
	case n < len(events) && events[n].previous > reached:
		return nil, unknown
	case n == 0 || events[n-1].version < 0:
		return nil, absent
	}
	current := k.versions[events[n-1].version]
	if current.Purged(p.horizon) {
		return nil, absent
	}
	return p.with(k, current)
}
