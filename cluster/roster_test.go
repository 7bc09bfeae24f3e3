package cluster

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"kvs/cluster/membership"
	"kvs/cluster/replication/replicationtest"
	"kvs/storage/codec"
	"kvs/types"
)

func nodeID(name string) types.NodeID {
	return types.NodeID(uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)))
}

// cardOf makes a node's record as the node itself would, and lets alter spoil it.
func cardOf(t *testing.T, who membership.Identity, at types.Timestamp, alter func(*types.Record)) []byte {
	t.Helper()
	value, err := json.Marshal(entryJSON{who.UUID.String(), who.NodeID, who.Address, who.Joined})
	if err != nil {
		t.Fatal(err)
	}
	rec := types.Record{
		Ref:     rosterRef(who.UUID),
		Version: types.Version{Timestamp: at, Origin: who.UUID, OriginJoined: who.Joined, UUID: types.VersionID(uuid.New())},
		Value:   value,
	}
	if alter != nil {
		alter(&rec)
	}
	return codec.Append(nil, &rec)
}

func TestRosterAdmitsOnlyANodesOwnCard(t *testing.T) {
	self := membership.Identity{UUID: nodeID("self"), NodeID: "self", Address: "h:1"}
	b := membership.Identity{UUID: nodeID("b"), NodeID: "b", Joined: 7, Address: "h:2"}
	moved := b
	moved.Address = "h:3"
	r := newRoster(self, replicationtest.NewStore(self.UUID, 1), nil)
	for name, card := range map[string][]byte{
		"nothing":           nil,
		"garbage":           []byte("card"),
		"another address":   cardOf(t, moved, 1, nil),
		"another's key":     cardOf(t, b, 1, func(rec *types.Record) { rec.Key = rosterRef(self.UUID).Key }),
		"another namespace": cardOf(t, b, 1, func(rec *types.Record) { rec.NS = types.NSData }),
		"another's hand":    cardOf(t, b, 1, func(rec *types.Record) { rec.Origin = self.UUID }),
		"a tombstone":       cardOf(t, b, 1, func(rec *types.Record) { rec.Flags = types.FlagTombstone }),
		"a bad value":       cardOf(t, b, 1, func(rec *types.Record) { rec.Value = []byte("{") }),
		"two records":       append(cardOf(t, b, 1, nil), cardOf(t, b, 1, nil)...),
	} {
		if err := r.Admit(t.Context(), b, card); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if len(r.Entries()) != 0 {
		t.Fatalf("entries: %v", r.Entries())
	}

	if err := r.Admit(t.Context(), b, cardOf(t, b, 1, nil)); err != nil {
		t.Fatal(err)
	}
	if err := r.Admit(t.Context(), moved, cardOf(t, moved, 2, nil)); err != nil {
		t.Fatal(err)
	}
	// An old card that turns up again takes nothing back.
	if err := r.Admit(t.Context(), b, cardOf(t, b, 1, nil)); err != nil {
		t.Fatal(err)
	}
	if e := r.Entries(); len(e) != 1 || e[0] != moved {
		t.Errorf("entries: %v", e)
	}
}

func TestRosterSkipsWhatIsNoEntry(t *testing.T) {
	self := membership.Identity{UUID: nodeID("self"), NodeID: "self", Address: "h:1"}
	store := replicationtest.NewStore(self.UUID, 1)
	var unit []types.Record
	for i, key := range []types.Key{"roster/", "roster/nonsense", "removed/nonsense", "zzz"} {
		unit = append(unit, types.Record{
			Ref:     types.Ref{NS: types.NSCluster, Key: key},
			Version: types.Version{Timestamp: types.Timestamp(i + 1), Origin: self.UUID, UUID: types.VersionID(uuid.New())},
			Value:   []byte("{}"),
		})
	}
	if _, err := store.Merge(t.Context(), [][]types.Record{unit}); err != nil {
		t.Fatal(err)
	}
	r := newRoster(self, store, nil)
	if changed, err := r.load(t.Context()); changed || err != nil {
		t.Errorf("changed: %v, %v", changed, err)
	}
}
