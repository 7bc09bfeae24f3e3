package backup

import (
	"context"
	"encoding/json"

	"kvs/storage"
	"kvs/types"
)

// A cluster may have forgotten deletes of records that it once held, and a backup
// may still have the values. Of which records that can be is told by where they
// come from: by the nodes that this cluster has had, and by the backups that were
// brought into it. For the latter, marks are kept beside the roster, for ever:
//
//	lineage/UUID  {"uuid","node_id","backup"}
const lineagePrefix = "lineage/"

type lineageJSON struct {
	UUID   string `json:"uuid"`
	NodeID string `json:"node_id"`
	Backup string `json:"backup"` // the first that brought it
}

// nodesOf are the nodes whose records a backup may hold.
func nodesOf(h Header) []Member {
	nodes := []Member{h.Node}
	for _, m := range h.Roster {
		if m.UUID != h.Node.UUID {
			nodes = append(nodes, m)
		}
	}
	return nodes
}

// related reports whether this cluster has anything to do with the one that a
// backup is of.
func related(ctx context.Context, s *storage.Store, h Header) (bool, error) {
	roster, err := rosterOf(ctx, s)
	if err != nil {
		return false, err
	}
	ours := map[types.NodeID]bool{s.Identity().UUID: true}
	for _, m := range roster {
		ours[m.UUID] = true
	}
	for _, m := range nodesOf(h) {
		if ours[m.UUID] {
			return true, nil
		}
	}
	return false, nil
}

// markLineage remembers that records of a backup's cluster came in.
func markLineage(ctx context.Context, s *storage.Store, h Header) error {
	for _, m := range nodesOf(h) {
		ref := types.Ref{NS: types.NSCluster, Key: types.Key(lineagePrefix + m.UUID.String())}
		if rec, err := s.Lookup(ref); err == nil && !rec.Tombstone() {
			continue
		}
		b, err := json.Marshal(lineageJSON{m.UUID.String(), m.NodeID, h.ID.String()})
		if err != nil {
			return err
		}
		res, err := s.Write(ctx, []storage.Op{{Kind: storage.OpPut, Ref: ref, Value: b, OverDamaged: true}}, false)
		if err == nil {
			err = res[0].Err
		}
		if err != nil {
			return err
		}
	}
	return nil
}
