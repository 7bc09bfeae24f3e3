package replication

import (
	"context"
	"fmt"
	"time"

	"kvs/cluster/replication/wire"
	"kvs/storage/feed"
	"kvs/storage/merkle"
	"kvs/types"
	"kvs/utils/backoff"
)

const (
	pathPush = "/sync/push"

	// A push holds what came while the one before was under way, within these
	// bounds in bytes. A failure halves the bound, so that a slow link gets bodies
	// that it carries within CallTimeout; a full body that arrived doubles it.
	minBatch   = 64 << 10
	firstBatch = 1 << 20
	maxBatch   = 4 << 20

	// scanTime bounds how long one scan holds a snapshot.
	scanTime = 2 * time.Second
)

// pushLoop brings to one peer what this node originates. It alone moves the
// peer's position.
func (r *Replicator) pushLoop(ctx context.Context, p *peer) {
	pause := backoff.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	s := sender{r: r, p: p, limit: firstBatch, pos: p.pos}
	failing := false
	for ctx.Err() == nil {
		info, changed := p.info()
		if !info.Alive {
			wait(ctx, changed, nil, nil)
			continue
		}
		s.to = info
		idle, err := s.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			level := r.log.Debug
			if !failing {
				level = r.log.Warn
			}
			level("pushing to a peer fails; it will be caught up", "peer", info.NodeID, "address", info.Address, "error", err)
			failing = true
			s.limit = max(minBatch, s.limit/2)
			timer := time.NewTimer(pause.Next())
			wait(ctx, changed, timer.C, nil)
			timer.Stop()
		case idle != nil:
			wait(ctx, changed, nil, idle)
		}
		if err == nil && failing {
			r.log.Info("pushing to a peer works again", "peer", info.NodeID)
			failing = false
			pause.Reset()
		}
	}
}

// wait returns when any of the three channels has something, or ctx ends.
func wait(ctx context.Context, changed <-chan struct{}, timer <-chan time.Time, idle *idleness) {
	var committed, wake <-chan struct{}
	if idle != nil {
		committed, wake = idle.committed, idle.extras
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer:
	case <-committed:
	case <-wake:
	}
}

// idleness says what ends the idleness of a push loop that has nothing to send.
type idleness struct{ committed, extras <-chan struct{} }

// sender is the state of a push loop.
type sender struct {
	r     *Replicator
	p     *peer
	to    Peer // as membership sees the peer now
	pos   position
	limit int // bytes of one body
}

// step sends one body or a few, or finds that there is nothing to send.
func (s *sender) step(ctx context.Context) (*idleness, error) {
	r := s.r
	units, wake := r.acks.extras(s.p.id)
	if len(units) > 0 {
		if _, err := r.send(ctx, s.to, r.header(), units); err != nil {
			return nil, err
		}
	}
	if s.pos.Window != 0 {
		return nil, s.scan(ctx)
	}
	committed := r.store.Committed() // these three in this order: nothing falls between
	seq := r.store.Seq()
	header := r.header()
	commits, ok := r.store.Recent(s.pos.Cursor, s.limit)
	switch {
	case ok && len(commits) > 0:
		return nil, s.follow(ctx, header, commits)
	case !ok && seq > s.pos.Cursor:
		r.log.Debug("a peer is behind the recent changes, and is caught up by scanning",
			"peer", s.to.NodeID, "from", s.pos.Cursor, "to", seq)
		s.pos.Window, s.pos.After = seq, types.Ref{}
		s.p.setPosition(s.pos)
		return nil, nil
	}
	r.acks.idleAt(s.p.id, seq)
	return &idleness{committed, wake}, nil
}

// follow sends commits of the ring, in bodies that cut no unit, and moves the
// cursor past each commit that was acknowledged whole.
func (s *sender) follow(ctx context.Context, h wire.Header, commits []feed.Commit) error {
	var batch [][]types.Record
	size, whole := 0, s.pos.Cursor
	flush := func() error {
		if _, err := s.r.send(ctx, s.to, h, batch); err != nil {
			return err
		}
		batch, size = nil, 0
		s.pos.Cursor = whole
		s.p.setPosition(s.pos)
		s.r.acks.advance(s.p.id, whole, 0)
		return nil
	}
	owned := s.r.owned(s.p.id)
	for _, c := range commits {
		for _, unit := range unitsOf(c.Changes, owned) {
			n := wire.Size(unit)
			if size > 0 && size+n > s.limit {
				if err := flush(); err != nil {
					return err
				}
			}
			batch, size = append(batch, unit), size+n
		}
		whole = c.Seq
	}
	full := size > s.limit/2
	if err := flush(); err != nil {
		return err
	}
	s.grow(full)
	return nil
}

// unitsOf gives the records of a commit that are to be sent, those of one atomic
// batch together.
func unitsOf(changes []feed.Change, owned func(*types.Record) bool) (units [][]types.Record) {
	open := 0 // the unit that the last element of units is still open for
	for i := range changes {
		c := &changes[i]
		if !owned(&c.Record) {
			continue
		}
		if c.Unit != 0 && c.Unit == open {
			units[len(units)-1] = append(units[len(units)-1], c.Record)
			continue
		}
		units = append(units, []types.Record{c.Record})
		open = c.Unit
	}
	return units
}

// owned says of records whether this node is one that pushes them to peer: its
// own, and losers of conflicts. Those have the loser's origin, which may not be
// there any more or never see the conflict, so whoever comes to hold one passes
// it on. That ends by itself: they are written once, and who has one already
// passes nothing on.
func (r *Replicator) owned(peer types.NodeID) func(*types.Record) bool {
	r.mu.Lock()
	nodes := r.nodes
	r.mu.Unlock()
	everybody := r.o.Placement.Everybody(len(nodes))
	return func(rec *types.Record) bool {
		mine := rec.Origin == r.o.Self || rec.NS == types.NSConflicts
		return mine && (everybody || r.o.Placement.Holds(peer, merkle.KeyHash(rec.Ref), nodes))
	}
}

// scan sends the next part of the window, in ref order and record by record.
func (s *sender) scan(ctx context.Context) error {
	r := s.r
	header := r.header()
	owned := r.owned(s.p.id)
	var batch [][]types.Record
	size, seen, more := 0, 0, false
	next, start := s.pos.After, time.Now()
	failed := r.store.ChangedBetween(ctx, s.pos.Cursor, s.pos.Window, s.pos.After, func(rec *types.Record) bool {
		if seen++; size >= s.limit || seen%1024 == 0 && time.Since(start) > scanTime {
			more = true
			return false
		}
		next = rec.Ref
		if owned(rec) {
			unit := []types.Record{*rec}
			batch, size = append(batch, unit), size+wire.Size(unit)
		}
		return true
	})
	// What was read before a failure is sent all the same.
	if _, err := r.send(ctx, s.to, header, batch); err != nil {
		return err
	}
	s.pos.After = next
	if failed != nil {
		s.p.setPosition(s.pos)
		return fmt.Errorf("scan the changes from %d to %d after %s: %w", s.pos.Cursor, s.pos.Window, next, failed)
	}
	if !more {
		s.pos = position{Cursor: s.pos.Window}
		r.acks.advance(s.p.id, s.pos.Cursor, s.pos.Cursor) // by scan: the floor comes along
	}
	s.p.setPosition(s.pos)
	s.grow(more)
	return nil
}

// grow lets bodies become larger after a full one arrived.
func (s *sender) grow(full bool) {
	if full {
		s.limit = min(maxBatch, s.limit*2)
	}
}

// send pushes units to a peer in one body, names in the log what the peer
// refuses, and lets waiters know. The records were read under h's horizon.
func (r *Replicator) send(ctx context.Context, to Peer, h wire.Header, units [][]types.Record) (refused int, err error) {
	if len(units) == 0 {
		return 0, nil
	}
	body := (&wire.Push{Header: h, Units: units}).Append(nil)
	r.pushBytes.Add(uint64(len(body)))
	raw, err := r.call(ctx, to, pathPush, body)
	if err != nil {
		return 0, err
	}
	answer, err := wire.DecodePushAnswer(raw)
	if err := r.answered(to, answer.Header, err); err != nil {
		return 0, err
	}
	refs := make(map[types.Ref]bool, len(answer.Refused))
	for _, f := range answer.Refused {
		refs[f.Ref] = true
	}
	records := 0
	for _, unit := range units {
		for i := range unit {
			records++
			if refs[unit[i].Ref] {
				refused++
			}
		}
	}
	if len(answer.Refused) > 0 {
		first := answer.Refused[0]
		r.log.Warn("a peer refuses records; the rest was taken", "peer", to.NodeID,
			"refused", refused, "of", records, "first", first.Ref.String(), "reason", first.Reason)
	}
	r.pushedRecords.Add(uint64(records - refused))
	r.acks.delivered(to.UUID, units, refs)
	return refused, nil
}
