package storage

import "context"

// DropEntries removes entries of a hook's keyspace, durably. They are no changes:
// they do not move the sequence, and no hook is called.
func (s *Store) DropEntries(ctx context.Context, space byte, keys [][]byte) error {
	if err := s.disk.admitBytes(0); err != nil {
		return err
	}
	return s.submit(ctx, dropWork{space, keys})
}

type dropWork struct {
	space byte
	keys  [][]byte
}

func (w dropWork) parts() int     { return len(w.keys) }
func (w dropWork) size(i int) int { return entrySize(1+len(w.keys[i]), 0) }

func (w dropWork) stage(c *commit, i int) { c.delete(append([]byte{w.space}, w.keys[i]...)) }
