package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvs/cluster/replication/replicationtest"
	"kvs/cluster/replication/wire"
	"kvs/storage/merkle"
	"kvs/types"
)

// copyTo gives dst what src holds, as if long ago.
func copyTo(t *testing.T, dst, src *replicationtest.Store) {
	t.Helper()
	var units [][]types.Record
	err := src.Walk(t.Context(), types.Ref{}, func(rec *types.Record) bool {
		units = append(units, []types.Record{*rec})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dst.Merge(t.Context(), units); err != nil {
		t.Fatal(err)
	}
}

// The wire budget at 10,000 keys. Buckets then hold next to nothing and not 15,
// so the figures at a million are those here and 15 more entries of 10 bytes for
// each differing bucket; these are checked against the promised bounds.
func TestComparisonKeepsItsBudget(t *testing.T) {
	const keys, atMillion = 10_000, 1_000_000
	for _, tc := range []struct{ differing, budget, calls int }{
		{0, 150, 1}, {1, 1000, 7}, {10, 5000, 7}, {1000, 300_000, 9},
	} {
		t.Run(fmt.Sprint(tc.differing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTestCluster(t, 1, replicationtest.Faults{})
				a, b := c.add(), c.add()
				for i := range keys {
					a.store.Put(key(i), []byte("v"), false)
				}
				copyTo(t, b.store, a.store)
				r := rand.New(rand.NewPCG(1, 2))
				records := 0
				for _, i := range r.Perm(keys)[:tc.differing] {
					rec, _ := a.store.Put(key(i), []byte("w"), false)
					records += wire.Size([]types.Record{rec})
				}
				c.join(a)
				c.join(b)
				c.start(b)
				synctest.Wait()
				b.stop() // its loops only: what they did is over
				c.net.Serve(b.addr, b.Handlers())
				c.net.Traffic()
				rep, err := New(Options{Self: a.id, Store: a.store, Caller: c.net.Caller(a.addr), Peers: c.ro.without(a.id), PeersChanged: c.ro.change})
				if err != nil {
					t.Fatal(err)
				}
				out, err := rep.newComparison(c.ro.without(a.id)()[0]).round(t.Context())
				if err != nil || !out.completed || out.moved != tc.differing {
					t.Fatalf("outcome %+v, error %v", out, err)
				}
				if !c.equal() {
					t.Fatal("completed, but not equal")
				}
				bytes, calls := c.net.Traffic()
				total := 0
				for _, n := range calls {
					total += n
				}
				bytes -= records
				extra := tc.differing * 10 * (atMillion - keys) / merkle.Leaves
				t.Logf("%d bytes in %d requests; %d bytes at a million keys", bytes, total, bytes+extra)
				if bytes+extra > tc.budget || total > tc.calls {
					t.Errorf("%d bytes (%d at a million keys) in %d requests, budget %d in %d", bytes, bytes+extra, total, tc.budget, tc.calls)
				}
			})
		})
	}
}

// Each seed: nodes with different histories, concurrent writes and deletes, on a
// network that drops, delays, duplicates and reorders; then no more writes, and
// all must come to hold the same.
func TestConvergesOverABadNetwork(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 7))
				c := newTestCluster(t, seed, replicationtest.Faults{Drop: 0.2, Duplicate: 0.2, Delay: 400 * time.Millisecond})
				c.up(3, func(o *Options) { o.SyncInterval, o.CatchupInterval = 30*time.Second, 5*time.Second })
				defer c.down()
				for range 300 {
					n := c.nodes[r.IntN(3)]
					switch r.IntN(10) {
					case 0:
						n.store.PutBatch([]types.Key{key(r.IntN(40)), key(40 + r.IntN(40))}, []byte("batch"), false)
					case 1:
						n.store.ForgetRing()
					case 2:
						other := c.nodes[r.IntN(3)]
						c.net.Cut(n.addr, other.addr, r.IntN(2) == 0)
					default:
						n.store.Put(key(r.IntN(60)), []byte{byte(r.IntN(256))}, r.IntN(5) == 0)
					}
					time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
				}
				for _, a := range c.nodes {
					for _, b := range c.nodes {
						c.net.Cut(a.addr, b.addr, false)
					}
				}
				c.converge(10 * time.Minute)
				c.net.SetFaults(replicationtest.Faults{})
				start := time.Now()
				c.eventually("a completed comparison of each with each, after the faults", 10*time.Minute, func() bool {
					for _, n := range c.nodes {
						for _, p := range n.Status().Peers {
							if !p.LastSync.After(start) || p.SyncSeq == 0 || p.SyncClock > p.LastSync.UnixMilli() {
								return false
							}
						}
					}
					return true
				})
			})
		})
	}
}

// Rounds that are cut off go on where they stopped, and keep the first marks.
func TestLargeDifferenceTakesRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		a, b := c.add(), c.add()
		const n = 6_000
		for i := range n {
			a.store.Put(key(2*i), []byte("of a"), false)
			if i%3 == 0 {
				b.store.Put(key(2*i+1), []byte("of b"), false)
			}
		}
		seq := a.store.Seq()
		c.join(a)
		c.join(b)
		r, err := New(Options{Self: a.id, Store: a.store, Caller: c.net.Caller(a.addr), Peers: c.ro.without(a.id), PeersChanged: c.ro.change})
		if err != nil {
			t.Fatal(err)
		}
		c.start(b)
		b.stop()
		c.net.Serve(b.addr, b.Handlers())
		cmp := r.newComparison(c.ro.without(a.id)()[0])
		cmp.most = 2000
		rounds := 0
		for {
			rounds++
			from := cmp.from
			out, err := cmp.round(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if out.completed {
				break
			}
			if !out.cut || cmp.from <= from || rounds > 40 {
				t.Fatalf("round %d: %+v, from %x to %x", rounds, out, from, cmp.from)
			}
		}
		if !c.equal() || rounds < 3 || cmp.marks().Seq != seq {
			t.Errorf("equal %v after %d rounds, marks %+v", c.equal(), rounds, cmp.marks())
		}
	})
}

// One peer hangs, one answers garbage, one lies: the others do not notice.
func TestBadPeersHurtNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(5, func(o *Options) { o.SyncInterval = 20 * time.Second })
		time.Sleep(10 * time.Second)
		hung, garbage, liar := c.nodes[2], c.nodes[3], c.nodes[4]
		c.net.Hang(hung.addr, true)
		r := rand.New(rand.NewPCG(3, 3))
		var mu sync.Mutex // guards r
		c.net.Garble(garbage.addr, func(_ string, answer []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			out := slices.Clone(answer)
			for range 3 {
				if len(out) > 0 {
					out[r.IntN(len(out))] ^= byte(1 << r.IntN(8))
				}
			}
			return out[:r.IntN(len(out)+1)]
		})
		// It claims another tree each time, and never gives anything.
		c.net.Garble(liar.addr, func(path string, answer []byte) []byte {
			if path != pathRoot {
				return answer
			}
			m, err := wire.DecodeRootAnswer(answer)
			if err != nil {
				return answer
			}
			m.Equal, m.Digest = false, [16]byte{1}
			for i := range m.Children {
				m.Children[i] = uint32(i)
			}
			return m.Append(nil)
		})
		a, b := c.nodes[0], c.nodes[1]
		for i := range 100 {
			start := time.Now()
			rec, seq := a.store.Put(key(i), nil, false)
			if n, err := a.Await(t.Context(), rec, seq, 2); n < 2 || err != nil || time.Since(start) > 0 {
				t.Fatalf("%d acknowledged after %v: %v", n, time.Since(start), err)
			}
			time.Sleep(time.Second)
		}
		if at := peerStatus(t, a, b.id).LastSync; time.Since(at) > 21*time.Second {
			t.Errorf("the good peers compared %v ago", time.Since(at))
		}
		_, calls := c.net.Traffic()
		if calls[pathRoot] > 5*4*200 {
			t.Errorf("%d comparisons were begun", calls[pathRoot])
		}
		c.net.Hang(hung.addr, false)
		c.net.Garble(garbage.addr, nil)
		c.net.Garble(liar.addr, nil)
		c.converge(time.Minute)
		c.down()
	})
}

// What a node that dies had pushed to one member only, the others get.
func TestLossOfAMemberTriggersComparison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(3, func(o *Options) { o.SyncInterval = 1000 * time.Hour })
		defer c.down()
		time.Sleep(time.Minute)
		a, d := c.nodes[0], c.nodes[2]
		c.net.Cut(a.addr, d.addr, true)
		a.store.Put("only b has it", nil, false)
		synctest.Wait()
		a.stop()
		c.ro.setAlive(a.id, false)
		c.eventually("the record", 3*time.Second, func() bool {
			_, err := d.store.Lookup(types.DataRef("only b has it"))
			return err == nil
		})
	})
}

func TestLargerHorizonRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(2)
		defer c.down()
		c.nodes[1].store.SetHorizon(1000)
		c.nodes[0].store.Put("a", nil, false)
		time.Sleep(time.Minute)
		if _, err := c.nodes[1].store.Lookup(types.DataRef("a")); err == nil {
			t.Error("a body read under a smaller horizon was taken")
		}
		if !strings.Contains(c.logs.String(), "horizon is 1000") {
			t.Error("the log does not say why")
		}
		c.nodes[0].store.SetHorizon(1000)
		c.converge(15 * time.Second)
	})
}

func TestRefusedCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(2, func(o *Options) {
			o.Admit = func(id types.NodeID) error { return types.ErrNotFound }
		})
		defer c.down()
		c.nodes[0].store.Put("a", nil, false)
		time.Sleep(time.Minute)
		if _, err := c.nodes[1].store.Lookup(types.DataRef("a")); err == nil {
			t.Error("a node that is not admitted was served")
		}
		n := c.nodes[0]
		_, err := c.net.Caller("x").Call(t.Context(), n.addr, pathPush, (&wire.Push{Header: n.header()}).Append(nil))
		if err == nil || !strings.Contains(err.Error(), "same_node") {
			t.Errorf("a body of the node itself: error %v", err)
		}
	})
}

func TestDecide(t *testing.T) {
	none := []wire.Item{{Hash: 1}}
	item := func(ts types.Timestamp, digest uint32) wire.Item {
		return wire.Item{Hash: 1, Timestamp: ts, Digest: digest}
	}
	for _, tc := range []struct {
		name         string
		theirs, mine []wire.Item
		give, want   bool
	}{
		{"both have nothing", none, none, false, false},
		{"they have nothing", none, []wire.Item{item(5, 1)}, true, false},
		{"I have nothing", []wire.Item{item(5, 1)}, none, false, true},
		{"the same", []wire.Item{item(5, 1)}, []wire.Item{item(5, 1)}, false, false},
		{"mine is newer", []wire.Item{item(5, 1)}, []wire.Item{item(6, 2)}, true, false},
		{"theirs is newer", []wire.Item{item(6, 1)}, []wire.Item{item(5, 2)}, false, true},
		{"same time", []wire.Item{item(5, 1)}, []wire.Item{item(5, 2)}, true, true},
		{"two keys, the same", []wire.Item{item(5, 1), item(6, 2)}, []wire.Item{item(6, 2), item(5, 1)}, false, false},
		{"two keys and one", []wire.Item{item(5, 1), item(6, 2)}, []wire.Item{item(5, 1)}, true, true},
	} {
		if give, want := decide(tc.theirs, tc.mine); give != tc.give || want != tc.want {
			t.Errorf("%s: give %v, want %v", tc.name, give, want)
		}
	}
}

func TestGroupEnd(t *testing.T) {
	items := []wire.Item{{Hash: 1}, {Hash: 2}, {Hash: 2}, {Hash: 2}, {Hash: 3}}
	for n, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 4, 5: 5, 6: 5} {
		if got := groupEnd(items, n); got != want {
			t.Errorf("groupEnd(%d) = %d, want %d", n, got, want)
		}
	}
	if got := groupEnd(items[1:], 1); got != 3 {
		t.Errorf("a group larger than the bound ends at %d", got)
	}
}

func TestPacer(t *testing.T) {
	o := Options{SyncInterval: 400 * time.Second, CatchupInterval: 120 * time.Second, RecheckDelay: time.Second, ThrottleDelay: 100 * time.Millisecond}
	var p pacer
	failed := types.ErrUnreachable
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 120, 120} {
		if got := p.next(&o, outcome{}, failed); got != want*time.Second {
			t.Errorf("failure %d: %v", i, got)
		}
	}
	if got := p.next(&o, outcome{cut: true, moved: 5}, nil); got != o.ThrottleDelay {
		t.Errorf("cut off: %v", got)
	}
	for i, want := range []time.Duration{1, 2, 4} {
		if got := p.next(&o, outcome{completed: true, moved: 5}, nil); got != want*time.Second {
			t.Errorf("repair %d: %v", i, got)
		}
	}
	if got := p.next(&o, outcome{}, nil); got != o.CatchupInterval {
		t.Errorf("not completed: %v", got)
	}
	for range 100 {
		if got := p.next(&o, outcome{completed: true}, nil); got > o.SyncInterval || got < o.SyncInterval*3/4 {
			t.Fatalf("completed: %v", got)
		}
	}
}
