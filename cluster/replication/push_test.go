package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvs/cluster/replication/replicationtest"
	"kvs/storage/feed"
	"kvs/types"
)

func TestPushReachesAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(3)
		defer c.down()
		time.Sleep(time.Minute)
		c.net.Traffic()
		start := time.Now()
		rec, seq := c.nodes[0].store.Put("a", []byte("1"), false)
		n, err := c.nodes[0].Await(t.Context(), rec, seq, 2)
		if n != 2 || err != nil || time.Since(start) != 0 {
			t.Fatalf("%d acknowledged after %v, error %v", n, time.Since(start), err)
		}
		if !c.equal() {
			t.Fatal("acknowledged, but not there")
		}
		// Neither receiver sends it on, and nobody's cursors keep the store busy.
		_, calls := c.net.Traffic()
		if calls[pathPush] != 2 {
			t.Errorf("%d pushes", calls[pathPush])
		}
		time.Sleep(time.Hour)
		if puts := c.nodes[0].store.MetaPuts(); puts > 3*(3600/200) {
			t.Errorf("%d writes of cursors and marks in an idle hour", puts)
		}
		for _, p := range c.nodes[0].Status().Peers {
			if p.Behind != 0 || p.LastSync.IsZero() || time.Since(p.LastSync) > 6*time.Minute || p.Root == "" {
				t.Errorf("status %+v", p)
			}
		}
	})
}

func TestAbsentPeerIsCaughtUp(t *testing.T) {
	for _, mode := range []string{"ring", "scan", "restart in a scan"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTestCluster(t, 1, replicationtest.Faults{})
				c.up(3, func(o *Options) { o.SyncInterval = time.Hour * 1000 })
				defer c.down()
				a, b := c.nodes[0], c.nodes[1]
				time.Sleep(time.Minute)
				b.stop()
				c.ro.setAlive(b.id, false)
				synctest.Wait()
				n := 30
				if mode != "ring" {
					n = 500
				}
				for i := range n {
					a.store.Put(key(i), []byte("value"), i%7 == 0)
				}
				synctest.Wait()
				if got := peerStatus(t, a, b.id).Behind; got < uint64(n) {
					t.Fatalf("behind by %d", got)
				}
				if mode == "restart in a scan" {
					// The first bodies arrive, then the link fails; then the node is restarted.
					value := make([]byte, 2000)
					for i := range 6000 {
						a.store.Put(key(i), value, false)
					}
					var pushes atomic.Int64
					garble := func(path string, answer []byte) []byte {
						if path != pathPush || pushes.Add(1) > 3 {
							return nil
						}
						return answer
					}
					c.net.Garble(a.addr, garble)
					c.net.Garble(b.addr, garble)
					c.start(b)
					c.ro.setAlive(b.id, true)
					c.eventually("a scan under way", 30*time.Second, func() bool {
						p := a.peer(b.id)
						p.mu.Lock()
						defer p.mu.Unlock()
						return p.pos.After.Key != ""
					})
					a.stop()
					c.net.Garble(a.addr, nil)
					c.net.Garble(b.addr, nil)
					a.store.ForgetRing()
					if pos, ok := read(a.Replicator, metaCursor+b.id.String(), decodePosition); !ok || pos.After.Key == "" {
						t.Error("the position in the scan was lost")
					}
					c.start(a)
				} else {
					c.start(b)
					c.ro.setAlive(b.id, true)
				}
				if d := c.converge(20 * time.Second); d > 11*time.Second {
					t.Errorf("caught up after %v", d)
				}
				c.eventually("the cursor", 10*time.Second, func() bool { return peerStatus(t, a, b.id).Behind == 0 })
			})
		})
	}
}

func peerStatus(t *testing.T, n *testNode, id types.NodeID) PeerStatus {
	t.Helper()
	for _, p := range n.Status().Peers {
		if p.UUID == id {
			return p
		}
	}
	t.Fatalf("no status of %s", id)
	return PeerStatus{}
}

func TestAwait(t *testing.T) {
	timeout := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("counts only who has it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			c.up(3)
			defer c.down()
			c.net.Hang(c.nodes[2].addr, true)
			rec, seq := c.nodes[0].store.Put("a", []byte("1"), false)
			if n, err := c.nodes[0].Await(timeout(t), rec, seq, 1); n != 1 || err != nil {
				t.Errorf("one of two: %d, %v", n, err)
			}
			if n, err := c.nodes[0].Await(timeout(t), rec, seq, 2); n != 1 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("two of two: %d, %v", n, err)
			}
			if n, err := c.nodes[0].Await(timeout(t), rec, seq, 0); n != 0 || err != nil {
				t.Errorf("none: %d, %v", n, err)
			}
		})
	})
	t.Run("what was refused does not count", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			c.up(2)
			defer c.down()
			a, b := c.nodes[0], c.nodes[1]
			b.store.SetMaxSkew(5 * time.Second)
			a.store.SetSkew(time.Minute)
			bad, seq := a.store.Put("bad", []byte("1"), false)
			synctest.Wait()
			a.store.SetSkew(0)
			if n, err := a.Await(timeout(t), bad, seq, 1); n != 0 || err == nil {
				t.Errorf("before: %d, %v", n, err)
			}
			if !strings.Contains(c.logs.String(), "bad") {
				t.Error("the log does not name the refused record")
			}
			if peerStatus(t, a, b.id).Behind != 0 {
				t.Error("a refused record holds the rest up")
			}
			// Once the time has come, anti-entropy brings it.
			c.converge(10 * time.Minute)
		})
	})
	t.Run("what a scan passed is asked about", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			c.up(2)
			defer c.down()
			a, b := c.nodes[0], c.nodes[1]
			c.ro.setAlive(b.id, false)
			synctest.Wait()
			old, seq := a.store.Put("a", []byte("1"), false)
			for i := range 200 {
				a.store.Put(key(i), nil, false)
			}
			c.ro.setAlive(b.id, true)
			c.converge(20 * time.Second)
			a.store.ForgetRing()
			start := time.Now()
			if n, err := a.Await(timeout(t), old, seq, 1); n != 1 || err != nil || time.Since(start) > 0 {
				t.Errorf("%d, %v, after %v", n, err, time.Since(start))
			}
		})
	})
	t.Run("a descendant counts", func(t *testing.T) {
		a := newAcks()
		id := nodeID(1)
		a.add(id, 5)
		v := types.Version{Timestamp: 7, Origin: nodeID(0), UUID: types.VersionID{1}}
		rec := types.Record{Ref: types.DataRef("k"), Version: v}
		done := make(chan int, 1)
		go func() {
			n, _ := a.await(t.Context(), rec, 6, 1)
			done <- n
		}()
		next := rec
		next.UUID, next.Timestamp = types.VersionID{2}, 9
		next.Context = types.Context{}.Extend(v)
		for {
			a.mu.Lock()
			waits := len(a.waiters) == 1
			a.mu.Unlock()
			if waits {
				break
			}
		}
		other := next
		other.Context = nil
		a.delivered(id, [][]types.Record{{other}}, nil)
		if len(done) != 0 {
			t.Error("another version was counted")
		}
		a.delivered(id, [][]types.Record{{next}}, nil)
		if n := <-done; n != 1 {
			t.Errorf("%d acknowledged", n)
		}
	})
}

func TestAnotherNodeAtTheAddressDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(3)
		defer c.down()
		a, b, other := c.nodes[0], c.nodes[1], c.nodes[2]
		b.stop()
		c.net.Serve(b.addr, other.Handlers())
		rec, seq := a.store.Put("a", []byte("1"), false)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if n, err := a.Await(ctx, rec, seq, 2); n != 1 || err == nil {
			t.Errorf("%d acknowledged, error %v", n, err)
		}
	})
}

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{Delay: 300 * time.Millisecond})
		c.up(3)
		defer c.down()
		a := c.nodes[0]
		for i := range 50 {
			a.store.Put(key(i), nil, false)
		}
		c.ro.setAlive(c.nodes[2].id, false) // it does not wait for the absent
		if err := a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if _, err := c.nodes[1].store.Lookup(types.DataRef(key(i))); err != nil {
				t.Fatal(err)
			}
		}
		c.net.Hang(c.nodes[1].addr, true)
		a.store.Put("late", nil, false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "node2") {
			t.Errorf("error %v", err)
		}
	})
}

func TestUnitsStayWhole(t *testing.T) {
	self := nodeID(0)
	rec := func(key string, origin types.NodeID) types.Record {
		return types.Record{Ref: types.DataRef(types.Key(key)), Version: types.Version{Origin: origin}}
	}
	changes := []feed.Change{
		{Record: rec("a", self)}, {Record: rec("b", self)},
		{Record: rec("c", self), Unit: 1}, {Record: rec("x", nodeID(1)), Unit: 1}, {Record: rec("d", self), Unit: 1},
		{Record: rec("e", self), Unit: 2}, {Record: rec("f", self)},
	}
	var got []string
	for _, unit := range unitsOf(changes, func(r *types.Record) bool { return r.Origin == self }) {
		var keys []string
		for _, r := range unit {
			keys = append(keys, string(r.Key))
		}
		got = append(got, strings.Join(keys, ""))
	}
	if s := fmt.Sprint(got); s != "[a b cd e f]" {
		t.Errorf("units %s", s)
	}
}

// A batch larger than a body arrives as one commit all the same.
func TestBatchArrivesWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(2)
		defer c.down()
		before := c.nodes[1].store.Seq()
		var keys []types.Key
		for i := range 100 {
			keys = append(keys, key(i))
		}
		c.nodes[0].store.PutBatch(keys, make([]byte, 100_000), false)
		synctest.Wait()
		commits, ok := c.nodes[1].store.Recent(before, 100<<20)
		if !ok || len(commits) != 1 || len(commits[0].Changes) != 100 {
			t.Fatalf("%d commits", len(commits))
		}
	})
}

func TestFullDiskOfAPeerDelaysIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(3)
		defer c.down()
		a, b := c.nodes[0], c.nodes[1]
		b.store.Fail(types.ErrDiskFull)
		rec, seq := a.store.Put("a", nil, false)
		if n, err := a.Await(t.Context(), rec, seq, 1); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		time.Sleep(time.Minute)
		b.store.Fail(nil)
		c.converge(11 * time.Second)
	})
}
