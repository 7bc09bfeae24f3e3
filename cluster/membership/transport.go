package membership

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	gossipPath = "/sync/gossip"
	// gossipUpgrade is the protocol that a stream is upgraded to: memberlist's,
	// as it is.
	gossipUpgrade = "kvs-gossip/1"
	// maxStreams bounds the inbound streams that are open at once; memberlist
	// gives each up after its TCP time-out.
	maxStreams = 128
	// maxPacket is the largest UDP payload.
	maxPacket = 64 << 10
	// lookupTimeout bounds the lookup of a host name for a packet; found or
	// not, the outcome holds for lookupAge.
	lookupTimeout = time.Second
	lookupAge     = 30 * time.Second
)

var errTransportDown = errors.New("gossip transport is shut down")

// transport carries memberlist over the node's one port. Streams begin as HTTP:
//
//	-> GET /sync/gossip HTTP/1.1, Connection: Upgrade, Upgrade: kvs-gossip/1, the node token
//	<- 101 Switching Protocols
//	<> memberlist's stream
type transport struct {
	packets   net.PacketConn
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	authorize func(*http.Request)
	addressOf func(name string) (addr string, ok bool)
	log       *slog.Logger

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	ctx      context.Context // of the dials; ends with Shutdown, as does all that waits
	cancel   context.CancelFunc
	reading  sync.WaitGroup

	mu      sync.Mutex // guards all below
	up      bool       // started, and not shut down
	streams map[*stream]struct{}
	inbound int
	lookups map[string]lookup
}

type lookup struct {
	addr *net.UDPAddr // nil: not found
	err  error
	at   time.Time
}

func newTransport(o Options, addressOf func(string) (string, bool)) *transport {
	ctx, cancel := context.WithCancel(context.Background())
	return &transport{
		ctx: ctx, cancel: cancel,
		packets: o.Packets, dial: o.Dial, authorize: o.Authorize, addressOf: addressOf, log: o.Log,
		packetCh: make(chan *memberlist.Packet),
		streamCh: make(chan net.Conn),
		streams:  map[*stream]struct{}{},
		lookups:  map[string]lookup{},
	}
}

// start begins to read packets and to accept streams.
func (t *transport) start() {
	t.mu.Lock()
	t.up = true
	t.mu.Unlock()
	t.reading.Go(t.readPackets)
}

func (t *transport) readPackets() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.packets.ReadFrom(buf)
		at := time.Now()
		select {
		case <-t.ctx.Done():
			return
		default:
		}
		switch {
		case errors.Is(err, net.ErrClosed):
			t.log.Error("the UDP port was closed under the gossip: other nodes will hold this one for failed")
			return
		case err != nil:
			// Such as a bounced packet of ours; the pause is against spinning
			// should it last.
			t.log.Debug("reading a gossip packet", "error", err)
			select {
			case <-time.After(10 * time.Millisecond):
			case <-t.ctx.Done():
				return
			}
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: at}
		select {
		case t.packetCh <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

// FinalAdvertiseAddr gives no address: see the package comment.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return net.IPv4zero, 0, nil }

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streamCh }

// WriteTo and DialTimeout are part of the interface; memberlist uses the ones by
// Address.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// target gives where to send to. An address with a port is where a packet came
// from, and so where its answer must go; else the name counts.
func (t *transport) target(a memberlist.Address) (string, error) {
	if _, port, err := net.SplitHostPort(a.Addr); err == nil && port != "0" {
		return a.Addr, nil
	}
	if addr, ok := t.addressOf(a.Name); ok {
		return addr, nil
	}
	return "", fmt.Errorf("the address of node %s is not known", a.Name)
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	target, err := t.target(a)
	if err != nil {
		return time.Time{}, err
	}
	addr, err := t.resolve(target)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packets.WriteTo(b, addr)
	return time.Now(), err
}

func (t *transport) resolve(target string) (*net.UDPAddr, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return net.ResolveUDPAddr("udp", target) // no lookup
	}
	t.mu.Lock()
	l, ok := t.lookups[target]
	t.mu.Unlock()
	if ok && time.Since(l.at) < lookupAge {
		return l.addr, l.err
	}
	ctx, cancel := context.WithTimeout(t.ctx, lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	l = lookup{err: err}
	if err == nil {
		l.addr, l.err = net.ResolveUDPAddr("udp", net.JoinHostPort(ips[0], port))
	}
	l.at = time.Now()
	t.mu.Lock()
	t.lookups[target] = l // one per node: addresses come from the meta
	t.mu.Unlock()
	return l.addr, l.err
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	target, err := t.target(a)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	r, err := t.upgrade(conn, target)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("gossip stream to %s: %w", target, err)
	}
	_ = conn.SetDeadline(time.Time{})
	s := &stream{Conn: conn, r: r, transport: t}
	if !t.track(s) {
		conn.Close()
		return nil, errTransportDown
	}
	return s, nil
}

func (t *transport) upgrade(conn net.Conn, target string) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+target+gossipPath, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", gossipUpgrade)
	if t.authorize != nil {
		t.authorize(req)
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, fmt.Errorf("answered %s", resp.Status)
	}
	return r, nil
}

// serve takes over a connection that another node upgrades.
func (t *transport) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.EqualFold(r.Header.Get("Upgrade"), gossipUpgrade) {
		w.Header().Set("Upgrade", gossipUpgrade)
		http.Error(w, "this address takes "+gossipUpgrade+" by an HTTP upgrade", http.StatusUpgradeRequired)
		return
	}
	s := &stream{transport: t, inbound: true}
	if !t.track(s) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no gossip stream can be taken now", http.StatusServiceUnavailable)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.untrack(s)
		t.log.Error("taking over a gossip stream", "error", err)
		http.Error(w, "the connection cannot be upgraded", http.StatusInternalServerError)
		return
	}
	t.mu.Lock()
	s.Conn, s.r = conn, buffered.Reader
	up := t.up
	t.mu.Unlock()
	// The server's own time limits end here; memberlist sets its own.
	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	if up {
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+gossipUpgrade+"\r\n\r\n")
	}
	if !up || err != nil {
		s.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	select {
	case t.streamCh <- s:
	case <-t.ctx.Done():
		s.Close()
	}
}

// track registers s, so that Shutdown closes it; false: it may not be used.
func (t *transport) track(s *stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.up || s.inbound && t.inbound >= maxStreams {
		return false
	}
	if s.inbound {
		t.inbound++
	}
	t.streams[s] = struct{}{}
	return true
}

func (t *transport) untrack(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.streams[s]; ok && s.inbound {
		t.inbound--
	}
	delete(t.streams, s)
}

// Shutdown stops reading and closes all streams. The UDP port stays open: it
// belongs to whoever made it.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	if !t.up {
		t.mu.Unlock()
		return nil
	}
	t.up = false
	t.cancel()
	var open []net.Conn
	for s := range t.streams {
		if s.Conn != nil { // else it is being taken over, and finds up false
			open = append(open, s.Conn)
		}
	}
	t.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	_ = t.packets.SetReadDeadline(time.Now()) // wakes the reader
	t.reading.Wait()
	_ = t.packets.SetReadDeadline(time.Time{})
	return nil
}

// stream is one gossip stream. Reads go through the buffer in which the HTTP
// exchange may have left the first bytes.
type stream struct {
	net.Conn
	r         *bufio.Reader
	transport *transport
	inbound   bool
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *stream) Close() error {
	s.transport.untrack(s)
	return s.Conn.Close()
}
