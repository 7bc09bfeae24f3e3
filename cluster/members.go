package cluster

import (
	"math/rand/v2"

	"kvs/cluster/membership"
	"kvs/types"
)

// Member is a node on the roster.
type Member struct {
	UUID     types.NodeID
	NodeID   string
	Address  string
	Joined   int64  // Unix ms
	LastSeen int64  // Unix ms; 0: not since this node started
	State    string // alive, failed, left
	Mode     types.Mode
	Root     string // hex Merkle root as last seen, empty if never; this node's own: now
	Behind   uint64 // commits of this node that the member has not acknowledged
	Self     bool
}

// Members lists the roster, this node included, by node_id.
func (c *Cluster) Members() []Member {
	var out []Member
	status := c.repl.Status()
	for _, m := range c.members.Members() {
		member := Member{
			UUID: m.UUID, NodeID: m.NodeID, Address: m.Address, Joined: m.Joined,
			State: string(m.State), Mode: m.Mode, Self: m.Self,
		}
		if !m.LastSeen.IsZero() {
			member.LastSeen = m.LastSeen.UnixMilli()
		}
		if m.Self {
			member.Root = ownRoot(c.opts.Store)
		}
		for _, p := range status.Peers {
			if p.UUID == m.UUID {
				member.Root, member.Behind = p.Root, p.Behind
			}
		}
		out = append(out, member)
	}
	return out
}

// LiveCount gives the live members, this node included.
func (c *Cluster) LiveCount() int {
	n := 0
	for _, m := range c.members.Members() {
		if m.State == membership.StateAlive {
			n++
		}
	}
	return n
}

// RosterCount gives the members, this node included: the n of w=quorum and
// w=all.
func (c *Cluster) RosterCount() int { return len(c.members.Members()) }

// NormalPeer gives a live peer that reads can be forwarded to, any one of them:
// one that is read-only answers reads too.
func (c *Cluster) NormalPeer() (addr string, ok bool) {
	var addrs []string
	for _, m := range c.members.Members() {
		if !m.Self && m.State == membership.StateAlive && m.Mode != types.ModeSyncing {
			addrs = append(addrs, m.Address)
		}
	}
	if len(addrs) == 0 {
		return "", false
	}
	return addrs[rand.IntN(len(addrs))], true
}

// Progress gives the records that a node being filled has taken, and about how
// many it expects.
func (c *Cluster) Progress() (done, total uint64) {
	s := c.repl.Status()
	return s.BootDone, s.BootTotal
}

// Status is what replication did since the start, and how far it is.
type Status struct {
	PushedRecords   uint64 // acknowledged, once per peer
	PushBytes       uint64 // of push bodies
	ReceivedRecords uint64 // from pushes of others
	SyncRounds      uint64 // rounds of comparisons
	SyncMoved       uint64 // records that those repaired, on either side
	SyncBytes       uint64 // of their bodies, both ways
	SyncFailures    uint64
	SentBytes       uint64 // on the wire, of all calls between nodes
	ReceivedBytes   uint64
	Peers           []PeerStatus
}

// PeerStatus is the state towards one peer.
type PeerStatus struct {
	NodeID   string
	Alive    bool
	Behind   uint64 // commits of this node that it has not acknowledged
	LastSync int64  // Unix ms of the last completed comparison; 0: never
}

// Status gives the counters.
func (c *Cluster) Status() Status {
	r := c.repl.Status()
	s := Status{
		PushedRecords: r.PushedRecords, PushBytes: r.PushBytes, ReceivedRecords: r.ReceivedRecords,
		SyncRounds: r.SyncRounds, SyncMoved: r.SyncMoved, SyncBytes: r.SyncBytes, SyncFailures: r.SyncFailures,
	}
	s.SentBytes, s.ReceivedBytes = c.client.Traffic()
	for _, p := range r.Peers {
		ps := PeerStatus{NodeID: p.NodeID, Alive: p.Alive, Behind: p.Behind}
		if !p.LastSync.IsZero() {
			ps.LastSync = p.LastSync.UnixMilli()
		}
		s.Peers = append(s.Peers, ps)
	}
	return s
}
