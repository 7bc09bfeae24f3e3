package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"kvs/cluster/membership"
	"kvs/storage/codec"
	"kvs/types"
)

// The roster lives in the cluster namespace, replicated and repaired as every
// record:
//
//	roster/UUID   {"uuid","node_id","address","joined"}   written by that node alone
//	removed/UUID  {"uuid","node_id","removed"}            written by whoever removed it
//
// A node hands its own record around as its card, and the others merge that very
// version: nobody writes another's entry, so entries never conflict. The mark of
// a removal has a key of its own, because a node that has not heard of it may
// still write a newer entry.
const (
	rosterPrefix  = "roster/"
	removedPrefix = "removed/"
	// rosterEvery bounds how often the roster is read anew for what replication
	// brought.
	rosterEvery = time.Second
)

// entryJSON is the value of a roster record.
type entryJSON struct {
	UUID    string `json:"uuid"`
	NodeID  string `json:"node_id"`
	Address string `json:"address"`
	Joined  int64  `json:"joined"` // Unix ms
}

// markJSON is the value of the mark of a removal.
type markJSON struct {
	UUID    string `json:"uuid"`
	NodeID  string `json:"node_id"`
	Removed int64  `json:"removed"` // Unix ms
}

// entry is one node as the roster has it, and the version that says so.
type entry struct {
	membership.Identity
	version types.VersionID
}

// roster is the roster in memory, as membership asks for it.
type roster struct {
	self  membership.Identity
	store Store
	put   func(ctx context.Context, ref types.Ref, value []byte) error

	loading sync.Mutex // one load at a time, so that none takes back what a later one read
	mu      sync.Mutex // guards what follows
	entries map[types.NodeID]entry
	removed map[types.NodeID]bool
	card    []byte
}

func newRoster(self membership.Identity, store Store, put func(context.Context, types.Ref, []byte) error) *roster {
	return &roster{self: self, store: store, put: put}
}

func rosterRef(id types.NodeID) types.Ref {
	return types.Ref{NS: types.NSCluster, Key: types.Key(rosterPrefix + id.String())}
}

func removedRef(id types.NodeID) types.Ref {
	return types.Ref{NS: types.NSCluster, Key: types.Key(removedPrefix + id.String())}
}

// load reads the roster from the store and reports whether it changed.
func (r *roster) load(ctx context.Context) (changed bool, err error) {
	r.loading.Lock()
	defer r.loading.Unlock()
	entries, removed := map[types.NodeID]entry{}, map[types.NodeID]bool{}
	var card []byte
	// The cluster namespace is small, and sorts last.
	err = r.store.Walk(ctx, types.Ref{NS: types.NSCluster}, func(rec *types.Record) bool {
		key := string(rec.Key)
		if text, ok := strings.CutPrefix(key, removedPrefix); ok {
			if id, err := types.ParseNodeID(text); err == nil && !rec.Tombstone() {
				removed[id] = true
			}
		} else if e, err := parseEntry(rec); err == nil {
			entries[e.UUID] = e
			if e.UUID == r.self.UUID {
				card = codec.Append(nil, rec)
			}
		}
		return true
	})
	if err != nil {
		return false, fmt.Errorf("read the roster: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = len(removed) != len(r.removed) || len(entries) != len(r.entries)
	for id, e := range entries {
		changed = changed || r.entries[id] != e
	}
	r.entries, r.removed, r.card = entries, removed, card
	return changed, nil
}

// parseEntry reads a roster record, which must be by the node that it is about.
func parseEntry(rec *types.Record) (entry, error) {
	var v entryJSON
	if err := json.Unmarshal(rec.Value, &v); err != nil {
		return entry{}, fmt.Errorf("%s: %w", rec.Ref, err)
	}
	id, err := types.ParseNodeID(v.UUID)
	if err != nil || rec.Tombstone() || rec.Ref != rosterRef(id) || rec.Origin != id || v.NodeID == "" || v.Address == "" {
		return entry{}, fmt.Errorf("%s is no roster entry by that node", rec.Ref)
	}
	return entry{
		Identity: membership.Identity{UUID: id, NodeID: v.NodeID, Joined: v.Joined, Address: v.Address},
		version:  rec.UUID,
	}, nil
}

// enter writes this node's own entry, unless it is there already as it should be.
func (r *roster) enter(ctx context.Context) error {
	if r.Removed(r.self.UUID) {
		return membership.ErrRemoved
	}
	r.mu.Lock()
	have := r.entries[r.self.UUID].Identity
	r.mu.Unlock()
	if have == r.self {
		return nil
	}
	value, err := json.Marshal(entryJSON{r.self.UUID.String(), r.self.NodeID, r.self.Address, r.self.Joined})
	if err != nil {
		return err
	}
	if err := r.put(ctx, rosterRef(r.self.UUID), value); err != nil {
		return fmt.Errorf("write the roster entry: %w", err)
	}
	_, err = r.load(ctx)
	return err
}

// remove marks a node as removed, for ever.
func (r *roster) remove(ctx context.Context, who membership.Identity) error {
	value, err := json.Marshal(markJSON{who.UUID.String(), who.NodeID, r.store.Now().UnixMilli()})
	if err != nil {
		return err
	}
	if err := r.put(ctx, removedRef(who.UUID), value); err != nil {
		return fmt.Errorf("mark node %s as removed: %w", who.NodeID, err)
	}
	_, err = r.load(ctx)
	return err
}

// Entries gives the nodes that joined and were not removed.
func (r *roster) Entries() []membership.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]membership.Identity, 0, len(r.entries))
	for id, e := range r.entries {
		if !r.removed[id] {
			out = append(out, e.Identity)
		}
	}
	return out
}

// Removed reports whether the node was removed.
func (r *roster) Removed(id types.NodeID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed[id]
}

// Card gives this node's own record, encoded.
func (r *roster) Card() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.card
}

// Admit merges a node's own record.
func (r *roster) Admit(ctx context.Context, who membership.Identity, card []byte) error {
	rec, err := codec.DecodeOne(card)
	if err != nil {
		return fmt.Errorf("the card of node %s: %w", who.NodeID, err)
	}
	e, err := parseEntry(&rec)
	if err != nil {
		return err
	}
	if e.Identity != who {
		return fmt.Errorf("the card of node %s is of %s at %s", who.NodeID, e.NodeID, e.Address)
	}
	r.mu.Lock()
	known := r.entries[who.UUID] == e
	r.mu.Unlock()
	if known {
		return nil
	}
	refused, err := r.store.Merge(ctx, [][]types.Record{{rec}})
	if err == nil && len(refused) > 0 {
		err = refused[0].Err
	}
	if err != nil {
		return fmt.Errorf("enter node %s on the roster: %w", who.NodeID, err)
	}
	_, err = r.load(ctx)
	return err
}

// followRoster takes in what replication brings of other nodes, until ctx ends
// or this node turns out to be removed.
func (c *Cluster) followRoster(ctx context.Context) error {
	for seen := uint64(0); ; {
		committed := c.opts.Store.Committed()
		if seq := c.opts.Store.Seq(); seq != seen {
			changed, err := c.roster.load(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				c.log.Error("following the roster", "error", err)
			case changed:
				seen = seq
				c.members.RosterChanged()
			default:
				seen = seq
			}
		}
		if c.roster.Removed(c.roster.self.UUID) && !c.departing.Load() {
			c.opts.Fatal(membership.ErrRemoved)
			return membership.ErrRemoved
		}
		// A busy store commits all the time: the pause comes first.
		select {
		case <-time.After(rosterEvery):
		case <-ctx.Done():
			return nil
		}
		select {
		case <-committed:
		case <-ctx.Done():
			return nil
		}
	}
}
