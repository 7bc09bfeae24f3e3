package membership

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It holds its own locks then: nothing here
// blocks or calls back into it.
type delegate struct{ m *Membership }

// NodeMeta gives what is gossiped about this node.
func (d delegate) NodeMeta(int) []byte {
	m := d.m
	m.mu.Lock()
	defer m.mu.Unlock()
	return meta{
		Identity: m.opts.Identity, instance: m.instance, mode: m.mode,
		leaving: m.leaving, protocol: Protocol,
	}.encode()
}

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// NotifyAlive sees every word of a living node, this one included, before
// memberlist believes it; an error makes it ignored. A process that has this
// node's identity shows itself here, and so does this node's own past: who it is
// has to be asked at its address.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	m := d.m
	p, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	if p.UUID.String() != n.Name {
		return fmt.Errorf("the node of that name says that it is %s", p.UUID)
	}
	other := p.UUID != m.opts.UUID
	if other && m.opts.Roster.Removed(p.UUID) {
		return fmt.Errorf("node %s was removed from the cluster", p.NodeID)
	}
	if (other && p.NodeID == m.opts.NodeID || !other && p.instance != m.instance) && p.Address != m.opts.Address {
		m.suspect(p.Address)
	}
	// A known node elsewhere all of a sudden is one that was restarted, or a copy:
	// the hello will tell. To believe it now would let a copy take the original's
	// place in everybody's view.
	m.mu.Lock()
	known, ok := m.peers[p.UUID]
	moved := ok && known.Address != p.Address && known.instance != p.instance
	m.mu.Unlock()
	if moved {
		m.suspect(p.Address)
		return fmt.Errorf("node %s was elsewhere; %s is asked", p.NodeID, p.Address)
	}
	return nil
}

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.m.observe(n, StateAlive) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.m.observe(n, StateAlive) }
func (d delegate) NotifyLeave(n *memberlist.Node)  { d.m.observe(n, StateFailed) }

// observe takes over what memberlist came to believe.
func (m *Membership) observe(n *memberlist.Node, state State) {
	said, err := decodeMeta(n.Meta)
	if err != nil || said.UUID == m.opts.UUID {
		return // NotifyAlive refused it already
	}
	if state == StateFailed && said.leaving {
		state = StateLeft
	}
	m.mu.Lock()
	p := m.peers[said.UUID]
	if p == nil {
		p = &peer{}
		m.peers[said.UUID] = p
	}
	before := p.state
	p.state = state
	if state == StateAlive {
		p.meta = said
		p.gossiped = said.instance
		p.seen = m.opts.Now()
	}
	m.notifyLocked()
	m.mu.Unlock()
	if state != before {
		m.log.Info("member is "+string(state), "node", said.NodeID, "uuid", said.UUID, "address", said.Address)
		m.kick()
	}
}

// AckPayload is what answers a ping: this node's wall clock, Unix µs.
func (d delegate) AckPayload() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(d.m.opts.Now().UnixMicro()))
}

// NotifyPingComplete measures the other clock.
func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	said, err := decodeMeta(n.Meta)
	if err != nil || len(payload) != 8 {
		return
	}
	d.m.clockSeen(said.UUID, time.UnixMicro(int64(binary.BigEndian.Uint64(payload))), rtt)
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if p := d.m.peers[said.UUID]; p != nil {
		p.seen = d.m.opts.Now()
	}
}
