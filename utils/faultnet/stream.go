package faultnet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// stream is one direction of a connection.
type stream struct {
	mu     sync.Mutex // guards all below
	buf    []byte
	ended  bool          // the writer closed: the reader gets the rest, then EOF
	gone   bool          // the reader closed: writes fail
	change chan struct{} // closed and replaced at each change
}

// note tells the waiters of a change. s.mu is held.
func (s *stream) note() {
	close(s.change)
	s.change = make(chan struct{})
}

func (s *stream) read(p []byte, d *deadline) (int, error) {
	for {
		s.mu.Lock()
		switch {
		case s.gone:
			s.mu.Unlock()
			return 0, net.ErrClosed
		case d.isPassed():
			s.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0 || len(p) == 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			s.note()
			s.mu.Unlock()
			return n, nil
		case s.ended:
			s.mu.Unlock()
			return 0, io.EOF
		}
		change := s.change
		s.mu.Unlock()
		select {
		case <-change:
		case <-d.passed():
		}
	}
}

func (s *stream) write(p []byte, d *deadline) (int, error) {
	written := 0
	for {
		s.mu.Lock()
		switch {
		case s.ended:
			s.mu.Unlock()
			return written, net.ErrClosed
		case s.gone:
			s.mu.Unlock()
			return written, syscall.EPIPE
		case d.isPassed():
			s.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		}
		if n := min(len(p), streamSpace-len(s.buf)); n > 0 {
			s.buf = append(s.buf, p[:n]...)
			p, written = p[n:], written+n
			s.note()
		}
		change := s.change
		s.mu.Unlock()
		if len(p) == 0 {
			return written, nil
		}
		select {
		case <-change:
		case <-d.passed():
		}
	}
}

func (s *stream) end(reader bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reader {
		s.gone = true
	} else {
		s.ended = true
	}
	s.note()
}

// pipeConn is one end of a connection.
type pipeConn struct {
	in, out             *stream
	readEnd, writeEnd   *deadline
	localAddr, peerAddr net.Addr
}

func pipe(near, far net.Addr) (net.Conn, net.Conn) {
	a := &stream{change: make(chan struct{})}
	b := &stream{change: make(chan struct{})}
	return &pipeConn{a, b, newDeadline(), newDeadline(), near, far},
		&pipeConn{b, a, newDeadline(), newDeadline(), far, near}
}

func (c *pipeConn) Read(p []byte) (int, error) {
	n, err := c.in.read(p, c.readEnd)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &net.OpError{Op: "read", Net: "tcp", Addr: c.peerAddr, Err: err}
	}
	return n, err
}

func (c *pipeConn) Write(p []byte) (int, error) {
	n, err := c.out.write(p, c.writeEnd)
	if err != nil {
		err = &net.OpError{Op: "write", Net: "tcp", Addr: c.peerAddr, Err: err}
	}
	return n, err
}

func (c *pipeConn) Close() error {
	c.in.end(true)
	c.out.end(false)
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.localAddr }
func (c *pipeConn) RemoteAddr() net.Addr { return c.peerAddr }

func (c *pipeConn) SetDeadline(t time.Time) error {
	c.readEnd.set(t)
	c.writeEnd.set(t)
	return nil
}
func (c *pipeConn) SetReadDeadline(t time.Time) error  { c.readEnd.set(t); return nil }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { c.writeEnd.set(t); return nil }

// deadline is a channel that is closed once a time has passed, and that can be
// moved while others wait for it.
type deadline struct {
	mu    sync.Mutex // guards all below
	timer *time.Timer
	done  chan struct{}
}

func newDeadline() *deadline { return &deadline{done: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // it fired: its function is closing, or has closed, the channel
	}
	d.timer = nil
	closed := false
	select {
	case <-d.done:
		closed = true
	default:
	}
	wait := time.Until(t)
	switch {
	case !t.IsZero() && wait <= 0:
		if !closed {
			close(d.done)
		}
		return
	case closed:
		d.done = make(chan struct{})
	}
	if !t.IsZero() {
		done := d.done
		d.timer = time.AfterFunc(wait, func() { close(done) })
	}
}

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) isPassed() bool {
	select {
	case <-d.passed():
		return true
	default:
		return false
	}
}
