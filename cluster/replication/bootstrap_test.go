package replication

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvs/cluster/replication/replicationtest"
	"kvs/types"
)

// old gives a store that holds n records spread over the last sixty days.
func (c *testCluster) old(n *testNode, records int) {
	const days = 60 * 24 * time.Hour
	for i := range records {
		n.store.SetSkew(-days + days/time.Duration(records)*time.Duration(i))
		n.store.Put(key(i*7919%records), []byte("some value of a usual length"), i%11 == 0)
	}
	n.store.SetSkew(0)
}

func TestEmptyNodeIsFilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		a, b := c.add(), c.add()
		c.old(a, 5000)
		c.join(a)
		c.start(a)
		synctest.Wait()
		defer c.down()
		joined := make(chan struct{})
		c.start(b, func(o *Options) { o.Joining = joined })
		synctest.Wait()
		if got := b.told(); !slices.Equal(got, []bool{true}) {
			t.Fatalf("before the first contact: %v", got)
		}
		c.join(b)
		// A push of something new does not make it look filled.
		a.store.Put("new", nil, false)
		synctest.Wait()
		close(joined)
		c.eventually("the end of filling", time.Minute, func() bool { return len(b.told()) == 2 })
		if !c.equal() {
			t.Error("filled, but not equal")
		}
		_, calls := c.net.Traffic()
		if got := b.told(); got[1] || calls[pathStream] != 4 || calls[pathExchange] != 0 {
			t.Errorf("modes %v, calls %v", got, calls)
		}
		if s := b.Status(); s.Syncing || s.BootDone < 5000 || s.BootTotal < 5000 || peerStatus(t, b, a.id).LastSync.IsZero() {
			t.Errorf("status %+v", s)
		}
		// It is not filled again.
		b.stop()
		c.start(b, func(o *Options) { o.Joining = joined })
		time.Sleep(time.Minute)
		if got := b.told(); len(got) != 2 {
			t.Errorf("after a restart: %v", got)
		}
	})
}

func TestFillingGoesOnElsewhereAndAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		a, a2, b := c.add(), c.add(), c.add()
		value := make([]byte, 4000)
		for i := range 6000 { // about 24 MB: several pages
			a.store.Put(key(i), value, false)
		}
		copyTo(t, a2.store, a.store)
		joined := make(chan struct{})
		close(joined)
		joining := func(o *Options) { o.Joining, o.FetchDelay = joined, 2*time.Second }
		for _, n := range []*testNode{a, a2, b} {
			c.join(n)
		}
		// Either source fails after a few pages of its own.
		var pages atomic.Int64
		fail := func(path string, answer []byte) []byte {
			if path == pathStream && pages.Add(1) > 3 {
				return answer[:len(answer)/2]
			}
			return answer
		}
		c.net.Garble(a.addr, fail)
		c.net.Garble(a2.addr, fail)
		c.start(a)
		c.start(a2)
		c.start(b, joining)
		defer c.down()
		c.eventually("a part", time.Minute, func() bool { return pages.Load() > 5 })
		done := b.Status().BootDone
		b.stop()
		if done == 0 || done > 5999 {
			t.Fatalf("%d records in the first part", done)
		}
		c.net.Garble(a2.addr, nil)
		c.net.Garble(a.addr, nil)
		c.net.Cut(a.addr, b.addr, true)
		c.net.Traffic()
		c.start(b, joining)
		synctest.Wait()
		if got := b.told(); !got[len(got)-1] {
			t.Error("half filled, it serves after the restart")
		}
		c.eventually("the end of filling", time.Minute, func() bool { return !b.Status().Syncing })
		if again := b.Status().BootDone; again+done > 6000+1200 {
			t.Errorf("%d and then %d records: it began anew", done, again)
		}
		c.converge(time.Second)
	})
}

func TestNobodyToBeFilledFrom(t *testing.T) {
	closed := make(chan struct{})
	close(closed)
	joining := func(o *Options) { o.Joining = closed }
	t.Run("no peer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			b := c.add()
			c.join(b)
			c.start(b, joining)
			defer c.down()
			synctest.Wait()
			if b.Status().Syncing {
				t.Fatal("it waits for nobody")
			}
			// One appears, with data.
			a := c.add()
			c.old(a, 500)
			c.start(a)
			c.join(a)
			c.eventually("filled", 10*time.Second, func() bool { return len(b.told()) == 4 && c.equal() })
		})
	})
	t.Run("all are new", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			for range 3 {
				c.join(c.add())
			}
			for _, n := range c.nodes {
				c.start(n, joining)
			}
			defer c.down()
			synctest.Wait()
			for _, n := range c.nodes {
				if n.Status().Syncing {
					t.Errorf("node %s waits for other empty ones", n.addr)
				}
			}
		})
	})
	t.Run("the member is silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			a, b := c.add(), c.add()
			c.old(a, 10)
			c.join(a)
			c.join(b)
			c.start(a)
			c.net.Hang(a.addr, true)
			c.start(b, joining)
			defer c.down()
			c.eventually("it serves", 2*time.Minute, func() bool { return !b.Status().Syncing })
			c.net.Hang(a.addr, false)
			c.eventually("filled", time.Minute, c.equal)
		})
	})
	t.Run("the source dies", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 1, replicationtest.Faults{})
			a, b := c.add(), c.add()
			c.old(a, 10)
			c.join(a)
			c.join(b)
			c.start(a)
			c.net.Garble(a.addr, func(path string, answer []byte) []byte {
				if path == pathStream {
					return nil
				}
				return answer
			})
			c.start(b, joining)
			defer c.down()
			c.eventually("it is being filled", time.Minute, func() bool { return b.Status().Syncing })
			a.stop()
			c.ro.setAlive(a.id, false)
			c.eventually("it serves", 2*time.Minute, func() bool { return !b.Status().Syncing })
		})
	})
}

func TestBands(t *testing.T) {
	for _, age := range []time.Duration{time.Minute, 720 * time.Hour} {
		r := &Replicator{o: Options{BootstrapMaxAge: age}}
		bands := r.bands(progress{Started: 1_800_000_000_000})
		to := bands[0].To
		for _, b := range bands {
			if b.To != to || b.From >= b.To {
				t.Errorf("max age %v: bands %v leave a gap or overlap", age, bands)
			}
			to = b.From
		}
		if to != 0 || bands[0].To != ^types.Timestamp(0) {
			t.Errorf("max age %v: bands %v leave something out", age, bands)
		}
	}
}

func TestHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(3)
		defer c.down()
		a := c.nodes[0]
		for i := range 10 {
			a.store.Put(key(i), []byte(fmt.Sprint(i)), false)
		}
		synctest.Wait()
		ref := types.DataRef(key(3))
		a.store.Corrupt(ref)
		c.net.Hang(c.nodes[2].addr, true) // one that hangs does not keep the other's copy away
		rec, ok, err := a.Heal(t.Context(), ref)
		if !ok || err != nil || string(rec.Value) != "3" {
			t.Fatalf("%+v, %v, %v", rec, ok, err)
		}
		if got, err := a.store.Lookup(ref); err != nil || string(got.Value) != "3" {
			t.Errorf("the store has %+v, %v", got, err)
		}
		if _, ok, err := a.Heal(t.Context(), types.DataRef("nobody has it")); ok || err != nil {
			t.Errorf("absent everywhere: %v, %v", ok, err)
		}
		c.net.Hang(c.nodes[1].addr, true)
		if _, ok, err := a.Heal(t.Context(), ref); ok || err == nil {
			t.Errorf("nobody answers: %v, %v", ok, err)
		}
	})
}

// To a comparison an unreadable record is a missing one, which it fetches.
func TestComparisonHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1, replicationtest.Faults{})
		c.up(2, func(o *Options) { o.SyncInterval = 10 * time.Second })
		defer c.down()
		a, b := c.nodes[0], c.nodes[1]
		ref := types.DataRef("k")
		a.store.Put("k", []byte("v"), false)
		time.Sleep(5 * time.Second)
		a.store.Corrupt(ref)
		c.net.Cut(a.addr, b.addr, true)
		b.store.Put("k", []byte("w"), false)
		time.Sleep(5 * time.Second)
		c.net.Cut(a.addr, b.addr, false)
		c.eventually("healed", time.Minute, func() bool {
			rec, err := a.store.Lookup(ref)
			return err == nil && string(rec.Value) == "w"
		})
		c.converge(time.Minute)
	})
}
