package placement

import (
	"math/rand/v2"
	"slices"
	"testing"

	"kvs/types"
)

func TestEverybodyHoldsEverything(t *testing.T) {
	nodes := []types.NodeID{{1}, {2}, {3}}
	for _, p := range []Policy{{}, {Replicas: 3}, {Replicas: 9}} {
		for _, n := range nodes {
			if !p.Holds(n, 42, nodes) {
				t.Errorf("%+v: node %s does not hold the key", p, n)
			}
		}
		if got := p.Owners(42, nodes); len(got) != 3 {
			t.Errorf("%+v: %d owners", p, len(got))
		}
	}
}

// A node that leaves moves its own keys and no other.
func TestLeavingMovesOnlyItsOwn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	nodes := []types.NodeID{{1}, {2}, {3}, {4}, {5}}
	rest := slices.Clone(nodes[:4])
	p := Policy{Replicas: 2}
	share := map[types.NodeID]int{}
	for range 5000 {
		hash := r.Uint64()
		before, after := p.Owners(hash, nodes), p.Owners(hash, rest)
		for _, n := range before {
			share[n]++
			if n != nodes[4] && !slices.Contains(after, n) {
				t.Fatalf("key %x left node %s, which stayed", hash, n)
			}
		}
		slices.Reverse(nodes)
		if again := p.Owners(hash, nodes); !slices.Equal(before, again) {
			t.Fatalf("the order of the nodes changes the owners of %x", hash)
		}
		slices.Reverse(nodes)
	}
	for n, got := range share {
		if got < 1700 || got > 2300 {
			t.Errorf("node %s has %d of 5000 keys, expected about 2000", n, got)
		}
	}
}
