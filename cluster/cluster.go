// Package cluster makes one store a node among others. It composes membership
// (who is there), replication (what they have to tell each other) and the
// roster, the record of every node that ever joined and was not removed.
//
// Invariants:
//   - A node is on the roster, durably, before it is sent a byte of data: what is
//     kept back for it starts there.
//   - A removed node exchanges nothing: what it holds may be what the others
//     have forgotten.
//   - Every call under /sync/ is refused without a node token.
//
// It does not decide what a request may do, and serves nothing to clients.
package cluster

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"kvs/cluster/membership"
	"kvs/cluster/replication"
	"kvs/cluster/rpc"
	"kvs/types"
)

// Store is what a node of a cluster needs of its storage engine.
type Store = replication.Store

// Options of a Cluster. Zero values mean the defaults of the configuration.
type Options struct {
	UUID   types.NodeID
	NodeID string
	Joined int64 // Unix ms

	Address  string   // advertised, host:port
	Seeds    []string // host:port
	ReadOnly bool

	Packets net.PacketConn // the node's UDP port
	Dial    func(ctx context.Context, addr string) (net.Conn, error)

	GossipKey          []byte // 32 bytes
	PreviousGossipKeys [][]byte
	Authorize          func(*http.Request)                       // puts the node token on a request
	Authenticate       func(*http.Request) (types.NodeID, error) // checks it, on everything that Handler serves, and says whose it is

	Calls map[string]Call // further calls between nodes, by name; see Ask

	GossipMin, GossipMax          time.Duration
	SyncInterval, CatchupInterval time.Duration
	BootstrapMaxAge               time.Duration
	ThrottleDelay, FetchDelay     time.Duration // 0: none
	MaxClockSkew                  time.Duration // 0: 5 s

	Store Store
	// Put writes one record of this node's own and returns when it is durable.
	Put func(ctx context.Context, ref types.Ref, value []byte) error
	// Fatal is called once when this process must end: another one has its
	// identity, or it was removed from the cluster. Run returns then.
	Fatal func(error)
	Log   *slog.Logger // nil: slog.Default()
}

// Cluster is one node's part in its cluster. Its methods are safe for
// concurrent use.
type Cluster struct {
	opts    Options
	log     *slog.Logger
	client  *rpc.Client
	roster  *roster
	members *membership.Membership
	repl    *replication.Replicator
	handler http.Handler
	// departing is set while this node takes itself off the roster.
	departing atomic.Bool

	mu      sync.Mutex // guards what follows
	syncing bool
}

// New reads the roster and prepares; Run does the rest.
func New(o Options) (*Cluster, error) {
	if o.Store == nil || o.Put == nil || o.Authenticate == nil || o.UUID.IsZero() {
		return nil, errors.New("cluster: UUID, Store, Put and Authenticate are required")
	}
	if o.MaxClockSkew == 0 {
		o.MaxClockSkew = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	fatal, once := o.Fatal, sync.Once{}
	o.Fatal = func(err error) {
		if fatal != nil {
			once.Do(func() { fatal(err) })
		}
	}
	self := membership.Identity{UUID: o.UUID, NodeID: o.NodeID, Joined: o.Joined, Address: o.Address}
	c := &Cluster{opts: o, log: o.Log}
	c.client = rpc.New(rpc.Options{Dial: o.Dial, Authorize: o.Authorize})
	c.roster = newRoster(self, o.Store, o.Put)
	if _, err := c.roster.load(context.Background()); err != nil {
		return nil, err
	}
	var err error
	c.members, err = membership.New(membership.Options{
		Identity: self, Seeds: o.Seeds, Mode: c.Mode(),
		Packets: o.Packets, Dial: o.Dial, Authorize: o.Authorize, Caller: c.client,
		GossipKeys:  append([][]byte{o.GossipKey}, o.PreviousGossipKeys...),
		IntervalMin: o.GossipMin, IntervalMax: o.GossipMax,
		Roster: c.roster, HasData: c.hasData,
		Fatal: o.Fatal, Now: o.Store.Now, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	var joining <-chan struct{}
	if len(o.Seeds) > 0 {
		joining = c.members.SeedsTried()
	}
	c.repl, err = replication.New(replication.Options{
		Self: o.UUID, Store: o.Store, Caller: c.client,
		Peers: c.peers, PeersChanged: c.members.Changed,
		Joining: joining, SetSyncing: c.setSyncing, Admit: c.admit,
		SyncInterval: o.SyncInterval, CatchupInterval: o.CatchupInterval,
		ThrottleDelay: o.ThrottleDelay, FetchDelay: o.FetchDelay,
		BootstrapMaxAge: o.BootstrapMaxAge, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	c.handler = c.routes()
	return c, nil
}

// Run takes part in the cluster until ctx ends, or until this process must end:
// then Fatal was called, and Run gives that error.
func (c *Cluster) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.client.Close()
	if err := c.enter(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		c.opts.Fatal(err)
		return err
	}
	errs := make(chan error, 3)
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{c.members.Run, c.repl.Run, c.followRoster} {
		wg.Go(func() {
			errs <- run(ctx)
			cancel() // none goes on without the others
		})
	}
	wg.Wait()
	return errors.Join(<-errs, <-errs, <-errs)
}

// enter makes this node's own roster entry true and durable; nobody is spoken
// to before that. A full disk may clear up, so it is tried until it is done.
func (c *Cluster) enter(ctx context.Context) error {
	for said := false; ; said = true {
		err := c.roster.enter(ctx)
		if err == nil || errors.Is(err, membership.ErrRemoved) || ctx.Err() != nil {
			return err
		}
		if !said {
			c.log.Error("this node's entry of the roster cannot be written; it joins nobody before that is done", "error", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// Leave pushes what the live peers have not got, as far as ctx allows, and says
// goodbye. The node stays on the roster. Call it before Run's context ends. The
// error names the peers that lack something: they get it when this node is back.
func (c *Cluster) Leave(ctx context.Context) error {
	flush, cancel := before(ctx, goodbye)
	defer cancel()
	err := c.repl.Flush(flush)
	c.sayGoodbye()
	return err
}

// sayGoodbye is a courtesy: without it the others find out by themselves.
func (c *Cluster) sayGoodbye() {
	if err := c.members.Leave(goodbye); err != nil {
		c.log.Info("not every peer may know that this node has left", "error", err)
	}
}

// goodbye is the time for the gossip to spread that this node leaves.
const goodbye = 2 * time.Second

// before gives ctx with the deadline moved ahead by d.
func before(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, end.Add(-d))
	}
	return context.WithCancel(ctx)
}

// Depart takes this node off the roster for good and says goodbye; the caller
// then stops the node. What was not pushed before ctx ended remains on this
// node only, and is an error: the node then stays.
func (c *Cluster) Depart(ctx context.Context) error {
	if err := c.repl.Flush(ctx); err != nil {
		return fmt.Errorf("the node stays, since the others lack data of it: %w", err)
	}
	c.departing.Store(true)
	if err := c.roster.remove(ctx, c.roster.self); err != nil {
		c.departing.Store(false)
		return err
	}
	// The mark makes its way by comparisons too, should this fail: a peer that
	// has it from another one takes nothing more from this node.
	flush, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if err := c.repl.Flush(flush); err != nil {
		c.log.Info("not every peer has acknowledged that this node is removed", "error", err)
	}
	c.sayGoodbye()
	return nil
}

// Remove takes another node off the roster for good, by node_id or uuid. The
// error is types.ErrNotFound if there is none.
func (c *Cluster) Remove(ctx context.Context, id string) error {
	m, err := c.find(id)
	if err != nil {
		return err
	}
	if err := c.roster.remove(ctx, m.Identity); err != nil {
		return err
	}
	c.log.Info("a node was removed from the cluster", "node", m.NodeID, "uuid", m.UUID, "address", m.Address)
	c.members.RosterChanged()
	if m.State == membership.StateAlive {
		if err := c.members.Expel(ctx, m.Address); err != nil {
			c.log.Info("the removed node could not be told; it ends when it next asks to join", "node", m.NodeID, "error", err)
		}
	}
	return nil
}

// find gives the other member with this uuid or node_id. Of several with one
// node_id, one that lives again under a new uuid is not what is meant.
func (c *Cluster) find(id string) (membership.Member, error) {
	uuid, _ := types.ParseNodeID(id)
	var named []membership.Member
	for _, m := range c.members.Members() {
		switch {
		case m.Self:
		case m.UUID == uuid:
			return m, nil
		case m.NodeID == id:
			named = append(named, m)
		}
	}
	if len(named) > 1 {
		var gone []membership.Member
		for _, m := range named {
			if m.State != membership.StateAlive {
				gone = append(gone, m)
			}
		}
		named = gone
	}
	switch len(named) {
	case 0:
		return membership.Member{}, fmt.Errorf("member %q: %w", id, types.ErrNotFound)
	case 1:
		return named[0], nil
	}
	return membership.Member{}, fmt.Errorf("%w: %d members have the node_id %q: give the uuid", types.ErrPrecond, len(named), id)
}

// Join introduces this node to the one at addr, which the roster then keeps.
func (c *Cluster) Join(ctx context.Context, addr string) error { return c.members.Join(ctx, addr) }

// Await waits until n peers have durably answered a push that held rec,
// committed in seq, or a descendant. It gives how many have; the error is the
// context's.
func (c *Cluster) Await(ctx context.Context, rec types.Record, seq uint64, n int) (int, error) {
	return c.repl.Await(ctx, rec, seq, n)
}

// Heal fetches the best copy of ref from the live peers and repairs the store
// with it; false where no peer has one.
func (c *Cluster) Heal(ctx context.Context, ref types.Ref) (bool, error) {
	_, ok, err := c.repl.Heal(ctx, ref)
	return ok, err
}

// Mode gives this node's mode: being filled goes before being read-only.
func (c *Cluster) Mode() types.Mode {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.syncing:
		return types.ModeSyncing
	case c.opts.ReadOnly:
		return types.ModeReadOnly
	}
	return types.ModeNormal
}

func (c *Cluster) setSyncing(on bool) {
	c.mu.Lock()
	c.syncing = on
	c.mu.Unlock()
	c.members.SetMode(c.Mode())
}

// Skewed reports whether this node's clock is ahead of the median of its peers'
// by more than is allowed, and by how much it is.
func (c *Cluster) Skewed() (ahead time.Duration, skewed bool) {
	ahead, known := c.members.Skew()
	return ahead, known && ahead > c.opts.MaxClockSkew
}

// peers is the roster without this node, for replication.
func (c *Cluster) peers() []replication.Peer {
	var out []replication.Peer
	for _, m := range c.members.Members() {
		if !m.Self {
			out = append(out, replication.Peer{
				UUID: m.UUID, NodeID: m.NodeID, Address: m.Address,
				Alive: m.State == membership.StateAlive, Mode: m.Mode,
			})
		}
	}
	return out
}

func (c *Cluster) hasData() bool {
	has, err := c.repl.HasData()
	if err != nil {
		c.log.Error("looking for data", "error", err)
	}
	return has
}

// admit judges who calls for replication.
func (c *Cluster) admit(id types.NodeID) error {
	if c.roster.Removed(id) {
		return membership.ErrRemoved
	}
	return nil
}

func ownRoot(s Store) string {
	digest, _ := s.Tree().Root()
	return hex.EncodeToString(digest[:])
}
