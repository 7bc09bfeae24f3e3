package replicationtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"kvs/cluster/rpc"
	"kvs/types"
)

// Network connects nodes by calling their handlers. Its zero value has no
// faults.
type Network struct {
	mu       sync.Mutex // guards what follows
	rand     *rand.Rand
	faults   Faults
	handlers map[string]map[string]http.Handler
	cut      map[[2]string]bool
	hung     map[string]bool
	garble   map[string]func(path string, answer []byte) []byte
	bytes    int
	calls    map[string]int
}

// Faults happen to bodies, each with a probability from 0 to 1.
type Faults struct {
	Drop      float64       // the request is lost, or the answer, half each
	Duplicate float64       // the request arrives a second time, later
	Delay     time.Duration // up to this long, each way: requests overtake each other
}

// NewNetwork makes a network whose faults come from seed.
func NewNetwork(seed uint64, f Faults) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, 0)), faults: f,
		handlers: map[string]map[string]http.Handler{}, cut: map[[2]string]bool{}, hung: map[string]bool{},
		garble: map[string]func(string, []byte) []byte{}, calls: map[string]int{},
	}
}

// Serve puts a node's handlers at an address; nil takes it away.
func (n *Network) Serve(addr string, handlers map[string]http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[addr] = handlers
}

// SetFaults replaces the faults.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Cut breaks the link between two addresses, both ways, or restores it.
func (n *Network) Cut(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}], n.cut[[2]string{b, a}] = cut, cut
}

// Hang makes an address swallow calls.
func (n *Network) Hang(addr string, hang bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung[addr] = hang
}

// Garble changes the answers of an address; nil stops that.
func (n *Network) Garble(addr string, fn func(path string, answer []byte) []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.garble[addr] = fn
}

// Traffic gives the bytes of all bodies and answers since the last call, and how
// many calls each path had.
func (n *Network) Traffic() (bytes int, calls map[string]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	bytes, calls = n.bytes, n.calls
	n.bytes, n.calls = 0, map[string]int{}
	return bytes, calls
}

// Caller gives the network as the node at an address sees it.
func (n *Network) Caller(from string) Caller { return Caller{n, from} }

// Caller calls from one address.
type Caller struct {
	n    *Network
	from string
}

// plan is what happens to one call.
type plan struct {
	handlers                map[string]http.Handler
	cut, hung               bool
	lost, unanswered, twice bool
	there, back             time.Duration
	garble                  func(string, []byte) []byte
}

func (n *Network) plan(from, addr, path string) plan {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[path]++
	p := plan{handlers: n.handlers[addr], cut: n.cut[[2]string{from, addr}], hung: n.hung[addr], garble: n.garble[addr]}
	if n.rand.Float64() < n.faults.Drop {
		p.lost = n.rand.IntN(2) == 0
		p.unanswered = !p.lost
	}
	p.twice = n.rand.Float64() < n.faults.Duplicate
	if n.faults.Delay > 0 {
		p.there = time.Duration(n.rand.Int64N(int64(n.faults.Delay)))
		p.back = time.Duration(n.rand.Int64N(int64(n.faults.Delay)))
	}
	return p
}

// Call is one call.
func (c Caller) Call(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	p := c.n.plan(c.from, addr, path)
	unreachable := fmt.Errorf("call %s%s: %w", addr, path, types.ErrUnreachable)
	if p.hung {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if p.cut || p.lost || p.handlers == nil {
		return nil, unreachable
	}
	if !pause(ctx, p.there) {
		return nil, ctx.Err()
	}
	answer, err := c.n.deliver(ctx, p.handlers[path], path, body)
	if p.twice {
		_, _ = c.n.deliver(ctx, p.handlers[path], path, body)
	}
	if !pause(ctx, p.back) {
		return nil, ctx.Err()
	}
	if p.unanswered {
		return nil, unreachable
	}
	if err == nil && p.garble != nil {
		answer = p.garble(path, answer)
	}
	return answer, err
}

func (n *Network) deliver(ctx context.Context, h http.Handler, path string, body []byte) ([]byte, error) {
	if h == nil {
		return nil, &rpc.Error{Status: http.StatusNotFound}
	}
	// A copy, as from a socket.
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(bytes.Clone(body)))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	n.mu.Lock()
	n.bytes += len(body) + w.Body.Len()
	n.mu.Unlock()
	if w.Code != http.StatusOK {
		return nil, &rpc.Error{Status: w.Code, Detail: w.Body.String()}
	}
	return w.Body.Bytes(), nil
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
