package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"kvs/utils/certs"
)

// conn is a client's connection. Beside the bytes it does two things that
// net/http leaves to the network: it bounds how long a client may leave an
// answer unread, and it puts what net/http refuses by itself (a request line or
// headers that cannot be parsed, which no handler sees) into a problem
// document.
//
// With TLS the layers are TCP, TLS, conn, net/http: a conn has plain text above
// it, which is why it can do both. So net/http does not know of the TLS, and the
// handshake is for conn to make, when net/http first reads.
type conn struct {
	net.Conn // the TLS connection, where there is one
	limit    *limitListener
	// overCap marks a connection beyond max_connections: it is kept for other
	// nodes, and everybody else is refused on it.
	overCap bool
	closed  atomic.Bool

	// fresh says that no handler has the request that is awaited or read:
	// whatever is written then is net/http's own refusal. Set and cleared by the
	// connection's one serving goroutine.
	fresh bool

	// Where there is TLS. All but tls belong to the serving goroutine.
	tls    *tls.Conn
	state  *tls.ConnectionState // nil before the handshake
	failed bool                 // the handshake was no success
	peer   certs.Peer           // what is known of the client's certificate

	// writeBy is the write deadline in force; see Write.
	writeBy time.Time
	// taken says that somebody sets deadlines of their own: net/http clears all
	// of them, with SetDeadline, when it hands a hijacked connection over.
	taken atomic.Bool
}

// An answer's every writeChunk must be taken within writeTimeout. The deadline
// is moved only when half of it is gone: setting it costs more than the check.
const (
	writeTimeout = time.Minute
	writeChunk   = 64 << 10
)

// Read makes the TLS handshake before the first byte. For that there is the time
// that net/http gives a client for a request's headers. To a handshake that fails
// there is nothing to answer: for net/http the client is gone.
func (c *conn) Read(b []byte) (int, error) {
	if c.tls != nil && c.state == nil {
		if c.failed = c.failed || !c.limit.port.handshake(c); c.failed {
			return 0, io.EOF
		}
	}
	return c.Conn.Read(b)
}

// begin hands a request to its handler: what is written from now on is no
// refusal of net/http's.
func (c *conn) begin(r *http.Request) {
	c.fresh = false
	r.TLS = c.state
}

func (c *conn) Write(b []byte) (int, error) {
	if c.fresh && bytes.HasPrefix(b, []byte("HTTP/1.")) {
		c.fresh = false
		if answer := ownRefusal(b); answer != nil {
			_, err := c.Write(answer)
			return len(b), err
		}
	}
	written := 0
	for {
		if err := c.extend(); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(b[:min(len(b), writeChunk)])
		written += n
		if b = b[n:]; err != nil || len(b) == 0 {
			return written, err
		}
	}
}

// extend moves the write deadline on.
func (c *conn) extend() error {
	if c.taken.Load() {
		return nil
	}
	now := time.Now()
	if c.writeBy.Sub(now) >= writeTimeout/2 {
		return nil
	}
	c.writeBy = now.Add(writeTimeout)
	return c.Conn.SetWriteDeadline(c.writeBy)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() || c.taken.Load() {
		c.taken.Store(true)
		return c.Conn.SetWriteDeadline(t)
	}
	// This is net/http, which after every answer lifts what it may have set. The
	// next answer has its deadline from Write.
	if c.tls == nil {
		return nil
	}
	// TLS may have something to write in between.
	c.writeBy = time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.taken.Store(true)
	return c.Conn.SetDeadline(t)
}

// CloseWrite lets net/http end an answer without a reset that would make the
// client lose it.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.limit.release()
	}
	return c.Conn.Close()
}

// ownRefusal turns the answer that net/http gives by itself into a problem; nil
// if it is none.
func ownRefusal(b []byte) []byte {
	if len(b) < len("HTTP/1.1 400") {
		return nil
	}
	status, err := strconv.Atoi(string(b[len("HTTP/1.1 "):len("HTTP/1.1 400")]))
	if err != nil || status < 400 {
		return nil
	}
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	return wholeAnswer(ownProblem(status).refuse("%s", line[len("HTTP/1.1 400"):]))
}

func ownProblem(status int) *problem {
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		return headersTooLarge
	case http.StatusNotImplemented:
		return notImplemented
	case http.StatusBadRequest:
		return badRequest
	}
	return &problem{status, badRequest.code, http.StatusText(status), 0}
}

// wholeAnswer is an answer from its first byte to its last, after which the
// connection closes.
func wholeAnswer(r *refusal) []byte {
	r.detail = string(bytes.TrimLeft([]byte(r.detail), ": "))
	body := appendProblem(nil, r)
	retry := ""
	if r.retryAfter != 0 {
		retry = fmt.Sprintf("Retry-After: %d\r\n", r.retryAfter)
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s",
		r.status, http.StatusText(r.status), len(body), retry, body)
}

type connKey struct{}

// connOf gives the connection that a request came on, nil in tests without one.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// followConns makes the server tell connections what state they are in.
func followConns(s *http.Server) {
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		// A connection that is kept turns active only with a request that can be
		// read: whether the next one can, shows while it is idle.
		if own, ok := c.(*conn); ok && (state == http.StateActive || state == http.StateIdle) {
			own.fresh = true
		}
	}
}
