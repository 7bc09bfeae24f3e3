// Package placement says which nodes keep a key.
//
// Today every node keeps everything. Callers ask nevertheless, so that keeping
// a key on some nodes only is a setting and not a rewrite.
//
// Owners are found by rendezvous hashing (Thaler and Ravishankar, "Using
// Name-Based Mappings to Increase Hit Rates", 1998): each node scores each key,
// the highest scores win, and a node that comes or goes moves only its own
// share of the keys. It is a pure function of the key and the set of nodes.
package placement

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"kvs/types"
)

// Policy says on how many nodes a key is kept.
type Policy struct {
	Replicas int // 0: on all of them
}

// Everybody reports whether all n nodes keep every key.
func (p Policy) Everybody(n int) bool { return p.Replicas <= 0 || p.Replicas >= n }

// Owners gives the nodes that keep the key with this hash, best first. nodes
// has no duplicates, and is not changed.
func (p Policy) Owners(hash uint64, nodes []types.NodeID) []types.NodeID {
	owners := slices.Clone(nodes)
	slices.SortFunc(owners, func(a, b types.NodeID) int {
		return cmp.Or(cmp.Compare(score(hash, b), score(hash, a)), bytes.Compare(a[:], b[:]))
	})
	if p.Everybody(len(owners)) {
		return owners
	}
	return owners[:p.Replicas]
}

// Holds reports whether node, one of nodes, keeps the key with this hash.
func (p Policy) Holds(node types.NodeID, hash uint64, nodes []types.NodeID) bool {
	return p.Everybody(len(nodes)) || slices.Contains(p.Owners(hash, nodes), node)
}

func score(hash uint64, node types.NodeID) uint64 {
	var b [8 + len(node)]byte
	binary.BigEndian.PutUint64(b[:], hash)
	copy(b[8:], node[:])
	return xxh3.Hash(b[:])
}
