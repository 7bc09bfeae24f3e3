package membership

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"kvs/cluster/rpc"
	"kvs/types"
	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

// memoryRoster is a roster without a store: a card is the text of an identity.
type memoryRoster struct {
	self    Identity
	mu      sync.Mutex // guards all below
	entries map[types.NodeID]Identity
	removed map[types.NodeID]bool
}

func newRoster(self Identity) *memoryRoster {
	return &memoryRoster{self: self, entries: map[types.NodeID]Identity{}, removed: map[types.NodeID]bool{}}
}

func card(i Identity) []byte { return []byte(i.UUID.String() + i.NodeID + i.Address) }

func (r *memoryRoster) Entries() []Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Identity
	for id, e := range r.entries {
		if !r.removed[id] {
			out = append(out, e)
		}
	}
	return out
}

func (r *memoryRoster) Removed(id types.NodeID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed[id]
}

func (r *memoryRoster) remove(id types.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed[id] = true
}

func (r *memoryRoster) Card() []byte { return card(r.self) }

func (r *memoryRoster) Admit(_ context.Context, who Identity, c []byte) error {
	if string(c) != string(card(who)) {
		return errors.New("the card is another's")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries[who.UUID] = who
	return nil
}

// node is one process in a test.
type node struct {
	*Membership
	roster *memoryRoster
	fatal  chan error
	stop   func() // as kill -9: nothing is said to anybody
	clock  *testClock
}

type testClock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *testClock) set(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = ahead
}

// config says how a test node differs from the usual.
type config struct {
	name   string // host in the fabric, and node_id unless given
	nodeID string
	uuid   types.NodeID // zero: by name
	addr   string       // zero: any port
	seeds  []string
	secret string
	roster *memoryRoster // kept from an earlier run
	ahead  time.Duration // of the wall clock
}

func idOf(name string) types.NodeID {
	return types.NodeID(uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)))
}

// testLog is silent unless KVS_TEST_LOG is set.
func testLog(name string) *slog.Logger {
	var out io.Writer = io.Discard
	if os.Getenv("KVS_TEST_LOG") != "" {
		out = os.Stderr
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", name)
}

// run starts a node as a process would: a server with the handlers behind the
// check of the token, and Run. It is stopped at the end of the test, if not
// before.
func run(t *testing.T, network oneport.Network, c config) *node {
	t.Helper()
	if c.nodeID == "" {
		c.nodeID = c.name
	}
	if c.uuid.IsZero() {
		c.uuid = idOf(c.name)
	}
	if c.addr == "" {
		c.addr = "127.0.0.1:0"
	}
	if c.secret == "" {
		c.secret = "a secret"
	}
	ln, packets, err := network.Listen(c.addr)
	if err != nil {
		t.Fatal(err)
	}
	self := Identity{UUID: c.uuid, NodeID: c.nodeID, Joined: 1, Address: ln.Addr().String()}
	n := &node{fatal: make(chan error, 1), clock: &testClock{ahead: c.ahead}, roster: c.roster}
	if n.roster == nil {
		n.roster = newRoster(self)
	}
	n.roster.self = self
	authorize := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+c.secret) }
	client := rpc.New(rpc.Options{Dial: network.DialContext, Authorize: authorize})
	key := sha256.Sum256([]byte(c.secret))
	m, err := New(Options{
		Identity: self, Seeds: c.seeds,
		Packets: packets, Dial: network.DialContext, Authorize: authorize, Caller: client,
		GossipKeys: [][]byte{key[:]},
		Roster:     n.roster,
		Fatal:      func(err error) { n.fatal <- err },
		Now:        n.clock.now,
		Log:        testLog(c.name),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Membership = m

	mux := http.NewServeMux()
	for path, h := range m.Handlers() {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+c.secret {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	srv := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(ln) })
	wg.Go(func() {
		m.Run(ctx)
		srv.Close() // a process that ends answers nothing
	})
	n.stop = sync.OnceFunc(func() {
		packets.Close()
		srv.Close()
		cancel()
		wg.Wait()
		client.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// addr is where a node that is not started yet will listen.
func addr(i int) string {
	return net.JoinHostPort("127.0.0.1", []string{"9000", "9001", "9002", "9003", "9004"}[i])
}

// view is what a node sees, as name=state, self left out.
func view(n *node) string {
	var out []string
	for _, m := range n.Members() {
		if !m.Self {
			out = append(out, m.NodeID+"="+string(m.State))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// eventually polls until ok holds.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func sees(t *testing.T, within time.Duration, n *node, want string) {
	t.Helper()
	var got string
	deadline := time.Now().Add(within)
	for {
		if got = view(n); got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s sees %q after %v, want %q", n.opts.NodeID, got, within, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// trio starts three nodes that know the first, and waits until all see all.
func trio(t *testing.T, fabric *faultnet.Fabric) (a, b, c *node) {
	t.Helper()
	a = run(t, fabric.Host("a"), config{name: "a", addr: addr(0)})
	b = run(t, fabric.Host("b"), config{name: "b", addr: addr(1), seeds: []string{addr(0)}})
	c = run(t, fabric.Host("c"), config{name: "c", addr: addr(2), seeds: []string{addr(0), addr(1)}})
	allSee(t, 2*time.Second, a, b, c)
	return a, b, c
}

// allSee waits until each of the nodes sees exactly the others, alive.
func allSee(t *testing.T, within time.Duration, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		var want []string
		for _, other := range nodes {
			if other != n {
				want = append(want, other.opts.NodeID+"=alive")
			}
		}
		slices.Sort(want)
		sees(t, within, n, strings.Join(want, " "))
	}
}

func unharmed(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		select {
		case err := <-n.fatal:
			t.Errorf("%s ended: %v", n.opts.NodeID, err)
		default:
		}
	}
}

func mustEnd(t *testing.T, n *node, within time.Duration, words ...string) {
	t.Helper()
	select {
	case err := <-n.fatal:
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s ended with %q, which does not say %q", n.opts.NodeID, err, w)
			}
		}
	case <-time.After(within):
		t.Fatalf("%s goes on after %v", n.opts.NodeID, within)
	}
}
