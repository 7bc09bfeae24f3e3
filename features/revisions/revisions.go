// Package revisions keeps and lists the history of keys.
//
// Badger keeps what was current at the end of each commit. A version that is
// overwritten within its own commit would be lost; the hook of this package
// writes it to a keyspace of its own in the same transaction.
//
// Invariants:
//   - Whatever was acknowledged is in the history until revision_limit newer
//     versions of the key are.
//   - A version is listed once, wherever it was found.
//
// The history is that of this node: what was never current here, other nodes may
// list and this one not.
package revisions

import (
	"context"
	"encoding/binary"
	"slices"

	"kvs/storage"
	"kvs/storage/codec"
	"kvs/types"
)

// Hook is the storage.Hook that keeps versions overwritten within a commit.
type Hook struct {
	limit int
}

// NewHook gives a hook that keeps up to limit versions of a key.
func NewHook(limit int) *Hook { return &Hook{limit: limit} }

// Keyspace implements storage.Hook.
func (h *Hook) Keyspace() byte { return storage.SpaceRevisions }

// Stage writes the versions that do not survive their own commit. Most commits
// have none, and then it costs a map of their keys only where there are several
// changes at all.
func (h *Hook) Stage(tx *storage.HookTx, changes []storage.Staged) {
	if len(changes) < 2 {
		return
	}
	lost := make(map[types.Ref][]*types.Record)
	var order []types.Ref
	seen := make(map[types.Ref]*types.Record, len(changes))
	for i := range changes {
		rec := &changes[i].New
		if rec.NS != types.NSData {
			continue
		}
		if before := seen[rec.Ref]; before != nil && before.UUID != rec.UUID {
			if lost[rec.Ref] == nil {
				order = append(order, rec.Ref)
			}
			lost[rec.Ref] = append(lost[rec.Ref], before)
		}
		seen[rec.Ref] = rec
	}
	for _, ref := range order {
		h.keep(tx, ref, lost[ref])
	}
}

// keep adds versions of ref, oldest first, and drops the oldest above the limit.
// Version ids are made in the order of time, so the order of keys is that of
// age, nearly enough for a bound.
func (h *Hook) keep(tx *storage.HookTx, ref types.Ref, versions []*types.Record) {
	if len(versions) > h.limit {
		versions = versions[len(versions)-h.limit:]
	}
	kept := tx.Keys(prefix(ref))
	for i := range max(0, min(len(kept), len(kept)+len(versions)-h.limit)) {
		tx.Delete(kept[i])
	}
	for _, rec := range versions {
		tx.Set(append(prefix(ref), rec.UUID[:]...), codec.Append(nil, rec))
	}
}

// Committed implements storage.Hook.
func (h *Hook) Committed(uint64, []storage.Staged) {}

// prefix is ns 1 | key length 2 | key.
func prefix(ref types.Ref) []byte {
	b := binary.BigEndian.AppendUint16([]byte{byte(ref.NS)}, uint16(len(ref.Key)))
	return append(b, ref.Key...)
}

// Entry is one version in a history.
type Entry struct {
	Record   types.Record
	Conflict bool // it lost a conflict, and is kept for that
}

// List gives the known versions of a user's key, newest first: the current one,
// up to limit overwritten ones, and the losers of conflicts that are not
// settled.
func List(ctx context.Context, s *storage.Store, key types.Key, limit int) ([]Entry, error) {
	ref := types.DataRef(key)
	losers, err := conflicts(ctx, s, key)
	if err != nil {
		return nil, err
	}
	history, err := versions(s, ref, limit)
	if err != nil {
		return nil, err
	}
	out := losers
	for _, rec := range history {
		if !slices.ContainsFunc(losers, func(e Entry) bool { return e.Record.UUID == rec.UUID }) {
			out = append(out, Entry{Record: rec})
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return b.Record.Version.Compare(a.Record.Version) })
	return out, nil
}

// versions gives the current version and up to limit older ones, newest first.
func versions(s *storage.Store, ref types.Ref, limit int) ([]types.Record, error) {
	var out []types.Record
	seen := make(map[types.VersionID]bool)
	add := func(rec types.Record) {
		if !seen[rec.UUID] {
			seen[rec.UUID] = true
			out = append(out, rec)
		}
	}
	err := s.Versions(ref, func(rec types.Record) bool {
		add(rec)
		return len(out) <= limit
	})
	if err != nil {
		return nil, err
	}
	entries, err := s.HookEntries(storage.SpaceRevisions, prefix(ref))
	if err != nil {
		return nil, err
	}
	for _, b := range entries {
		rec, err := codec.DecodeOne(b)
		if err != nil {
			return nil, &storage.CorruptError{Ref: ref, Err: err}
		}
		add(rec)
	}
	slices.SortFunc(out, func(a, b types.Record) int { return b.Version.Compare(a.Version) })
	return out[:min(len(out), limit+1)], nil
}

// conflicts gives the losers that are kept for key.
func conflicts(ctx context.Context, s *storage.Store, key types.Key) ([]Entry, error) {
	var out []Entry
	o := storage.ScanOptions{NS: types.NSConflicts, Prefix: key + "\x00", Limit: 1000}
	for {
		page, err := s.Scan(ctx, o)
		if err != nil {
			return nil, err
		}
		for i := range page.Records {
			loser, err := codec.DecodeOne(page.Records[i].Value)
			if err != nil {
				return nil, &storage.CorruptError{Ref: page.Records[i].Ref, Err: err}
			}
			out = append(out, Entry{Record: loser, Conflict: true})
		}
		if !page.More {
			return out, nil
		}
		o.Start = page.Next
	}
}
