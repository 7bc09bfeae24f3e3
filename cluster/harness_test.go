package cluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvs/auth"
	"kvs/cluster"
	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

const firstSeed = 20240611

var seeds = flag.Int("seeds", 1, "how many seeds the chaos test runs through")

// simulated runs fn with simulated time over an in-memory network, on stores on
// disk.
func simulated(t *testing.T, fn func(t *testing.T, fabric *faultnet.Fabric)) {
	simulatedSeed(t, firstSeed, fn)
}

func simulatedSeed(t *testing.T, seed uint64, fn func(t *testing.T, fabric *faultnet.Fabric)) {
	synctest.Test(t, func(t *testing.T) {
		t.Logf("seed %d", seed)
		// Runs last: memberlist does not wait for a probe that is under way, and
		// a bubble's time ends with its main goroutine.
		t.Cleanup(func() { time.Sleep(time.Minute) })
		fn(t, faultnet.New(seed, faultnet.Memory()))
	})
}

// node is one process in a test.
type node struct {
	*cluster.Cluster
	store *storage.Store
	name  string
	dir   string
	addr  string
	fatal chan error
	kill  func() // says nothing to anybody; the store is closed
}

type config struct {
	name     string
	dir      string // of an earlier run
	port     int
	seeds    []int // ports
	readOnly bool
	ahead    time.Duration // of the clock
	keepRing int           // bytes; 0: the default
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func testLog(name string) *slog.Logger {
	var out io.Writer = io.Discard
	if os.Getenv("KVS_TEST_LOG") != "" {
		out = os.Stderr
	}
	return slog.New(slog.NewTextHandler(out, nil)).With("on", name)
}

func start(t *testing.T, network oneport.Network, c config) *node {
	t.Helper()
	n := &node{name: c.name, dir: c.dir, addr: address(c.port), fatal: make(chan error, 1)}
	if n.dir == "" {
		n.dir = t.TempDir()
	}
	log := testLog(c.name)
	wall := func() time.Time { return time.Now().Add(c.ahead) }
	var err error
	n.store, err = storage.Open(storage.Options{
		Dir: n.dir, Wall: wall, ScrubEvery: -1, MemoryBudget: 64 << 20, RingBytes: c.keepRing, RevisionLimit: 10, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, packets, err := network.Listen(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	id := n.store.Identity()
	keys := auth.DeriveKeys(auth.Secrets{Current: auth.Secret(strings.Repeat("s", 32))})
	tokens := auth.NewNodeTokens(auth.NodeTokensOptions{Keys: keys, Node: id.UUID, Now: wall})
	var seeds []string
	for _, port := range c.seeds {
		seeds = append(seeds, address(port))
	}
	n.Cluster, err = cluster.New(cluster.Options{
		UUID: id.UUID, NodeID: c.name, Joined: id.Joined, Address: n.addr, Seeds: seeds, ReadOnly: c.readOnly,
		Packets: packets, Dial: network.DialContext,
		GossipKey: keys.Gossip, Authorize: tokens.Authorize, Authenticate: tokens.Caller,
		Store: n.store, Put: putter(n.store),
		Fatal: func(err error) { n.fatal <- err },
		Log:   log,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: n.Handler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(ln) })
	wg.Go(func() {
		n.Run(ctx)
		srv.Close() // a process that ends answers nothing
	})
	n.kill = sync.OnceFunc(func() {
		packets.Close()
		srv.Close()
		cancel()
		wg.Wait()
		if err := n.store.Close(); err != nil {
			t.Errorf("close the store of %s: %v", n.name, err)
		}
	})
	t.Cleanup(n.kill)
	return n
}

// putter writes as a server would for the cluster.
func putter(s *storage.Store) func(context.Context, types.Ref, []byte) error {
	return func(ctx context.Context, ref types.Ref, value []byte) error {
		res, err := s.Write(ctx, []storage.Op{{Kind: storage.OpPut, Ref: ref, Value: value}}, false)
		if err != nil {
			return err
		}
		return res[0].Err
	}
}

// trio starts three nodes that know the first.
func trio(t *testing.T, fabric *faultnet.Fabric) (a, b, c *node) {
	t.Helper()
	a = start(t, fabric.Host("a"), config{name: "a", port: 9001})
	b = start(t, fabric.Host("b"), config{name: "b", port: 9002, seeds: []int{9001}})
	c = start(t, fabric.Host("c"), config{name: "c", port: 9003, seeds: []int{9001, 9002}})
	sees(t, 2*time.Second, 3, 3, a, b, c)
	return a, b, c
}

// until polls until ok holds.
func until(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sees waits until each node counts so many live members and such a roster.
func sees(t *testing.T, within time.Duration, live, roster int, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		until(t, within, fmt.Sprintf("%s sees %d of %d, has %d of %d", n.name, live, roster, n.LiveCount(), n.RosterCount()),
			func() bool { return n.LiveCount() == live && n.RosterCount() == roster })
	}
}

// converge waits until all nodes have one root.
func converge(t *testing.T, within time.Duration, nodes ...*node) {
	t.Helper()
	until(t, within, "equal roots", func() bool {
		first, count := nodes[0].store.Tree().Root()
		for _, n := range nodes[1:] {
			if root, m := n.store.Tree().Root(); root != first || m != count {
				return false
			}
		}
		return true
	})
}

func (n *node) put(t *testing.T, key, value string) storage.Result {
	t.Helper()
	return storagetest.One(t, n.store, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(key)), Value: []byte(value)})
}

// get gives the value, and "" for an absent key.
func (n *node) get(t *testing.T, key string) string {
	t.Helper()
	rec, err := n.store.Get(types.DataRef(types.Key(key)))
	if err != nil && !errors.Is(err, types.ErrNotFound) {
		t.Fatal(err)
	}
	return string(rec.Value)
}

func mustEnd(t *testing.T, n *node, within time.Duration, words ...string) {
	t.Helper()
	select {
	case err := <-n.fatal:
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s ended with %q, which does not say %q", n.name, err, w)
			}
		}
	case <-time.After(within):
		t.Fatalf("%s goes on after %v", n.name, within)
	}
}

func unharmed(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		select {
		case err := <-n.fatal:
			t.Errorf("%s ended: %v", n.name, err)
		default:
		}
	}
}
