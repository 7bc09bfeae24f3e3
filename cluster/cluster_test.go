package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"kvs/types"
	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

func TestThreeNodesShareWhatTheyAreGiven(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		for _, n := range []*node{a, b, c} {
			res := n.put(t, "from/"+n.name, `1`)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if got, err := n.Await(ctx, res.Record, res.Seq, 2); got != 2 || err != nil {
				t.Errorf("%d peers have the write of %s: %v", got, n.name, err)
			}
			cancel()
		}
		converge(t, 5*time.Second, a, b, c)
		for _, n := range []*node{a, b, c} {
			for _, from := range []string{"a", "b", "c"} {
				if n.get(t, "from/"+from) != "1" {
					t.Errorf("%s lacks what %s was given", n.name, from)
				}
			}
			if m := n.Mode(); m != types.ModeNormal {
				t.Errorf("%s is %s", n.name, m)
			}
		}
		members := a.Members()
		if len(members) != 3 || members[0].NodeID != "a" || !members[0].Self || members[0].Root == "" || members[1].Address != b.addr {
			t.Errorf("members: %+v", members)
		}
		if st := a.Status(); len(st.Peers) != 2 || st.SentBytes == 0 {
			t.Errorf("status: %+v", st)
		}
		unharmed(t, a, b, c)
	})
}

func TestOverRealSockets(t *testing.T) {
	network := oneport.Real()
	port := func() int {
		ln, packets, err := network.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		defer packets.Close()
		var n int
		fmt.Sscanf(ln.Addr().String(), "127.0.0.1:%d", &n)
		return n
	}
	first := port()
	a := start(t, network, config{name: "a", port: first})
	b := start(t, network, config{name: "b", port: port(), seeds: []int{first}})
	sees(t, 10*time.Second, 2, 2, a, b)
	a.put(t, "k", `"v"`)
	until(t, 10*time.Second, "b has the write", func() bool { return b.get(t, "k") == `"v"` })
}

func TestPartitionHeals(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		fabric.Partition([]string{"a"}, []string{"b", "c"})
		sees(t, 15*time.Second, 1, 3, a)
		a.put(t, "k", `"left"`)
		time.Sleep(time.Second)
		b.put(t, "k", `"right"`)
		b.put(t, "other", `1`)
		fabric.HealAll()
		sees(t, 5*time.Second, 3, 3, a, b, c)
		converge(t, 10*time.Second, a, b, c)
		if a.get(t, "k") != `"right"` || a.get(t, "other") != `1` {
			t.Errorf("a has %s and %s", a.get(t, "k"), a.get(t, "other"))
		}
		unharmed(t, a, b, c)
	})
}

func TestNewNodeIsFilled(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a := start(t, fabric.Host("a"), config{name: "a", port: 9001, keepRing: 1 << 12})
		for i := range 300 {
			a.put(t, fmt.Sprintf("k/%03d", i), strings.Repeat("1", 100))
		}
		b := start(t, fabric.Host("b"), config{name: "b", port: 9002, seeds: []int{9001}})
		if b.Mode() != types.ModeSyncing {
			t.Errorf("an empty node with seeds is %s", b.Mode())
		}
		until(t, 5*time.Second, "b knows whom to ask", func() bool { addr, ok := b.NormalPeer(); return ok && addr == a.addr })
		until(t, 30*time.Second, "b is filled", func() bool { return b.Mode() == types.ModeNormal })
		converge(t, 10*time.Second, a, b)
	})
}

func TestRosterSurvivesRestarts(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		converge(t, 5*time.Second, a, b, c)
		a.kill()
		b.kill()
		sees(t, 20*time.Second, 1, 3, c)
		c.put(t, "k", `1`)
		// Without seeds, and one of them elsewhere.
		a = start(t, fabric.Host("a"), config{name: "a", port: 9001, dir: a.dir})
		b = start(t, fabric.Host("b"), config{name: "b", port: 9005, dir: b.dir})
		sees(t, 3*time.Second, 3, 3, a, b, c)
		converge(t, 10*time.Second, a, b, c)
		for _, n := range []*node{a, c} {
			for _, m := range n.Members() {
				if m.NodeID == "b" && m.Address != b.addr {
					t.Errorf("%s has b at %s", n.name, m.Address)
				}
			}
		}
		unharmed(t, a, b, c)
	})
}

func TestLeaveFlushes(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		for i := range 200 {
			c.put(t, fmt.Sprint(i), `1`)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Leave(ctx); err != nil {
			t.Fatal(err)
		}
		c.kill()
		for i := range 200 {
			if a.get(t, fmt.Sprint(i)) == "" || b.get(t, fmt.Sprint(i)) == "" {
				t.Fatalf("write %d was not pushed before the node left", i)
			}
		}
		sees(t, time.Second, 2, 3, a, b)
		for _, m := range a.Members() {
			if m.NodeID == "c" && m.State != "left" {
				t.Errorf("c is %s", m.State)
			}
		}
	})
}

func TestRemoveDeadNode(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		converge(t, 5*time.Second, a, b, c)
		c.kill()
		sees(t, 15*time.Second, 2, 3, a, b)
		if err := a.Remove(t.Context(), "nobody"); !errors.Is(err, types.ErrNotFound) {
			t.Errorf("removing nobody: %v", err)
		}
		if err := a.Remove(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		sees(t, 5*time.Second, 2, 2, a, b)

		c = start(t, fabric.Host("c"), config{name: "c", port: 9003, dir: c.dir})
		mustEnd(t, c, 5*time.Second, "removed", "empty data directory")
		c.kill()
		fresh := start(t, fabric.Host("c"), config{name: "c", port: 9003, seeds: []int{9001}})
		sees(t, 5*time.Second, 3, 3, a, b, fresh)
		unharmed(t, a, b, fresh)
	})
}

func TestRemoveLiveNode(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		if err := b.Remove(t.Context(), c.store.Identity().UUID.String()); err != nil {
			t.Fatal(err)
		}
		mustEnd(t, c, 2*time.Second, "removed")
		sees(t, 5*time.Second, 2, 2, a, b)
		unharmed(t, a, b)
	})
}

func TestDepart(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		c.put(t, "k", `1`)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Depart(ctx); err != nil {
			t.Fatal(err)
		}
		unharmed(t, c)
		c.kill()
		sees(t, 5*time.Second, 2, 2, a, b)
		if a.get(t, "k") != "1" || b.get(t, "k") != "1" {
			t.Error("the departed node's write is not on both others")
		}
		c = start(t, fabric.Host("c"), config{name: "c", port: 9003, dir: c.dir})
		mustEnd(t, c, time.Second, "removed")
	})
}

func TestCopiedDirectoryYields(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		converge(t, 5*time.Second, a, b, c)
		c.kill()
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(c.dir)); err != nil {
			t.Fatal(err)
		}
		c = start(t, fabric.Host("c"), config{name: "c", port: 9003, dir: c.dir})
		sees(t, 15*time.Second, 3, 3, a, b, c)

		// Under the same name and another; from what it copied it knows the others.
		for i, name := range []string{"c", "d"} {
			twin := start(t, fabric.Host("d"), config{name: name, port: 9004 + i, dir: copied})
			mustEnd(t, twin, 5*time.Second, c.addr, "data_dir")
			twin.kill()
		}
		c.put(t, "k", `1`)
		converge(t, 5*time.Second, a, b, c)
		sees(t, 0, 3, 3, a, b, c)
		unharmed(t, a, b, c)
		for _, m := range a.Members() {
			if m.UUID == c.store.Identity().UUID && (m.NodeID != "c" || m.Address != c.addr) {
				t.Errorf("a has %s at %s for c", m.NodeID, m.Address)
			}
		}
	})
}

// A quarter of an hour of cuts, losses and restarts, with writes on all sides.
// `make chaos` runs it over many seeds.
func TestChaosConverges(t *testing.T) {
	for i := range *seeds {
		seed := firstSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulatedSeed(t, seed, func(t *testing.T, fabric *faultnet.Fabric) { chaos(t, fabric, seed) })
		})
	}
}

func chaos(t *testing.T, fabric *faultnet.Fabric, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	a, b, c := trio(t, fabric)
	nodes := []*node{a, b, c}
	names := []string{"a", "b", "c"}
	want := map[string]bool{}
	for round := range 20 {
		fabric.SetFaultsEverywhere(faultnet.Faults{
			Drop: rng.Float64() / 3, Duplicate: rng.Float64() / 3, Delay: time.Duration(rng.Int64N(int64(100 * time.Millisecond))),
		})
		i := rng.IntN(3)
		switch rng.IntN(4) {
		case 0:
			fabric.Partition([]string{names[i]}, []string{names[(i+1)%3], names[(i+2)%3]})
		case 1:
			fabric.CutOneWay(names[i], names[(i+1)%3])
		case 2:
			nodes[i].kill()
			nodes[i] = start(t, fabric.Host(names[i]), config{name: names[i], port: 9001 + i, dir: nodes[i].dir})
		default:
			fabric.HealAll()
		}
		for range 5 {
			n := nodes[rng.IntN(3)]
			key := fmt.Sprintf("%s/%d/%d", n.name, round, rng.Int())
			n.put(t, key, `1`)
			want[key] = true
			n.put(t, "shared", fmt.Sprint(round))
			time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second))))
		}
	}
	fabric.HealAll()
	fabric.SetFaultsEverywhere(faultnet.Faults{})
	sees(t, 10*time.Second, 3, 3, nodes...)
	converge(t, 30*time.Second, nodes...)
	for _, n := range nodes {
		for key := range want {
			if n.get(t, key) != "1" {
				t.Errorf("%s lacks %s", n.name, key)
			}
		}
	}
	unharmed(t, nodes...)
}

func TestWrongClockIsFound(t *testing.T) {
	for name, joins := range map[string]bool{"a joining node": true, "a known node": false} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				a, b, c := trio(t, fabric)
				var wrong *node
				if joins {
					wrong = start(t, fabric.Host("d"), config{name: "d", port: 9004, seeds: []int{9001}, ahead: 20 * time.Second})
				} else {
					c.kill()
					wrong = start(t, fabric.Host("c"), config{name: "c", port: 9003, dir: c.dir, ahead: 20 * time.Second})
				}
				until(t, 10*time.Second, "the node knows that its clock is ahead", func() bool {
					ahead, skewed := wrong.Skewed()
					return skewed && (ahead-20*time.Second).Abs() < time.Second
				})
				for _, n := range []*node{a, b} {
					if ahead, skewed := n.Skewed(); skewed {
						t.Errorf("%s takes its own clock for wrong by %v", n.name, ahead)
					}
				}
			})
		})
	}
}

func TestReadOnlyIsAnnounced(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a := start(t, fabric.Host("a"), config{name: "a", port: 9001})
		b := start(t, fabric.Host("b"), config{name: "b", port: 9002, seeds: []int{9001}, readOnly: true})
		sees(t, 2*time.Second, 2, 2, a, b)
		until(t, 30*time.Second, "b is read-only, and a knows", func() bool {
			return b.Mode() == types.ModeReadOnly && a.Members()[1].Mode == types.ModeReadOnly
		})
		a.put(t, "k", `1`)
		until(t, time.Second, "b takes what is replicated", func() bool { return b.get(t, "k") == `1` })
	})
}

func TestStrangersAreRefused(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a := start(t, fabric.Host("a"), config{name: "a", port: 9001})
		for _, path := range []string{"/sync/hello", "/sync/gossip", "/sync/push", "/sync/nothing"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
			r.Header.Set("Authorization", "Bearer nonsense")
			a.Handler().ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || w.Header().Get("Content-Type") != "application/problem+json" ||
				!strings.Contains(w.Body.String(), `"code":"unauthorized"`) {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
	})
}
