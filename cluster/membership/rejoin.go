package membership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"kvs/cluster/rpc"
	"kvs/types"
)

const (
	// quickFor is how long a missing node is tried every second or so: the time
	// in which a restart or a network's trouble is usually over. After that, a
	// random pause between IntervalMin and IntervalMax.
	quickFor = 10 * time.Minute
	quickMin = 250 * time.Millisecond
	quickMax = time.Second
	// complainEvery is how often the same trouble with one address is logged.
	complainEvery = 10 * time.Minute
)

// target is an address that is tried until it is no longer wanted. Only the
// rejoin loop touches targets.
type target struct {
	since    time.Time // first wanted
	urgent   bool
	self     bool // this node itself answered there
	due      time.Time
	attempts int
	busy     bool
	said     string // the last trouble that was logged
	saidAt   time.Time
}

// outcome is what came of one attempt.
type outcome struct {
	addr string
	err  error
}

// pace is the pause after an attempt on a target that has been wanted for age.
// jitter is in [0, 1): nodes that lost each other must not try in step.
func pace(urgent bool, attempts int, age, slowMin, slowMax time.Duration, jitter float64) time.Duration {
	if !urgent || age > quickFor {
		return slowMin + time.Duration(jitter*float64(slowMax-slowMin))
	}
	d := quickMax
	if attempts < 3 {
		d = min(quickMin<<attempts, quickMax)
	}
	return d/2 + time.Duration(jitter*float64(d/2))
}

// rejoiner is the rejoin loop. Only its own goroutine touches the fields, but
// for outcomes.
type rejoiner struct {
	*Membership
	targets  map[string]*target
	outcomes chan outcome
	attempts sync.WaitGroup
	untried  map[string]bool // seeds; nil once SeedsTried says so
}

// rejoin tries whoever is missing, until ctx ends, and waits for its attempts.
func (m *Membership) rejoin(ctx context.Context) {
	r := &rejoiner{Membership: m, targets: map[string]*target{}, outcomes: make(chan outcome), untried: map[string]bool{}}
	defer r.attempts.Wait()
	for _, seed := range m.opts.Seeds {
		r.untried[seed] = true
	}
	r.tickOff(m.opts.Address, false)
	for {
		timer := time.NewTimer(time.Until(r.launch(ctx)))
		select {
		case <-timer.C:
		case <-m.kicked:
			r.hurry()
		case o := <-r.outcomes:
			r.settle(o)
			r.tickOff(o.addr, o.err == nil)
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// launch begins the attempts that are due, and gives when the next one is.
func (r *rejoiner) launch(ctx context.Context) (next time.Time) {
	now := time.Now()
	wanted := r.wanted()
	for addr, t := range r.targets {
		if _, ok := wanted[addr]; !ok && !t.busy {
			delete(r.targets, addr)
		}
	}
	next = now.Add(time.Hour)
	for addr, urgent := range wanted {
		t := r.targets[addr]
		switch {
		case t == nil:
			t = &target{since: now, due: now, urgent: urgent}
			if !urgent {
				t.due = now.Add(r.pace(t))
			}
			r.targets[addr] = t
		case urgent && !t.urgent:
			t.since, t.due, t.attempts = now, now, 0
		}
		t.urgent = urgent
		switch {
		case t.busy:
		case !t.due.After(now):
			t.busy = true
			r.attempts.Go(func() {
				err := r.attempt(ctx, addr)
				select {
				case r.outcomes <- outcome{addr, err}:
				case <-ctx.Done():
				}
			})
		case t.due.Before(next):
			next = t.due
		}
	}
	return next
}

// tickOff notes that addr was tried.
func (r *rejoiner) tickOff(addr string, joined bool) {
	delete(r.untried, addr)
	if r.untried != nil && (joined || len(r.untried) == 0) {
		r.untried = nil
		close(r.tried)
	}
}

// hurry makes the targets due that gossip or a hello says something new of; the
// least pause stays, so that two nodes cannot drive each other on.
func (r *rejoiner) hurry() {
	soon := time.Now().Add(quickMin)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.peers {
		if t := r.targets[p.Address]; t != nil && t.due.After(soon) && time.Since(p.greeted) < quickMax {
			t.due = soon
		}
	}
}

// settle schedules the next attempt, should it still be wanted.
func (r *rejoiner) settle(o outcome) {
	t := r.targets[o.addr]
	t.busy = false
	now := time.Now()
	t.self = errors.Is(o.err, errSelf)
	t.due = now.Add(r.pace(t))
	t.attempts++
	if o.err == nil || t.self {
		return
	}
	trouble := "unreachable"
	var status *rpc.Error
	stopping := errors.As(o.err, &status) && status.Status == http.StatusServiceUnavailable
	if !stopping && !errors.Is(o.err, types.ErrUnreachable) && !errors.Is(o.err, context.DeadlineExceeded) {
		trouble = o.err.Error()
	}
	if t.said == trouble && now.Sub(t.saidAt) < complainEvery {
		return
	}
	t.said, t.saidAt = trouble, now
	switch {
	case errors.Is(o.err, errSecret):
		r.log.Warn("a node is kept out, and keeps this one out: its cluster_secret differs, or one of the two clocks is wrong by more than a minute", "address", o.addr)
	case trouble == "unreachable":
		r.log.Info("a node cannot be reached; it is tried until it can", "address", o.addr, "error", o.err)
	default:
		r.log.Warn("joining a node failed; it is tried again", "address", o.addr, "error", o.err)
	}
}

func (r *rejoiner) pace(t *target) time.Duration {
	return pace(t.urgent && !t.self, t.attempts, time.Since(t.since), r.opts.IntervalMin, r.opts.IntervalMax, rand.Float64())
}

// wanted gives the addresses to try, and whether that is urgent: nodes of the
// roster that are not alive, by where they were last (one that left comes back
// by itself: no hurry); living ones that are not on the roster; seeds of which
// nobody is known to live; and where this node's identity was seen.
func (m *Membership) wanted() map[string]bool {
	entries := m.opts.Roster.Entries()
	out := map[string]bool{}
	rostered := map[types.NodeID]bool{}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving {
		return out
	}
	for _, e := range entries {
		rostered[e.UUID] = true
		p := m.peers[e.UUID]
		switch {
		case e.UUID == m.opts.UUID:
		case p == nil:
			out[e.Address] = true
		case p.state != StateAlive:
			out[p.Address] = p.state != StateLeft
		}
	}
	for id, p := range m.peers {
		if p.state == StateAlive && !rostered[id] && !m.opts.Roster.Removed(id) {
			out[p.Address] = true
		}
	}
	for _, seed := range m.opts.Seeds {
		lives, left := false, len(m.seeds[seed]) > 0
		for _, id := range m.seeds[seed] {
			p := m.peers[id] // there since it answered
			lives = lives || p.state == StateAlive && rostered[id]
			left = left && p.state == StateLeft
		}
		if _, listed := out[seed]; !lives && !listed {
			out[seed] = !left
		}
	}
	for addr, c := range m.checks {
		switch {
		case !c.asked:
			out[addr] = true
		case time.Since(c.at) >= checkEvery:
			delete(m.checks, addr)
		}
	}
	// A node restarted on the address of a former one: that is not another node.
	delete(out, m.opts.Address)
	return out
}

// attempt introduces this node at addr, and at every address of its host name.
// It succeeds if anybody else answered.
func (m *Membership) attempt(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	var met []types.NodeID
	var failed error
	for _, a := range expand(ctx, addr) {
		id, err := m.contact(ctx, a)
		if err == nil {
			met = append(met, id)
		} else if failed == nil || errors.Is(failed, errSelf) {
			failed = err
		}
	}
	m.mu.Lock()
	if len(met) > 0 && slices.Contains(m.opts.Seeds, addr) {
		m.seeds[addr] = met
	}
	if c := m.checks[addr]; c != nil {
		c.asked = true
	}
	m.mu.Unlock()
	if len(met) > 0 {
		return nil
	}
	return failed
}

// expand looks the host name of addr up: one name may stand for all the nodes.
// Where that fails the dial says why.
func expand(ctx context.Context, addr string) []string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host) != nil {
		return []string{addr}
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil || len(ips) < 2 {
		return []string{addr}
	}
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = net.JoinHostPort(ip, port)
	}
	return out
}

// contact says hello at addr and, where gossip does not show that process alive
// already, exchanges all that both know.
func (m *Membership) contact(ctx context.Context, addr string) (types.NodeID, error) {
	h, err := m.introduce(ctx, addr)
	if err != nil {
		return types.NodeID{}, err
	}
	m.mu.Lock()
	list, p := m.list, m.peers[h.UUID]
	current := p.state == StateAlive && p.gossiped == p.instance
	m.mu.Unlock()
	if current {
		return h.UUID, nil
	}
	if list == nil {
		return types.NodeID{}, errors.New("the gossip is not running yet")
	}
	// By name: the transport knows the address from the hello.
	if _, err := list.Join([]string{h.UUID.String() + "/0.0.0.0:0"}); err != nil {
		return types.NodeID{}, fmt.Errorf("node %s: %w", h.NodeID, err)
	}
	return h.UUID, nil
}

// Join introduces this node to the one at addr and waits until that is done.
// The roster then keeps it.
func (m *Membership) Join(ctx context.Context, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("join %q: the address must be host:port: %w", addr, err)
	}
	if err := m.attempt(ctx, addr); err != nil {
		return fmt.Errorf("join %s: %w", addr, err)
	}
	return nil
}
