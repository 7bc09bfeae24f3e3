package faultnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"kvs/utils/oneport"
)

// Memory gives a network of its own that lives in this process: its addresses
// mean nothing elsewhere. Streams are buffered as the kernel's are, so that two
// ends may write at once; packets queue up to a bound and are then lost.
func Memory() oneport.Network {
	return &memory{ports: map[string]*memoryPort{}, next: firstPort}
}

const (
	firstPort   = 20000
	backlog     = 128       // connections that wait to be accepted
	packetQueue = 1024      // packets that wait to be read
	streamSpace = 256 << 10 // bytes that one direction of a stream holds
)

type memory struct {
	mu    sync.Mutex             // guards all below
	ports map[string]*memoryPort // by canonical address
	next  int                    // next port to hand out
}

func (m *memory) Listen(addr string) (net.Listener, net.PacketConn, error) {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen address %q: %w", addr, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if port == "0" {
		port = strconv.Itoa(m.take())
	}
	n, err := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(canonical(h))
	if err != nil || ip == nil {
		return nil, nil, fmt.Errorf("listen address %q: not an IP address and a port", addr)
	}
	key := net.JoinHostPort(ip.String(), port)
	if m.ports[key] != nil {
		return nil, nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	p := &memoryPort{
		net: m, key: key, ip: ip, port: int(n), open: 2,
		conns: make(chan net.Conn, backlog), packets: make(chan packet, packetQueue),
	}
	m.ports[key] = p
	return &memoryListener{port: p, closed: make(chan struct{})},
		&memoryPackets{port: p, closed: make(chan struct{}), read: newDeadline()}, nil
}

func (m *memory) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	m.mu.Lock()
	p := m.find(addr)
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: m.take()}
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	if p == nil {
		return nil, refused
	}
	near, far := pipe(local, &net.TCPAddr{IP: p.ip, Port: p.port})
	if !p.offer(far) {
		return nil, refused
	}
	return near, nil
}

// take gives a port that was not handed out lately. m.mu is held.
func (m *memory) take() int {
	m.next++
	if m.next > 65535 {
		m.next = firstPort
	}
	return m.next
}

// find gives the port that listens on addr, or nil. m.mu is held.
func (m *memory) find(addr string) *memoryPort {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil
	}
	if p := m.ports[net.JoinHostPort(canonical(h), port)]; p != nil {
		return p
	}
	return m.ports[net.JoinHostPort("0.0.0.0", port)]
}

// memoryPort is one port number with its listener and its packets.
type memoryPort struct {
	net     *memory
	key     string
	ip      net.IP
	port    int
	conns   chan net.Conn
	packets chan packet

	mu      sync.Mutex // guards what follows
	open    int        // of listener and packet conn; the address is free again at 0
	refuses bool       // the listener is closed
}

type packet struct {
	data []byte
	from net.Addr
}

// offer queues a connection for Accept, unless nobody will accept it.
func (p *memoryPort) offer(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses {
		return false
	}
	select {
	case p.conns <- c:
		return true
	default:
		return false
	}
}

func (p *memoryPort) release() {
	p.mu.Lock()
	p.open--
	free := p.open == 0
	p.mu.Unlock()
	if free {
		p.net.mu.Lock()
		delete(p.net.ports, p.key)
		p.net.mu.Unlock()
	}
}

type memoryListener struct {
	port   *memoryPort
	once   sync.Once
	closed chan struct{}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.port.conns:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		l.port.mu.Lock()
		l.port.refuses = true
		l.port.mu.Unlock()
		close(l.closed)
		for len(l.port.conns) > 0 { // nobody adds any more
			(<-l.port.conns).Close()
		}
		l.port.release()
	})
	return nil
}

func (l *memoryListener) Addr() net.Addr {
	return &net.TCPAddr{IP: l.port.ip, Port: l.port.port}
}

type memoryPackets struct {
	port   *memoryPort
	once   sync.Once
	closed chan struct{}
	read   *deadline
}

func (c *memoryPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.closed: // first: a closed one gives nothing more, whatever is queued
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: net.ErrClosed}
	case <-c.read.passed():
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: os.ErrDeadlineExceeded}
	default:
	}
	select {
	case p := <-c.port.packets:
		return copy(b, p.data), p.from, nil
	case <-c.closed:
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: net.ErrClosed}
	case <-c.read.passed():
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: os.ErrDeadlineExceeded}
	}
}

func (c *memoryPackets) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}
	default:
	}
	c.port.net.mu.Lock()
	to := c.port.net.find(addr.String())
	c.port.net.mu.Unlock()
	if to == nil {
		return len(b), nil
	}
	select {
	case to.packets <- packet{append([]byte(nil), b...), c.LocalAddr()}:
	default: // full: lost, as with UDP
	}
	return len(b), nil
}

func (c *memoryPackets) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.port.release()
	})
	return nil
}

func (c *memoryPackets) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: c.port.ip, Port: c.port.port}
}

// SetDeadline sets the read deadline; writes never wait.
func (c *memoryPackets) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *memoryPackets) SetReadDeadline(t time.Time) error { c.read.set(t); return nil }
func (c *memoryPackets) SetWriteDeadline(time.Time) error  { return nil }
