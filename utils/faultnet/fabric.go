// Package faultnet is a network whose links can be cut, and whose packets can be
// lost, delayed and doubled, for tests and demonstrations of systems that must
// live with that. It wraps another network: the in-memory one of this package,
// which also works inside a testing/synctest bubble (made there), or real
// sockets, whose hosts it tells apart by the addresses they listen on.
//
// The random choices come from the seed alone. What it does not do: it reorders
// nothing within a stream, and has no bandwidth.
package faultnet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"kvs/utils/oneport"
)

// ErrCut is what a connection across a link gives once the link was cut.
var ErrCut = errors.New("faultnet: the link is cut")

// Faults is what befalls packets on their way. Probabilities are 0 to 1.
type Faults struct {
	Drop      float64
	Duplicate float64
	Delay     time.Duration // each packet waits a random time up to this: packets overtake each other
}

// Fabric connects hosts and holds the rules of the links between them.
type Fabric struct {
	base oneport.Network

	mu     sync.Mutex // guards all below
	rng    *rand.Rand
	owners map[string]string // listening address -> host
	cut    map[link]bool
	faults map[link]Faults
	every  Faults             // of links without faults of their own
	conns  map[*conn]struct{} // open connections, at the end that dialled
	healed chan struct{}      // closed and replaced whenever a link heals
}

// link is one direction between two hosts.
type link struct{ from, to string }

// New gives a fabric over base, Memory() or oneport.Real(), without faults.
func New(seed uint64, base oneport.Network) *Fabric {
	return &Fabric{
		base:   base,
		rng:    rand.New(rand.NewPCG(seed, 0)),
		owners: map[string]string{},
		cut:    map[link]bool{},
		faults: map[link]Faults{},
		conns:  map[*conn]struct{}{},
		healed: make(chan struct{}),
	}
}

// Host gives the network as the host of that name sees it.
func (f *Fabric) Host(name string) oneport.Network { return host{f, name} }

// Cut cuts the link between a and b in both directions.
func (f *Fabric) Cut(a, b string) { f.set(true, link{a, b}, link{b, a}) }

// CutOneWay loses what from sends to to. TCP needs both directions, so
// connections break whichever side opened them.
func (f *Fabric) CutOneWay(from, to string) { f.set(true, link{from, to}) }

// Heal undoes Cut and CutOneWay between a and b.
func (f *Fabric) Heal(a, b string) { f.set(false, link{a, b}, link{b, a}) }

// Partition cuts every link between the groups; links within a group heal.
func (f *Fabric) Partition(groups ...[]string) {
	for i, group := range groups {
		for _, a := range group {
			for _, b := range group {
				f.Heal(a, b)
			}
			for _, other := range groups[i+1:] {
				for _, b := range other {
					f.Cut(a, b)
				}
			}
		}
	}
}

// HealAll undoes every cut.
func (f *Fabric) HealAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.cut)
	f.signalHeal()
}

// SetFaults sets what befalls packets from one host to another.
func (f *Fabric) SetFaults(from, to string, faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[link{from, to}] = faults
}

// SetFaultsEverywhere sets what befalls packets on all links without faults of
// their own.
func (f *Fabric) SetFaultsEverywhere(faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.every = faults
}

func (f *Fabric) set(cut bool, links ...link) {
	f.mu.Lock()
	var broken []*conn
	for _, l := range links {
		if !cut {
			delete(f.cut, l)
			continue
		}
		f.cut[l] = true
		for c := range f.conns {
			if c.link == l || c.link == (link{l.to, l.from}) {
				delete(f.conns, c)
				broken = append(broken, c)
			}
		}
	}
	if !cut {
		f.signalHeal()
	}
	f.mu.Unlock()
	for _, c := range broken {
		c.snap()
	}
}

// signalHeal wakes the dials that wait. f.mu is held.
func (f *Fabric) signalHeal() {
	close(f.healed)
	f.healed = make(chan struct{})
}

// severed reports whether no connection can be had over l. f.mu is held.
func (f *Fabric) severed(l link) bool { return f.cut[l] || f.cut[link{l.to, l.from}] }

// owner gives the host that listens on addr, and "" for one outside the fabric.
// f.mu is held.
func (f *Fabric) owner(addr string) string {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	for _, candidate := range []string{canonical(h), "0.0.0.0"} {
		if name, ok := f.owners[net.JoinHostPort(candidate, port)]; ok {
			return name
		}
	}
	return ""
}

// canonical maps the spellings of one listening host onto one.
func canonical(host string) string {
	switch host {
	case "localhost", "::1":
		return "127.0.0.1"
	case "", "::":
		return "0.0.0.0"
	}
	return host
}

// canonicalAddr is canonical for a host:port; what is none stays as it is.
func canonicalAddr(addr string) string {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(canonical(h), port)
}

type host struct {
	fabric *Fabric
	name   string
}

func (h host) Listen(addr string) (net.Listener, net.PacketConn, error) {
	ln, packets, err := h.fabric.base.Listen(addr)
	if err != nil {
		return nil, nil, err
	}
	h.fabric.mu.Lock()
	h.fabric.owners[canonicalAddr(ln.Addr().String())] = h.name
	h.fabric.mu.Unlock()
	return ln, &packetConn{PacketConn: packets, host: h}, nil
}

// DialContext over a cut link waits until the link heals or ctx ends, as a SYN
// does that is sent again and again.
func (h host) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	f := h.fabric
	for {
		f.mu.Lock()
		l := link{h.name, f.owner(addr)}
		severed, healed := f.severed(l), f.healed
		f.mu.Unlock()
		if severed {
			select {
			case <-healed:
				continue
			case <-ctx.Done():
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
			}
		}
		inner, err := f.base.DialContext(ctx, addr)
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, fabric: f, link: l, cut: make(chan struct{})}
		f.mu.Lock()
		if severed = f.severed(l); !severed {
			f.conns[c] = struct{}{}
		}
		f.mu.Unlock()
		if !severed {
			return c, nil
		}
		c.snap() // cut while it was being made
	}
}

// conn is a connection at the end that dialled. Breaking that end breaks both.
type conn struct {
	net.Conn
	fabric *Fabric
	link   link
	once   sync.Once
	cut    chan struct{} // closed when the link was cut
}

func (c *conn) snap() {
	c.once.Do(func() { close(c.cut) })
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // reset: what is on the way is lost
	}
	c.Conn.Close()
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.explain("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.explain("write", err)
}

func (c *conn) explain(op string, err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-c.cut:
		return &net.OpError{Op: op, Net: "tcp", Addr: c.RemoteAddr(), Err: ErrCut}
	default:
		return err
	}
}

func (c *conn) Close() error {
	c.fabric.mu.Lock()
	delete(c.fabric.conns, c)
	c.fabric.mu.Unlock()
	return c.Conn.Close()
}

// packetConn applies the faults where packets are sent.
type packetConn struct {
	net.PacketConn
	host host
}

func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	f := p.host.fabric
	f.mu.Lock()
	l := link{p.host.name, f.owner(addr.String())}
	faults, own := f.faults[l]
	if !own {
		faults = f.every
	}
	lost := f.cut[l] || f.rng.Float64() < faults.Drop
	copies := 1
	if f.rng.Float64() < faults.Duplicate {
		copies = 2
	}
	var delays [2]time.Duration
	for i := range copies {
		if faults.Delay > 0 {
			delays[i] = time.Duration(f.rng.Int64N(int64(faults.Delay)))
		}
	}
	f.mu.Unlock()
	if lost {
		return len(b), nil // the sender of a packet never learns
	}
	for _, d := range delays[:copies] {
		if d == 0 {
			if _, err := p.PacketConn.WriteTo(b, addr); err != nil {
				return 0, err
			}
			continue
		}
		late := append([]byte(nil), b...)
		time.AfterFunc(d, func() { p.PacketConn.WriteTo(late, addr) })
	}
	return len(b), nil
}
