package storage

import (
	"context"

	"kvs/types"
)

// Restore takes records of a backup in as they are, into a store that no other
// node knows yet. There may be several versions of a key: they come one after
// another, ascending, and the older ones become its history. No version is taken
// for a conflict: those that were conflicts are among the records.
func (s *Store) Restore(ctx context.Context, records []types.Record) error {
	if err := s.disk.admitBytes(0); err != nil {
		return err
	}
	for i := range records {
		if refused := s.refuse(records[i : i+1]); len(refused) > 0 {
			return refused[0].Err
		}
	}
	w := &restoreWork{s: s, records: records}
	if err := s.submit(ctx, w); err != nil {
		return err
	}
	return w.err
}

// restoreWork is Restore on its way through the committer.
type restoreWork struct {
	s       *Store
	records []types.Record
	err     error
}

func (w *restoreWork) parts() int     { return len(w.records) }
func (w *restoreWork) size(i int) int { return unitSize(w.records[i : i+1]) }

func (w *restoreWork) stage(c *commit, i int) {
	rec := w.records[i]
	w.s.clock.Observe(uint64(rec.Timestamp))
	old, err := c.record(rec.Ref)
	if err != nil {
		w.err = err
		return
	}
	if old == nil {
		c.put(rec, nil, source{merged: true})
	} else if m := types.Merge(*old, rec); m.Second {
		c.put(m.Winner, old, source{merged: true})
	}
}

// MergeIf merges records of which admit says so, each for itself. admit is asked
// in the committer, so that what it sees is what is merged with: old is the
// current record of the key, nil if there is none. By is who asks for it.
//
// It gives which records changed something, and those that were refused.
func (s *Store) MergeIf(ctx context.Context, records []types.Record, by *Actor, admit func(rec, old *types.Record) bool) (changed []bool, refused []Refusal, err error) {
	if err := s.disk.admitBytes(0); err != nil {
		return nil, nil, err
	}
	w := &admitWork{s: s, records: records, by: by, admit: admit, changed: make([]bool, len(records))}
	if err := s.submit(ctx, w); err != nil {
		return nil, nil, err
	}
	return w.changed, w.refused, nil
}

// admitWork is MergeIf on its way through the committer.
type admitWork struct {
	s       *Store
	records []types.Record
	by      *Actor
	admit   func(rec, old *types.Record) bool
	changed []bool
	refused []Refusal
}

func (w *admitWork) parts() int     { return len(w.records) }
func (w *admitWork) size(i int) int { return unitSize(w.records[i : i+1]) }

func (w *admitWork) stage(c *commit, i int) {
	rec := &w.records[i]
	if refused := w.s.refuse(w.records[i : i+1]); len(refused) > 0 {
		w.refused = append(w.refused, refused...)
		return
	}
	// A damaged record is as good as none: merge stores the copy in its place.
	if old, err := c.record(rec.Ref); err == nil && !w.admit(rec, old) {
		return
	}
	m := c.mark()
	w.s.clock.Observe(uint64(rec.Timestamp))
	if err := c.merge(*rec, 0); err != nil {
		c.rollback(m)
		w.refused = append(w.refused, Refusal{Ref: rec.Ref, Err: err})
		return
	}
	for j := m.changes; j < len(c.changes); j++ {
		c.changes[j].By = w.by
		w.changed[i] = true
	}
}
