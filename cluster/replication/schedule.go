package replication

import (
	"context"
	"math/rand/v2"
	"time"
)

// syncLoop compares this node with one peer: at once when the peer appears, when
// any peer is lost, or when either side has been filled; within SyncInterval
// always; and sooner while the two are known to differ.
func (r *Replicator) syncLoop(ctx context.Context, p *peer) {
	var c *comparison // under way, its last round was cut off
	var pace pacer
	timer := time.NewTimer(0) // the peer has just appeared
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.kick:
		}
		info, _ := p.info()
		if r.syncing.Load() || !comparable(info) {
			c = nil // a kick comes when that changes
			continue
		}
		if c == nil || c.to != info {
			c = r.newComparison(info)
		}
		out, err := c.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil && out.completed {
			err = r.keepMarks(ctx, p, c.marks())
		}
		next := pace.next(&r.o, out, err)
		switch {
		case err != nil:
			r.syncFailures.Add(1)
			level := r.log.Debug
			if pace.failures == 1 {
				level = r.log.Warn
			}
			level("comparing with a peer failed; it is tried again", "peer", info.NodeID, "in", next, "error", err)
		case out.moved > 0 || c.refused > 0:
			r.log.Info("compared with a peer", "peer", info.NodeID, "moved", out.moved,
				"refused", c.refused, "continues", out.cut)
		}
		if out.gained > 0 {
			r.compareOthers(p) // they may lack it as this node did
		}
		if !out.cut || err != nil {
			c = nil
		}
		timer.Reset(next)
	}
}

// compareOthers has all peers but one compared with soon. It comes to an end:
// each time somebody has gained a record for good.
func (r *Replicator) compareOthers(but *peer) {
	for _, p := range r.snapshot() {
		if p != but {
			p.compareNow()
		}
	}
}

// pacer decides when a peer is compared with again.
type pacer struct {
	failures int // rounds that failed, in a row
	repairs  int // comparisons that came to their end and moved records, in a row
}

// next gives the pause after a round.
func (p *pacer) next(o *Options, out outcome, err error) time.Duration {
	if err != nil {
		p.failures++
	} else {
		p.failures = 0
	}
	if err == nil && !out.cut && out.moved > 0 {
		p.repairs++
	} else {
		p.repairs = 0
	}
	switch {
	case err != nil:
		return doubling(time.Second, p.failures, o.CatchupInterval)
	case out.cut:
		return o.ThrottleDelay
	case out.moved > 0:
		// A repair may have brought up conflicts, which are records too. Later each
		// time: two nodes that never agree must not do only this.
		return max(o.ThrottleDelay, doubling(o.RecheckDelay, p.repairs, o.CatchupInterval))
	case out.completed:
		// Spread out, so that members do not compare all at the same time.
		return o.SyncInterval - rand.N(o.SyncInterval/4+1)
	}
	return o.CatchupInterval
}

// doubling gives first, 2*first, 4*first and so on, at most limit.
func doubling(first time.Duration, n int, limit time.Duration) time.Duration {
	d := first
	for ; n > 1 && d < limit; n-- {
		d *= 2
	}
	return min(d, limit)
}
