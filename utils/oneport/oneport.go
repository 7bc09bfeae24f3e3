// Package oneport is the seam through which a process reaches the network: it
// listens on one address for TCP and UDP with the same port number, and dials.
// Whoever takes a Network instead of calling package net can be run over a
// simulated one.
package oneport

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Network listens and dials. Addresses are host:port.
type Network interface {
	// Listen binds addr for TCP and UDP on the same port. Port 0 asks for any
	// port that is free for both; the listener's Addr tells which.
	Listen(addr string) (net.Listener, net.PacketConn, error)
	// DialContext opens a TCP connection; names are looked up at each call.
	DialContext(ctx context.Context, addr string) (net.Conn, error)
}

// Real is the network of the machine.
func Real() Network { return real{} }

type real struct{}

// dialTimeout bounds a dial whose context has no earlier end: a host that drops
// packets would otherwise hold the caller for minutes.
const dialTimeout = 5 * time.Second

// anyPortTries bounds the search for a port that is free for both protocols:
// the kernel picks it for TCP, and something else may hold it for UDP.
const anyPortTries = 50

func (real) Listen(addr string) (net.Listener, net.PacketConn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen address %q: %w", addr, err)
	}
	tries := 1
	if port == "0" {
		tries = anyPortTries
	}
	for range tries {
		var ln net.Listener
		if ln, err = net.Listen("tcp", addr); err != nil {
			return nil, nil, err
		}
		// The bound address, not the given one: a name may stand for several.
		var packets net.PacketConn
		if packets, err = net.ListenPacket("udp", ln.Addr().String()); err == nil {
			return ln, packets, nil
		}
		ln.Close()
	}
	return nil, nil, err
}

func (real) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "tcp", addr)
}
