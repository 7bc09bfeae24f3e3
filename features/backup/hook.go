package backup

import (
	"context"
	"encoding/binary"
	"fmt"

	"kvs/storage"
	"kvs/types"
)

// Hook is the storage.Hook that remembers keys which may vanish before the next
// incremental backup.
//
// A tombstone is forgotten when the horizon has passed it, and then nothing
// tells the next incremental backup of it: the value would come back from the
// full one. So each record that will be forgotten sooner than the one that it
// replaces is noted, in the commit that makes it current, until a backup holds
// it. It costs a commit with deletes one entry, and one without nothing.
//
// An entry is the commit's sequence (8), big-endian; its value is the entries of
// kind 3 of a backup, in any order. One entry for all, because a transaction has
// room for one however large its value is, and not for another key per operation.
type Hook struct{}

// Keyspace implements storage.Hook.
func (Hook) Keyspace() byte { return storage.SpaceBackup }

// Stage writes the notes.
func (Hook) Stage(tx *storage.HookTx, changes []storage.Staged) {
	var notes []byte
	for i := range changes {
		if c := &changes[i]; vanishes(c.Old, &c.New) {
			notes = appendGone(notes, c.New.Ref, vanished{c.New.Timestamp, previous(&c.New)})
		}
	}
	if len(notes) > 0 {
		tx.Set(binary.BigEndian.AppendUint64(nil, tx.Seq()), notes)
	}
}

// Committed implements storage.Hook.
func (Hook) Committed(uint64, []storage.Staged) {}

// vanishes reports whether rec is forgotten before what it replaces would have
// been: then a backup may hold the one and never see the other.
func vanishes(old, rec *types.Record) bool {
	switch {
	case rec.PurgeAt == 0:
		return false
	case old == nil:
		// A backup may hold what was damaged here, or what came by another node.
		return rec.Tombstone()
	}
	return old.PurgeAt == 0 || old.PurgeAt > rec.PurgeAt
}

// previous is the timestamp of the version that rec was written over, 0 if none:
// the newest in its context, since a version is later than what it replaces.
func previous(rec *types.Record) (ts types.Timestamp) {
	for _, e := range rec.Context {
		ts = max(ts, e.Timestamp)
	}
	return ts
}

// notesPage is how many entries of the hook are read or dropped at once.
const notesPage = 100

// walkNotes calls fn with the entries of the hook, by sequence.
func walkNotes(ctx context.Context, snap *storage.Snapshot, from uint64, fn func(page []storage.HookEntry) error) error {
	start := binary.BigEndian.AppendUint64(nil, from)
	for more := true; more; {
		var page []storage.HookEntry
		var err error
		if page, more, err = snap.Entries(ctx, storage.SpaceBackup, start, notesPage); err != nil {
			return err
		}
		if len(page) == 0 {
			continue
		}
		for _, e := range page {
			if len(e.Key) != 8 {
				return fmt.Errorf("%w: an entry of the backup's hook with the key %x", types.ErrCorrupt, e.Key)
			}
		}
		start = append(append(start[:0], page[len(page)-1].Key...), 0)
		if err := fn(page); err != nil {
			return err
		}
	}
	return nil
}

// dropNotes drops the notes up to a sequence number: a backup knows of them.
func dropNotes(ctx context.Context, s *storage.Store, upTo uint64) error {
	snap, err := s.Pin(dropTime)
	if err != nil {
		return err
	}
	defer snap.Release()
	return walkNotes(ctx, snap, 0, func(page []storage.HookEntry) error {
		var keys [][]byte
		for _, e := range page {
			if binary.BigEndian.Uint64(e.Key) <= upTo {
				keys = append(keys, e.Key)
			}
		}
		if len(keys) == 0 {
			return nil
		}
		return s.DropEntries(ctx, storage.SpaceBackup, keys)
	})
}
