// Package membership knows which nodes there are, which of them live, and where.
//
// It is memberlist (SWIM: Das, Gupta, Motivala 2002; with Lifeguard's
// suspicion) and, on top of it:
//
//   - one port: packets use the node's UDP port, streams arrive at its HTTP port
//     by an upgrade of GET /sync/gossip;
//   - hello (POST /sync/hello), by which two nodes introduce themselves before
//     any gossip: each makes the other durable on its roster first, and two
//     processes with one identity are told apart;
//   - the rejoin loop, which tries every node of the roster and every seed that
//     is not alive, for ever: memberlist alone never heals a split;
//   - clock offsets, measured on the pings.
//
// memberlist knows nodes by name, and the name is the UUID. The addresses that
// it carries are not used: they are all zero, and the address of a node is in
// its gossip meta, from where the transport takes it. So a node that restarts on
// another port is no conflict to memberlist, an address may be a host name, and
// what it stands for is looked up when it is used.
//
// Invariants: nobody is shown as a member, or gossiped to by our own doing,
// before it is on this node's roster; a removed node is not let in; no callback
// of memberlist blocks.
package membership

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"kvs/types"
)

// Protocol is the version that nodes speak to each other. It rises when nodes of
// the old and the new version can no longer work together.
const Protocol = 1

// Identity is who a node is and where it is found.
type Identity struct {
	UUID    types.NodeID
	NodeID  string // the name that people gave it
	Joined  int64  // when it first joined, Unix ms
	Address string // advertised, host:port
}

// State is what this node believes of another.
type State string

// The states.
const (
	StateAlive  State = "alive"
	StateFailed State = "failed" // it does not answer, or has not been reached yet
	StateLeft   State = "left"   // it said that it goes
)

// Member is a node on the roster.
type Member struct {
	Identity
	State       State
	Mode        types.Mode
	HasData     bool // as it said when it was last greeted
	LastSeen    time.Time
	ClockOffset time.Duration // its clock minus ours
	OffsetKnown bool
	Self        bool
}

// Roster is every node that ever joined and was not removed, as this node's
// store has it. Entries, Removed and Card answer from memory: they are called
// where nothing may block.
type Roster interface {
	Entries() []Identity // this node's own may be among them
	Removed(types.NodeID) bool
	// Card is this node's own entry in the form in which it is handed to others.
	Card() []byte
	// Admit checks a node's card and makes it durable.
	Admit(ctx context.Context, who Identity, card []byte) error
}

// Caller posts body to path on the node at addr and gives the answer's body.
// *rpc.Client is one.
type Caller interface {
	Call(ctx context.Context, addr, path string, body []byte) ([]byte, error)
}

// Options are what New needs. Zero values mean the defaults given here.
type Options struct {
	Identity
	Seeds []string   // host:port; names are looked up at each attempt
	Mode  types.Mode // default normal

	Packets   net.PacketConn // the node's UDP port; the caller closes it after Run
	Dial      func(ctx context.Context, addr string) (net.Conn, error)
	Authorize func(*http.Request) // puts the node token on a request
	Caller    Caller
	// GossipKeys encrypt the gossip, 32 bytes each: the first encrypts, all
	// decrypt.
	GossipKeys [][]byte

	// IntervalMin and IntervalMax bound the random pause between attempts on a
	// node that has long been away; defaults 60 s and 120 s.
	IntervalMin, IntervalMax time.Duration

	Roster  Roster
	HasData func() bool // nil: never
	// Fatal is called once, from Run, when this process must end: another one
	// has its identity, or it was removed from the cluster. Run returns then.
	Fatal func(error)
	Now   func() time.Time // the wall clock; nil: time.Now
	Log   *slog.Logger     // nil: slog.Default()
}

// Membership is one node's part. Its methods are safe for concurrent use.
type Membership struct {
	opts     Options
	log      *slog.Logger
	instance uint64 // of this process: tells it from another with a copied identity
	begun    time.Time
	started  int64 // begun by the wall clock, Unix ms

	transport *transport
	greet     *answers
	kicked    chan struct{} // capacity 1: wakes the rejoin loop
	tried     chan struct{} // closed once the seeds were tried, see SeedsTried
	fatal     chan error    // capacity 1: ends Run

	mu      sync.Mutex // guards all below; never held while calling memberlist
	list    *memberlist.Memberlist
	mode    types.Mode
	leaving bool
	peers   map[types.NodeID]*peer
	offsets map[types.NodeID]offset
	seeds   map[string][]types.NodeID // who answered at a seed
	checks  map[string]*check         // by address
	changed chan struct{}
}

// peer is what is known of another node beside the roster.
type peer struct {
	meta
	state    State
	gossiped uint64 // the instance that gossip shows; meta is by the last hello or gossip
	hasData  bool
	seen     time.Time
	greeted  time.Time // the last hello, by the monotonic clock
}

// New checks the options and prepares; Run does the rest.
func New(o Options) (*Membership, error) {
	if o.IntervalMin == 0 && o.IntervalMax == 0 {
		o.IntervalMin, o.IntervalMax = 60*time.Second, 120*time.Second
	}
	switch {
	case o.UUID.IsZero():
		return nil, errors.New("membership: no UUID")
	case o.NodeID == "" || len(o.NodeID) > maxNodeID:
		return nil, fmt.Errorf("membership: node_id %q: it must have 1 to %d bytes", o.NodeID, maxNodeID)
	case o.Address == "" || len(o.Address) > maxAddress:
		return nil, fmt.Errorf("membership: address %q: it must have 1 to %d bytes", o.Address, maxAddress)
	case o.IntervalMin <= 0 || o.IntervalMax < o.IntervalMin:
		return nil, fmt.Errorf("membership: gossip interval %v to %v: the smaller must be above 0 and come first", o.IntervalMin, o.IntervalMax)
	case len(o.GossipKeys) == 0:
		return nil, errors.New("membership: no gossip key")
	}
	if o.Mode == "" {
		o.Mode = types.ModeNormal
	}
	if o.HasData == nil {
		o.HasData = func() bool { return false }
	}
	if o.Fatal == nil {
		o.Fatal = func(error) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	var instance [8]byte
	rand.Read(instance[:])
	m := &Membership{
		opts:     o,
		log:      o.Log,
		instance: binary.BigEndian.Uint64(instance[:]),
		begun:    time.Now(),
		started:  o.Now().UnixMilli(),
		greet:    newAnswers(o.GossipKeys),
		kicked:   make(chan struct{}, 1),
		tried:    make(chan struct{}),
		fatal:    make(chan error, 1),
		mode:     o.Mode,
		peers:    map[types.NodeID]*peer{},
		offsets:  map[types.NodeID]offset{},
		seeds:    map[string][]types.NodeID{},
		checks:   map[string]*check{},
		changed:  make(chan struct{}),
	}
	m.transport = newTransport(o, m.addressOf)
	return m, nil
}

// Run gossips and rejoins until ctx ends or this process must end; then it has
// called Fatal and gives that error.
func (m *Membership) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conf, err := m.config()
	if err != nil {
		return err
	}
	m.transport.start()
	list, err := memberlist.Create(conf)
	if err != nil {
		m.transport.Shutdown()
		return fmt.Errorf("membership: %w", err)
	}
	m.mu.Lock()
	m.list = list
	m.mu.Unlock()

	var rejoining sync.WaitGroup
	rejoining.Go(func() { m.rejoin(ctx) })
	select {
	case <-ctx.Done():
		err = nil
	case err = <-m.fatal:
	}
	cancel()
	m.transport.Shutdown() // ends what the attempts wait for
	rejoining.Wait()
	list.Shutdown()
	if err != nil {
		m.opts.Fatal(err)
	}
	return err
}

// config is memberlist's configuration. A dead node of a small cluster is
// suspected after at most two or three probes of 1 s, and declared failed
// SuspicionMult probe intervals later.
func (m *Membership) config() (*memberlist.Config, error) {
	ring, err := memberlist.NewKeyring(m.opts.GossipKeys, m.opts.GossipKeys[0])
	if err != nil {
		return nil, fmt.Errorf("membership: gossip key: %w", err)
	}
	d := delegate{m}
	c := memberlist.DefaultLANConfig()
	c.Name = m.opts.UUID.String()
	c.Transport = m.transport
	c.BindPort, c.AdvertisePort = 0, 0
	c.Keyring = ring
	c.EnableCompression = false
	c.TCPTimeout = helloTimeout
	c.SuspicionMult = 4
	c.SuspicionMaxTimeoutMult = 2
	c.DelegateProtocolVersion, c.DelegateProtocolMin, c.DelegateProtocolMax = Protocol, Protocol, Protocol
	c.Delegate, c.Events, c.Alive, c.Ping = d, d, d, d
	c.Logger = gossipLogger(m.log)
	return c, nil
}

// Leave tells the others that this node goes. It stays on the roster; Run goes
// on answering until its context ends. timeout bounds the wait for the message
// to go out.
func (m *Membership) Leave(timeout time.Duration) error {
	m.mu.Lock()
	list, again := m.list, m.leaving
	m.leaving = true
	m.mu.Unlock()
	if list == nil || again {
		return nil
	}
	// memberlist does not tell its users who left from who failed, so the meta
	// says it first.
	first := list.UpdateNode(timeout / 2)
	return errors.Join(first, list.Leave(timeout/2))
}

// SetMode tells the others this node's mode.
func (m *Membership) SetMode(mode types.Mode) {
	m.mu.Lock()
	same := m.mode == mode
	m.mode = mode
	list := m.list
	m.mu.Unlock()
	if same {
		return
	}
	m.notify()
	if list != nil {
		// The error would say that the message has not gone out yet; it is
		// queued all the same.
		_ = list.UpdateNode(time.Millisecond)
	}
}

// Changed gives a channel that is closed when a member appears, is lost, or
// changes its mode or address, or the roster grows.
func (m *Membership) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// SeedsTried gives a channel that is closed once a seed was joined or all of them
// were tried in vain; at once where there are none.
func (m *Membership) SeedsTried() <-chan struct{} { return m.tried }

// Members lists the roster, this node included, by node_id.
func (m *Membership) Members() []Member {
	entries := m.opts.Roster.Entries()
	now := m.opts.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []Member{{
		Identity: m.opts.Identity, State: StateAlive, Mode: m.mode, LastSeen: now,
		OffsetKnown: true, Self: true,
	}}
	for _, e := range entries {
		if e.UUID == m.opts.UUID {
			continue
		}
		member := Member{Identity: e, State: StateFailed, Mode: types.ModeNormal}
		if p := m.peers[e.UUID]; p != nil {
			member.Identity = p.Identity
			member.State, member.Mode, member.HasData, member.LastSeen = p.state, p.mode, p.hasData, p.seen
		}
		if o, ok := m.offsets[e.UUID]; ok && o.fresh() {
			member.ClockOffset, member.OffsetKnown = o.value, true
		}
		out = append(out, member)
	}
	slices.SortFunc(out, func(a, b Member) int {
		if c := strings.Compare(a.NodeID, b.NodeID); c != 0 {
			return c
		}
		return strings.Compare(a.UUID.String(), b.UUID.String())
	})
	return out
}

// RosterChanged is to be called when the roster changed other than by Admit: the
// new nodes are then tried at once.
func (m *Membership) RosterChanged() {
	m.kick()
	m.notify()
}

// Handlers are to be served at their paths, behind the check of the node token.
func (m *Membership) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		gossipPath: http.HandlerFunc(m.transport.serve),
		helloPath:  http.HandlerFunc(m.serveHello),
	}
}

// end makes Run call Fatal with err, unless it already does.
func (m *Membership) end(err error) {
	select {
	case m.fatal <- err:
	default:
	}
}

func (m *Membership) notify() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notifyLocked()
}

func (m *Membership) notifyLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// kick makes the rejoin loop look again who is missing.
func (m *Membership) kick() {
	select {
	case m.kicked <- struct{}{}:
	default:
	}
}

// addressOf is where the transport finds the node of that name.
func (m *Membership) addressOf(name string) (string, bool) {
	id, err := types.ParseNodeID(name)
	if err != nil {
		return "", false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	if p == nil {
		return "", false
	}
	return p.Address, true
}
