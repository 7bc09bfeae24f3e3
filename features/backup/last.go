package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"kvs/storage"
)

// lastMeta is where the store remembers the backup that was made last of it.
const lastMeta = "backup"

// dropTime bounds how long the notes are read that a backup has made useless.
const dropTime = 10 * time.Minute

// lastJSON is what the store remembers of the backup that was made last of it.
type lastJSON struct {
	ID       string `json:"id"`
	Sequence uint64 `json:"sequence"`
}

// last gives the backup that an incremental one follows: the one that this very
// directory was backed up by last, and no other. A directory that was brought
// back from a copy may have used the same sequence numbers for other changes.
func (m *Manager) last(all []Info) (*Info, error) {
	b, err := m.opts.Store.GetMeta(lastMeta)
	if err != nil {
		return nil, err
	}
	var v lastJSON
	if len(b) == 0 {
		return nil, errors.New("there is none yet of this data directory")
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("what the store remembers of the last one cannot be read: %w", err)
	}
	i := slices.IndexFunc(all, func(o Info) bool { return o.ID.String() == v.ID && o.Node.UUID == m.node })
	if i < 0 || all[i].Sequence != v.Sequence || v.Sequence > m.opts.Store.Seq() {
		return nil, fmt.Errorf("the last one, %s, is not in %s", v.ID, m.opts.Dir)
	}
	if _, err := chainOf(all[i], all); err != nil {
		return nil, err
	}
	return &all[i], nil
}

func (m *Manager) remember(ctx context.Context, info Info) error {
	b, err := json.Marshal(lastJSON{info.ID.String(), info.Sequence})
	if err != nil {
		return err
	}
	if err := m.opts.Store.PutMeta(ctx, map[string][]byte{lastMeta: b}); err != nil {
		return err
	}
	return dropNotes(ctx, m.opts.Store, info.Sequence)
}

// Forget is for a node that makes no backups, and so notes nothing for the next
// incremental one: should it make them again, it begins with a full one.
func Forget(ctx context.Context, s *storage.Store) error {
	b, err := s.GetMeta(lastMeta)
	if err != nil || len(b) == 0 {
		return err
	}
	if err := s.PutMeta(ctx, map[string][]byte{lastMeta: nil}); err != nil {
		return err
	}
	return dropNotes(ctx, s, s.Seq())
}
