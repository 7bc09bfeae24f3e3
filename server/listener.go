package server

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// reservedConns is how many connections beyond max_connections are taken in the
// hope that another node is calling: clients cannot crowd the cluster out.
// Clients among them are told so (503), which a listener that stops accepting
// could not do.
const reservedConns = 64

// limitListener bounds the connections of a listener.
type limitListener struct {
	net.Listener
	most int
	port *tlsPort // nil: plain HTTP; set before the first connection

	open    atomic.Int64
	refused atomic.Uint64

	refusing chan struct{} // a slot for each refusal being said
	wg       sync.WaitGroup
}

func newLimitListener(ln net.Listener, most int) *limitListener {
	return &limitListener{Listener: ln, most: most, refusing: make(chan struct{}, reservedConns)}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := int(l.open.Add(1))
		if n <= l.most+reservedConns {
			own := &conn{Conn: c, limit: l, overCap: n > l.most}
			if l.port != nil {
				own.tls = l.port.server(c)
				own.Conn = own.tls
			}
			return own, nil
		}
		l.release()
		l.refuse(c)
	}
}

func (l *limitListener) release() { l.open.Add(-1) }

// refuse says why and closes. Where too many are being told already, the
// connection is closed without a word.
func (l *limitListener) refuse(c net.Conn) {
	l.refused.Add(1)
	select {
	case l.refusing <- struct{}{}:
	default:
		c.Close()
		return
	}
	l.wg.Go(func() {
		defer func() { <-l.refusing }()
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if l.port == nil {
			sayLast(c, l.refusal())
			return
		}
		secure := l.port.server(c)
		if secure.Handshake() == nil {
			sayLast(secure, l.refusal())
		}
	})
}

// sayLast writes an answer and ends the connection for writing; the caller
// closes it, and has set its deadline.
func sayLast(c net.Conn, r *refusal) {
	if _, err := c.Write(wholeAnswer(r)); err != nil {
		return
	}
	// A close with the request unread resets the connection, and the client
	// might not see the answer.
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

func (l *limitListener) refusal() *refusal {
	return tooManyConns.refuse("this node takes %d connections at a time (max_connections); reuse connections, or come back later", l.most)
}

// Close ends the listener and waits for what it started.
func (l *limitListener) Close() error {
	err := l.Listener.Close()
	l.wg.Wait()
	return err
}
