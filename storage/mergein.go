package storage

import (
	"context"
	"fmt"
	"time"

	"kvs/storage/codec"
	"kvs/types"
)

// Merge takes records of other nodes in. The records of a unit are applied in
// one commit, and in none if one of them is refused. Merge returns when what it
// took is durable; what it would not take is named.
func (s *Store) Merge(ctx context.Context, units [][]types.Record) ([]Refusal, error) {
	if err := s.disk.admitBytes(0); err != nil {
		return nil, err
	}
	w := &mergeWork{s: s}
	for _, unit := range units {
		if refused := s.refuse(unit); len(refused) > 0 {
			w.refused = append(w.refused, refused...)
			continue
		}
		if unitSize(unit) <= s.txnBytes {
			w.units = append(w.units, unit)
			continue
		}
		// Keys of a kilobyte, all of them in conflict, can make a unit that
		// fitted its origin's transaction too large for this one.
		for i := range unit {
			w.units = append(w.units, unit[i:i+1])
		}
	}
	if len(w.units) == 0 {
		return w.refused, nil
	}
	if err := s.submit(ctx, w); err != nil {
		return nil, err
	}
	return w.refused, nil
}

// refuse checks a unit before it reaches the committer. A record dated too far
// ahead must neither be stored nor move the clock; in a unit it takes the
// others with it.
func (s *Store) refuse(unit []types.Record) []Refusal {
	limit := types.TimestampOf(s.clock.Wall().Add(s.opts.MaxClockSkew + time.Millisecond).UnixMilli())
	for i := range unit {
		rec := &unit[i]
		if rec.Timestamp < limit {
			continue
		}
		err := fmt.Errorf("%w: %s is dated %s, more than %v ahead of this node's clock", types.ErrClockSkew,
			rec.Ref, rec.Timestamp.Time().UTC().Format(time.RFC3339Nano), s.opts.MaxClockSkew)
		refused := make([]Refusal, len(unit))
		for j := range unit {
			refused[j] = Refusal{Ref: unit[j].Ref, Err: err}
		}
		return refused
	}
	return nil
}

// mergeWork is Merge on its way through the committer.
type mergeWork struct {
	s       *Store
	units   [][]types.Record
	refused []Refusal
}

func (w *mergeWork) parts() int     { return len(w.units) }
func (w *mergeWork) size(i int) int { return unitSize(w.units[i]) }

// unitSize bounds what a unit adds to a transaction, a lost conflict and a version
// that is overwritten within the commit included for every record.
func unitSize(unit []types.Record) int {
	n := 0
	for i := range unit {
		n += 2*(3*(len(unit[i].Key)+entryOverhead)+entrySize(0, codec.Size(&unit[i]))) +
			len(unit[i].Key) + entryOverhead + entrySize(0, codec.Size(&unit[i]))
	}
	return n
}

func (w *mergeWork) stage(c *commit, i int) {
	m, unit := c.mark(), 0
	if len(w.units[i]) > 1 {
		unit = c.newUnit()
	}
	for j := range w.units[i] {
		rec := w.units[i][j]
		c.s.clock.Observe(uint64(rec.Timestamp))
		if err := c.merge(rec, unit); err != nil {
			c.rollback(m)
			w.refused = append(w.refused, Refusal{Ref: rec.Ref, Err: err})
			return
		}
	}
}

// Repair stores a peer's copy of a record that this node lost or cannot read,
// and counts the record's Merkle bucket anew. Over a readable record it is an
// ordinary merge.
func (s *Store) Repair(ctx context.Context, rec types.Record) error {
	refused, err := s.Merge(ctx, [][]types.Record{{rec}})
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return refused[0].Err
	}
	return s.Recount(rec.Ref)
}
