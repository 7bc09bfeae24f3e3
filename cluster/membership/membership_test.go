package membership

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"kvs/types"
	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

const seed = 20240611 // printed by the tests that draw lots from it

// simulated runs fn with simulated time over an in-memory network.
func simulated(t *testing.T, fn func(t *testing.T, fabric *faultnet.Fabric)) {
	synctest.Test(t, func(t *testing.T) {
		// Runs last: memberlist does not wait for a probe that is under way, and
		// a bubble's time ends with its main goroutine.
		t.Cleanup(func() { time.Sleep(time.Minute) })
		t.Logf("seed %d", seed)
		fn(t, faultnet.New(seed, faultnet.Memory()))
	})
}

func TestThreeNodesFormInAnyOrder(t *testing.T) {
	seeds := map[string][]string{"a": nil, "b": {addr(0)}, "c": {addr(0), addr(1)}}
	for _, order := range [][3]string{
		{"a", "b", "c"}, {"a", "c", "b"}, {"b", "a", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"c", "b", "a"},
	} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				var nodes []*node
				for _, name := range order {
					nodes = append(nodes, run(t, fabric.Host(name), config{name: name, addr: addr(int(name[0] - 'a')), seeds: seeds[name]}))
					time.Sleep(7 * time.Second) // a late start, not a wait for a state
				}
				allSee(t, 2*time.Second, nodes...)
				unharmed(t, nodes...)
			})
		})
	}
}

func TestOverRealSockets(t *testing.T) {
	fabric := faultnet.New(seed, oneport.Real())
	a := run(t, fabric.Host("a"), config{name: "a"})
	b := run(t, fabric.Host("b"), config{name: "b", seeds: []string{a.opts.Address}})
	c := run(t, fabric.Host("c"), config{name: "c", seeds: []string{a.opts.Address}})
	allSee(t, 5*time.Second, a, b, c)
	if err := c.Leave(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	sees(t, 5*time.Second, a, "b=alive c=left")
}

func TestPartitionAndHeal(t *testing.T) {
	for _, away := range []time.Duration{3 * time.Second, 20 * time.Second, 5 * time.Minute} {
		t.Run(away.String(), func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				a, b, c := trio(t, fabric)
				fabric.Partition([]string{"a"}, []string{"b", "c"})
				time.Sleep(away)
				if away > 10*time.Second {
					sees(t, 0, a, "b=failed c=failed")
					sees(t, 0, b, "a=failed c=alive")
				}
				fabric.HealAll()
				allSee(t, 5*time.Second, a, b, c)
				unharmed(t, a, b, c)
			})
		})
	}
}

func TestLongPartitionHealsAtTheSlowPace(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		fabric.Partition([]string{"a"}, []string{"b"}, []string{"c"})
		time.Sleep(2 * time.Hour)
		fabric.HealAll()
		allSee(t, 2*time.Minute+helloTimeout, a, b, c)
	})
}

func TestOneWayCut(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		// The third still reaches both, and vouches for them.
		fabric.CutOneWay("a", "b")
		time.Sleep(30 * time.Second)
		fabric.Heal("a", "b")
		allSee(t, 5*time.Second, a, b, c)
		unharmed(t, a, b, c)
	})
}

func TestKilledNodeIsFailedWithinTenSeconds(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		c.stop()
		sees(t, 10*time.Second, a, "b=alive c=failed")
		sees(t, 10*time.Second, b, "a=alive c=failed")
	})
}

func TestLeave(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		changed := a.Changed()
		if err := c.Leave(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		<-changed
		c.stop()
		sees(t, time.Second, a, "b=alive c=left")
		sees(t, time.Second, b, "a=alive c=left")
		time.Sleep(time.Minute) // it is not taken back in by anybody's attempts
		sees(t, 0, a, "b=alive c=left")

		again := run(t, fabric.Host("c"), config{name: "c", addr: addr(2), roster: c.roster})
		allSee(t, 2*time.Second, a, b, again)
	})
}

func TestQuickRestart(t *testing.T) {
	for name, to := range map[string]string{"same port": addr(2), "another port": addr(3)} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				a, b, c := trio(t, fabric)
				c.stop()
				again := run(t, fabric.Host("c"), config{name: "c", addr: to, roster: c.roster})
				time.Sleep(3 * time.Second)
				allSee(t, 0, a, b, again)
				for _, m := range a.Members() {
					if m.NodeID == "c" && m.Address != to {
						t.Errorf("a has c at %s, it is at %s", m.Address, to)
					}
				}
				// And it stays so: nobody is declared dead by what was on the way.
				time.Sleep(time.Minute)
				allSee(t, 0, a, b, again)
				unharmed(t, a, b, again)
			})
		})
	}
}

func TestCopiedIdentityYields(t *testing.T) {
	for name, seeds := range map[string][]string{
		"it meets the original": {addr(2)},
		"it meets another":      {addr(0)},
		"it knows the roster":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				a, b, c := trio(t, fabric)
				var roster *memoryRoster
				if seeds == nil {
					roster = newRoster(c.opts.Identity)
					roster.entries[a.opts.UUID] = a.opts.Identity
				}
				copied := run(t, fabric.Host("d"), config{name: "c", addr: addr(3), seeds: seeds, roster: roster})
				mustEnd(t, copied, 5*time.Second, addr(2), "data directory", "data_dir")
				time.Sleep(30 * time.Second)
				allSee(t, 0, a, b, c)
				unharmed(t, a, b, c)
			})
		})
	}
}

func TestReusedNodeIDYields(t *testing.T) {
	for i, seeds := range [][]string{{addr(2)}, {addr(0)}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				a, b, c := trio(t, fabric)
				d := run(t, fabric.Host("d"), config{name: "d", nodeID: "c", addr: addr(3), seeds: seeds})
				mustEnd(t, d, 5*time.Second, "node_id c", addr(2))
				time.Sleep(30 * time.Second)
				allSee(t, 0, a, b, c)
				unharmed(t, a, b, c)
			})
		})
	}
}

// Two that never met each other's address meet by gossip: the later yields,
// also when its clock says that it was the first.
func TestConflictFoundWhenTwoClustersMeet(t *testing.T) {
	for name, id := range map[string]types.NodeID{"node_id": idOf("other"), "uuid": idOf("c")} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
				a, b, c := trio(t, fabric)
				time.Sleep(time.Minute)
				d := run(t, fabric.Host("d"), config{name: "d", addr: addr(3)})
				twin := run(t, fabric.Host("e"), config{name: "e", nodeID: "c", uuid: id, addr: addr(4), seeds: []string{addr(3)}, ahead: -time.Hour})
				sees(t, 2*time.Second, d, "c=alive")
				if err := d.Join(t.Context(), addr(0)); err != nil {
					t.Fatal(err)
				}
				// Not for a moment does the twin take the place of the original.
				unmoved := func(nodes ...*node) {
					for _, n := range nodes {
						for _, m := range n.Members() {
							if m.UUID == c.opts.UUID && (m.State != StateAlive || m.Address != addr(2)) {
								t.Fatalf("%s sees c as %s at %s", n.opts.NodeID, m.State, m.Address)
							}
						}
					}
				}
				for range 1000 {
					unmoved(a, b)
					time.Sleep(10 * time.Millisecond)
				}
				mustEnd(t, twin, time.Millisecond, "c")
				time.Sleep(30 * time.Second)
				unmoved(a, b, d)
				unharmed(t, a, b, c, d)
			})
		})
	}
}

func TestNodeIDOfADeadNodeMayBeUsedAgain(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		c.stop()
		d := run(t, fabric.Host("d"), config{name: "d", nodeID: "c", addr: addr(3), seeds: []string{addr(0)}})
		sees(t, 15*time.Second, a, "b=alive c=alive c=failed")
		unharmed(t, a, b, d)
	})
}

func TestWrongSecretStaysOut(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		d := run(t, fabric.Host("d"), config{name: "d", addr: addr(3), seeds: []string{addr(0)}, secret: "another secret"})
		e := run(t, fabric.Host("e"), config{name: "e", addr: addr(4), roster: c.roster, secret: "another secret"})
		time.Sleep(time.Minute)
		sees(t, 0, d, "")
		allSee(t, 0, a, b, c)
		unharmed(t, a, b, c, d, e)
		if err := d.Join(t.Context(), addr(1)); err == nil {
			t.Error("joined with the wrong secret")
		}
	})
}

func TestRemovedNodeStaysOut(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		for _, n := range []*node{a, b} {
			n.roster.remove(c.opts.UUID)
			n.RosterChanged()
		}
		_ = a.Expel(t.Context(), addr(2)) // it may end before it has answered
		mustEnd(t, c, time.Second, "removed", "empty data directory")
		sees(t, 0, a, "b=alive")

		c.stop()
		again := run(t, fabric.Host("c"), config{name: "c", addr: addr(2), roster: c.roster})
		mustEnd(t, again, 2*time.Second, "removed", "empty data directory")
		unharmed(t, a, b)
	})
}

func TestLossyNetwork(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		fabric.SetFaultsEverywhere(faultnet.Faults{Drop: 0.2, Duplicate: 0.2, Delay: 50 * time.Millisecond})
		a, b, c := trio(t, fabric)
		for range 60 {
			time.Sleep(10 * time.Second)
			// A suspicion is refuted before it becomes a failure.
			allSee(t, 0, a, b, c)
		}
		unharmed(t, a, b, c)
	})
}

func TestModeAndClockOffsets(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a, b, c := trio(t, fabric)
		b.SetMode(types.ModeReadOnly)
		eventually(t, 2*time.Second, "a knows b's mode", func() bool {
			for _, m := range a.Members() {
				if m.NodeID == "b" {
					return m.Mode == types.ModeReadOnly
				}
			}
			return false
		})

		c.clock.set(10 * time.Second)
		time.Sleep(10 * time.Second)
		for _, n := range []*node{a, b} {
			if ahead, known := n.Skew(); !known || ahead.Abs() > time.Millisecond {
				t.Errorf("%s is ahead by %v (known: %v): one wrong clock of two accuses it", n.opts.NodeID, ahead, known)
			}
		}
		if ahead, known := c.Skew(); !known || (ahead-10*time.Second).Abs() > time.Millisecond {
			t.Errorf("c is ahead by %v (known: %v), want 10s", ahead, known)
		}
	})
}

func TestJoinGivesTheReason(t *testing.T) {
	simulated(t, func(t *testing.T, fabric *faultnet.Fabric) {
		a := run(t, fabric.Host("a"), config{name: "a", addr: addr(0)})
		synctest.Wait() // it listens
		for _, to := range []string{"nonsense", addr(0), addr(1)} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := a.Join(ctx, to); err == nil {
				t.Errorf("joined %q", to)
			}
			cancel()
		}
		b := run(t, fabric.Host("b"), config{name: "b", addr: addr(1)})
		synctest.Wait()
		if err := b.Join(t.Context(), addr(0)); err != nil {
			t.Fatal(err)
		}
		allSee(t, time.Second, a, b)
	})
}
