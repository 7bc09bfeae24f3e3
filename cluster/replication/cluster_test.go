package replication

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvs/cluster/replication/replicationtest"
	"kvs/types"
)

// roster is the membership of a test, the same for all of its nodes.
type roster struct {
	mu      sync.Mutex // guards what follows
	peers   []Peer
	changed chan struct{}
}

func (ro *roster) set(change func(peers []Peer) []Peer) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.peers = change(append([]Peer(nil), ro.peers...))
	close(ro.changed)
	ro.changed = make(chan struct{})
}

func (ro *roster) setAlive(id types.NodeID, alive bool) {
	ro.set(func(peers []Peer) []Peer {
		for i := range peers {
			if peers[i].UUID == id {
				peers[i].Alive = alive
			}
		}
		return peers
	})
}

func (ro *roster) setMode(id types.NodeID, mode types.Mode) {
	ro.set(func(peers []Peer) []Peer {
		for i := range peers {
			if peers[i].UUID == id {
				peers[i].Mode = mode
			}
		}
		return peers
	})
}

func (ro *roster) without(self types.NodeID) func() []Peer {
	return func() []Peer {
		ro.mu.Lock()
		defer ro.mu.Unlock()
		var out []Peer
		for _, p := range ro.peers {
			if p.UUID != self {
				out = append(out, p)
			}
		}
		return out
	}
}

func (ro *roster) change() <-chan struct{} {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	return ro.changed
}

// testNode is a node under test.
type testNode struct {
	*Replicator
	id    types.NodeID
	addr  string
	store *replicationtest.Store
	stop  func()

	mu    sync.Mutex
	modes []bool // what SetSyncing was told; guarded by mu
}

func (n *testNode) told() []bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.modes)
}

// testCluster is a cluster within a synctest bubble.
type testCluster struct {
	t     *testing.T
	net   *replicationtest.Network
	ro    *roster
	nodes []*testNode
	logs  *logBook
}

func newTestCluster(t *testing.T, seed uint64, f replicationtest.Faults) *testCluster {
	return &testCluster{
		t: t, net: replicationtest.NewNetwork(seed, f),
		ro: &roster{changed: make(chan struct{})}, logs: &logBook{},
	}
}

func nodeID(i int) types.NodeID { return types.NodeID{0: byte(i + 1), 15: byte(i + 1)} }

// add makes a node with a store and joins it to the roster; it does not run yet.
func (c *testCluster) add() *testNode {
	i := len(c.nodes)
	n := &testNode{id: nodeID(i), addr: fmt.Sprintf("10.0.0.%d:80", i+1)}
	n.store = replicationtest.NewStore(n.id, int64(i+1))
	c.nodes = append(c.nodes, n)
	return n
}

func (c *testCluster) join(n *testNode) {
	c.ro.set(func(peers []Peer) []Peer {
		return append(peers, Peer{UUID: n.id, NodeID: "node" + n.addr[7:8], Address: n.addr, Alive: true, Mode: types.ModeNormal})
	})
}

// logBook keeps what all nodes logged.
type logBook struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a node with a new Replicator on its store.
func (c *testCluster) start(n *testNode, tune ...func(*Options)) {
	c.t.Helper()
	o := Options{
		Self: n.id, Store: n.store, Caller: c.net.Caller(n.addr),
		Peers: c.ro.without(n.id), PeersChanged: c.ro.change,
		SetSyncing: func(on bool) {
			n.mu.Lock()
			n.modes = append(n.modes, on)
			n.mu.Unlock()
			mode := types.ModeNormal
			if on {
				mode = types.ModeSyncing
			}
			c.ro.setMode(n.id, mode)
		},
		Log: slog.New(slog.NewTextHandler(c.logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, fn := range tune {
		fn(&o)
	}
	r, err := New(o)
	if err != nil {
		c.t.Fatal(err)
	}
	n.Replicator = r
	c.net.Serve(n.addr, r.Handlers())
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			c.t.Errorf("Run: %v", err)
		}
	}()
	n.stop = func() {
		cancel()
		<-done
		c.net.Serve(n.addr, nil)
		n.stop = func() {}
	}
}

// up adds, joins and starts n nodes, each with a record of its own, so that none
// of them is filled by another.
func (c *testCluster) up(n int, tune ...func(*Options)) {
	c.t.Helper()
	for range n {
		n := c.add()
		n.store.Put(types.Key("of/"+n.addr), nil, false)
		c.join(n)
	}
	for _, n := range c.nodes {
		c.start(n, tune...)
	}
	synctest.Wait()
}

func (c *testCluster) down() {
	for _, n := range c.nodes {
		if n.stop != nil {
			n.stop()
		}
	}
}

// equal reports whether all nodes hold the same.
func (c *testCluster) equal() bool {
	want, _ := c.nodes[0].store.Tree().Root()
	for _, n := range c.nodes[1:] {
		if root, _ := n.store.Tree().Root(); root != want {
			return false
		}
	}
	return true
}

// converge waits, in the bubble's time, until all nodes hold the same.
func (c *testCluster) converge(within time.Duration) time.Duration {
	c.t.Helper()
	start := time.Now()
	for {
		synctest.Wait()
		if c.equal() {
			return time.Since(start)
		}
		if time.Since(start) > within {
			for _, n := range c.nodes {
				root, count := n.store.Tree().Root()
				c.t.Logf("node %s: %d records, root %x", n.addr, count, root)
			}
			c.t.Fatalf("the nodes still differ after %v", within)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// eventually waits, in the bubble's time, for a condition.
func (c *testCluster) eventually(what string, within time.Duration, ok func() bool) {
	c.t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		if ok() {
			return
		}
		if time.Since(start) > within {
			c.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func key(i int) types.Key { return types.Key(fmt.Sprintf("key/%06d", i)) }
