package membership

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// ageMargin is how far the uptimes of two processes must differ to say which is
// the older. Below it the wall clocks at their starts decide, which agree with
// the uptimes unless clocks are wrong.
const ageMargin = 5 * time.Second

// later reports whether process a started after process b. Of two processes
// with one identity the later yields, so both must find the same: uptimes are
// compared first, since the clock of a machine that was copied may be wrong.
func later(a, b hello) bool {
	if d := time.Duration(a.Uptime-b.Uptime) * time.Millisecond; d.Abs() > ageMargin {
		return d < 0
	}
	if a.Started != b.Started {
		return a.Started > b.Started
	}
	return a.Instance > b.Instance
}

// sameIdentity reports whether a and b, two processes, may not both live.
func sameIdentity(a, b hello) bool {
	return a.Instance != b.Instance && (a.UUID == b.UUID || a.NodeID == b.NodeID)
}

// conflictText tells the operator of the process that yields what to do.
func conflictText(yields, stays hello) string {
	if yields.UUID == stays.UUID {
		return fmt.Sprintf("node %s at %s has the identity (UUID %s) of the running node %s at %s: its data directory is a copy; stop the other one, or start this one with a data directory of its own (data_dir)",
			yields.NodeID, yields.Address, yields.UUID, stays.NodeID, stays.Address)
	}
	return fmt.Sprintf("node_id %s of the node at %s is used by the running node at %s (UUID %s): give this one another node_id",
		yields.NodeID, yields.Address, stays.Address, stays.UUID)
}

// greetedLately is how long a node counts as possibly living after its hello,
// whatever gossip says: it takes a moment to show it alive.
const greetedLately = 10 * time.Second

// rival looks for another process that lives under the identity of h. What this
// node believes is not enough: after a kill and a quick restart it still
// believes in the dead process. So the address of the other is asked who it is.
//
// The error is the context's: a hello whose caller goes away while the other is
// being asked decides nothing.
func (m *Membership) rival(ctx context.Context, h hello) (other hello, found bool, err error) {
	var suspects []string
	m.mu.Lock()
	for _, p := range m.peers {
		// A UUID is asked after even if its node is held for dead, the node_id of
		// a dead one is free.
		living := p.state == StateAlive || !p.greeted.IsZero() && time.Since(p.greeted) < greetedLately
		uuid := p.UUID == h.UUID && strconv.FormatUint(p.instance, 16) != h.Instance
		name := p.UUID != h.UUID && p.NodeID == h.NodeID && living
		if p.Address != h.Address && (uuid || name) {
			suspects = append(suspects, p.Address)
		}
	}
	m.mu.Unlock()
	for _, addr := range suspects {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		other, err := m.ask(probe, addr, kindProbe)
		cancel()
		if err == nil && sameIdentity(h, other) {
			return other, true, nil
		}
	}
	return hello{}, false, ctx.Err()
}

// tellRival has the process that must yield look at the one that stays: it finds
// out by itself, and ends.
func (m *Membership) tellRival(ctx context.Context, yields, stays hello) {
	m.log.Warn("two nodes have one identity", "yields", yields.Address, "stays", stays.Address, "node", yields.NodeID, "uuid", yields.UUID)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// If this fails it is told again: every hello and alive message leads here.
	_, _ = m.send(ctx, yields.Address, kindRival, stays.Address)
}

const (
	// checkEvery bounds how often one address is asked because of what gossip
	// said, maxChecks how many addresses are.
	checkEvery = 5 * time.Second
	maxChecks  = 64
)

// check is an address where a process was seen that may have the identity of
// this node, or of another living one.
type check struct {
	at    time.Time
	asked bool
}

// suspect has the rejoin loop introduce this node at addr, once: the hello tells
// who answers there, and who yields.
func (m *Membership) suspect(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.checks[addr] == nil && len(m.checks) < maxChecks {
		m.checks[addr] = &check{at: time.Now()}
		m.kick()
	}
}
