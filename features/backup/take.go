package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"kvs/storage"
	"kvs/storage/merkle"
	"kvs/types"
)

// taker writes what a snapshot holds.
type taker struct {
	snap    *storage.Snapshot
	w       *writer
	since   uint64
	horizon int64
	tree    *merkle.Tree // of what was written, for a full backup
	passed  []types.Ref  // what a walk passed over though it can be read, ascending
	damaged func(error)
	spill   func() (*os.File, error) // makes a file without a name
	known   map[types.Ref]bool       // that damaged was told of
}

// errPassedOver says that there are keys that the walk did not give and that can
// be read. They are noted, and the backup is to be written anew: at its end they
// would be out of order.
var errPassedOver = errors.New("the walk passed over keys that are there")

// maxPassed bounds how many keys are noted.
const maxPassed = 1 << 20

// run writes all entries, in order.
func (t *taker) run(ctx context.Context) error {
	if t.since == 0 {
		return t.full(ctx)
	}
	return t.incremental(ctx)
}

// full writes every key that there is, and makes sure that it was every key.
func (t *taker) full(ctx context.Context) error {
	t.tree = merkle.New()
	if err := t.snap.Walk(ctx, 0, t.passed, t.key); err != nil {
		return err
	}
	return t.complete(ctx)
}

// complete holds what was written against the tree of the snapshot.
func (t *taker) complete(ctx context.Context) error {
	var passed []types.Ref
	unlisted := uint64(0)
	err := t.snap.Suspects(ctx, t.tree, t.horizon, func(s *storage.Suspect) error {
		for _, err := range s.Damaged {
			t.lost(err.Ref, err)
		}
		readable := uint64(len(s.Readable))
		if readable > s.Walked {
			passed = append(passed, s.Readable...)
		}
		if found := max(readable, s.Walked) + s.Purged + uint64(len(s.Damaged)); found < s.Want {
			unlisted += s.Want - found
		}
		if len(passed) > maxPassed {
			return fmt.Errorf("%w: more than %d keys are behind damaged blocks; the node's disk is failing", types.ErrCorrupt, maxPassed)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(passed) > 0 && t.passed == nil:
		slices.SortFunc(passed, compareRefs)
		t.passed = passed
		return errPassedOver
	case len(passed) > 0:
		return fmt.Errorf("%w: there are keys that can be read and that cannot be walked, such as %s; the node's disk is failing", types.ErrCorrupt, passed[0])
	case unlisted > 0:
		t.w.trailer.Damaged += unlisted
		t.damaged(fmt.Errorf("%w: %d keys, which no index lists any longer", types.ErrCorrupt, unlisted))
	}
	return nil
}

// incremental writes the keys that changed, and in their order those that are
// noted: that they left no record, or that an earlier life of theirs did not.
func (t *taker) incremental(ctx context.Context) error {
	notes, err := newNotes(ctx, t.snap, t.since, t.spill)
	if err != nil {
		return err
	}
	defer notes.close()
	gone, more, err := notes.next()
	if err != nil {
		return err
	}
	upTo := func(s *storage.KeyState) error {
		for more && (s == nil || compareRefs(gone.ref, s.Ref) <= 0) {
			if s == nil || gone.ref != s.Ref || !holds(s, gone.at) {
				if err := t.w.gone(gone.ref, gone.vanished); err != nil {
					return err
				}
			}
			if gone, more, err = notes.next(); err != nil {
				return err
			}
		}
		return nil
	}
	err = t.snap.Walk(ctx, t.since, nil, func(s *storage.KeyState) error {
		if s.Absent {
			return nil // it is noted, or a backup holds a record that has expired since
		}
		if err := upTo(s); err != nil {
			return err
		}
		return t.key(s)
	})
	if err != nil {
		return err
	}
	return upTo(nil)
}

// holds reports whether a version is written with its key.
func holds(s *storage.KeyState, at types.Timestamp) bool {
	return s.Current.Timestamp == at || s.Ref.NS == types.NSData && slices.ContainsFunc(s.Older, func(r types.Record) bool { return r.Timestamp == at })
}

// key writes one key: its older versions, then the current one.
func (t *taker) key(s *storage.KeyState) error {
	switch {
	case s.Absent:
		return nil
	case s.Err != nil:
		t.lost(s.Ref, s.Err)
		return nil
	case t.since == 0:
		// In an incremental backup it says that the key is gone.
		if s.Current.Purged(t.horizon) {
			return nil
		}
		e := merkle.EntryOf(&s.Current)
		t.tree.Add(e.Hash, e.Digest)
	}
	if s.Ref.NS == types.NSData { // only users look at history
		for i := range s.Older {
			if err := t.w.record(entryOlder, &s.Older[i]); err != nil {
				return err
			}
		}
	}
	return t.w.record(entryCurrent, &s.Current)
}

// lost counts a key that cannot be read.
func (t *taker) lost(ref types.Ref, err error) {
	if t.known[ref] {
		return
	}
	if t.known == nil {
		t.known = make(map[types.Ref]bool)
	}
	t.known[ref] = true
	t.w.trailer.Damaged++
	t.damaged(err)
}

// rosterOf gives every node that this cluster is known to have had. Its members
// are known by their names, and others by the marks that are kept of them.
func rosterOf(ctx context.Context, s *storage.Store) ([]Member, error) {
	var roster []Member
	place := make(map[types.NodeID]int)
	// The cluster namespace is small, and sorts last.
	err := s.Walk(ctx, types.Ref{NS: types.NSCluster}, func(rec *types.Record) bool {
		_, text, _ := strings.Cut(string(rec.Key), "/")
		id, err := types.ParseNodeID(text)
		if err != nil {
			return true
		}
		i, known := place[id]
		if !known {
			i = len(roster)
			place[id], roster = i, append(roster, Member{UUID: id})
		}
		var v struct {
			NodeID string `json:"node_id"`
			Joined int64  `json:"joined"`
		}
		if json.Unmarshal(rec.Value, &v) == nil && v.NodeID != "" {
			roster[i].NodeID, roster[i].Joined = v.NodeID, max(roster[i].Joined, v.Joined)
		}
		return true
	})
	return roster, err
}
