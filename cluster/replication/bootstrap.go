package replication

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"kvs/cluster/replication/wire"
	"kvs/types"
	"kvs/utils/backoff"
)

const (
	pathStream = "/sync/stream"

	pageBytes = maxBatch / 2 // of one page of the stream
	pagesHeld = 1            // fetched ahead of what is being applied

	// joiningTimeout bounds the wait for the first contact, and sourceTimeout that
	// for a member to be filled from, before the node serves what it has: a store
	// that is up and says "not found" is worth more than one that waits for a
	// member that may never return.
	joiningTimeout = 10 * time.Second
	sourceTimeout  = 30 * time.Second

	// foreignEnough is how many records of others an empty node may already have
	// been pushed before it is not called empty any more.
	foreignEnough = 10_000
)

var errNoSource = errors.New("no live member can be streamed from")

// mayBootstrap reports whether the node is one to be filled: it was being filled
// when it stopped; or it started empty, and still holds nothing that it was asked
// to store itself. (Others' pushes may arrive before the first look at them.)
func (r *Replicator) mayBootstrap() (bool, error) {
	if !r.empty {
		return false, nil
	}
	if _, unfinished := read(r, metaBootstrap, decodeProgress); unfinished {
		return true, nil
	}
	own, seen := false, 0
	err := r.store.Walk(context.Background(), types.Ref{}, func(rec *types.Record) bool {
		if rec.NS == types.NSCluster { // sorts last
			return false
		}
		seen++
		own = rec.Origin == r.o.Self || seen > foreignEnough
		return !own
	})
	if err != nil {
		return false, fmt.Errorf("look for data: %w", err)
	}
	return !own, nil
}

// bootstrapLoop fills an empty node from a member that has data, as soon as
// there is one, and returns once that is settled: the node was filled, or took
// data of its own.
func (r *Replicator) bootstrapLoop(ctx context.Context) {
	if r.o.Joining != nil && r.syncing.Load() {
		timer := time.NewTimer(joiningTimeout)
		select {
		case <-r.o.Joining:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	// Members that were seen to have no data. If they get some, it is new, and
	// pushed to this node as to all others.
	without := map[types.NodeID]bool{}
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	for start := time.Now(); ctx.Err() == nil; {
		changed := r.o.PeersChanged()
		may, err := r.mayBootstrap()
		if err == nil && !may {
			r.setSyncing(false)
			return
		}
		found, again := false, err != nil
		if err != nil {
			r.log.Error("whether this node is empty cannot be told", "error", err)
		} else {
			found, again = r.look(ctx, without)
		}
		if found {
			r.fill(ctx)
			return
		}
		if !again {
			r.setSyncing(false) // nobody, or nobody with data: serve
			pause.Reset()
			wait(ctx, changed, nil, nil)
			continue
		}
		// A member does not answer, or is itself being filled: ask again, but do not
		// keep this node from serving for ever.
		if time.Since(start) > sourceTimeout {
			r.setSyncing(false)
		}
		timer := time.NewTimer(pause.Next())
		wait(ctx, changed, timer.C, nil)
		timer.Stop()
	}
}

// look asks the live members for data. found: one has some; again: one could not
// tell.
func (r *Replicator) look(ctx context.Context, without map[types.NodeID]bool) (found, again bool) {
	_, unfinished := read(r, metaBootstrap, decodeProgress)
	for _, p := range r.candidates() {
		if without[p.UUID] && !unfinished {
			continue
		}
		root, err := r.newComparison(p).root(ctx)
		switch {
		case err != nil:
			r.log.Debug("a member does not say whether it has data", "peer", p.NodeID, "error", err)
			again = true
		case root.Data && root.Syncing:
			again = true
		case root.Data:
			return true, false
		case !root.Syncing:
			without[p.UUID] = true
		}
	}
	return false, again
}

// candidates gives the live peers; those that serve before those being filled.
func (r *Replicator) candidates() []Peer {
	var first, last []Peer
	for _, info := range r.o.Peers() {
		switch {
		case comparable(info):
			first = append(first, info)
		case info.Alive:
			last = append(last, info)
		}
	}
	return append(first, last...)
}

// fill streams everything from members until a comparison has come to its end.
// It goes on where it stopped, on any member, also after a restart.
func (r *Replicator) fill(ctx context.Context) {
	state, resumed := read(r, metaBootstrap, decodeProgress)
	if !resumed {
		state = progress{Started: r.store.Now().UnixMilli()}
	}
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	sourceSeen := time.Now()
	for try := 0; ctx.Err() == nil; try++ {
		changed := r.o.PeersChanged()
		source, total, err := r.source(ctx, try)
		if err == nil {
			sourceSeen = time.Now()
			r.setSyncing(true)
			r.total.Store(total)
			r.log.Info("this node is being filled", "from", source.NodeID, "records", total, "band", state.Band+1, "of", len(r.bands(state)))
			start := time.Now()
			// Stored before the first record: a crash must not leave a node that is half
			// filled and believes to be whole.
			if err = r.keepProgress(ctx, state); err == nil {
				err = r.stream(ctx, source, &state)
			}
			if err == nil {
				err = r.finish(ctx, source)
			}
			if err == nil {
				break
			}
			if time.Since(start) > sourceTimeout {
				pause.Reset()
			}
		}
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("filling this node pauses", "error", err)
		if time.Since(sourceSeen) > sourceTimeout {
			if r.syncing.Load() {
				r.log.Warn("no member to be filled from; serving what there is, and going on once one appears")
			}
			r.setSyncing(false)
		}
		timer := time.NewTimer(pause.Next())
		wait(ctx, changed, timer.C, nil)
		timer.Stop()
	}
	if ctx.Err() != nil {
		return
	}
	// An empty value is an absent one. If storing it fails, the next start
	// compares once more.
	if err := r.store.PutMeta(ctx, map[string][]byte{metaBootstrap: {}}); err != nil {
		r.log.Warn("the end of the filling was not stored", "error", err)
	}
	r.log.Info("this node is filled", "records", r.done.Load())
	r.setSyncing(false)
}

// source picks a member to stream from, another one at each try.
func (r *Replicator) source(ctx context.Context, try int) (p Peer, total uint64, err error) {
	candidates := r.candidates()
	err = errNoSource
	for i := range candidates {
		p := candidates[(i+try)%len(candidates)]
		root, failed := r.newComparison(p).root(ctx)
		switch {
		case failed != nil:
			err = failed
		case !root.Syncing && root.Data:
			return p, root.Count, nil
		}
	}
	return Peer{}, 0, err
}

// finish compares with the source until a comparison has gone through all. What
// one side refuses or cannot read does not keep the node from serving: it is
// named in the log, and the later comparisons go on about it.
func (r *Replicator) finish(ctx context.Context, source Peer) error {
	c := r.newComparison(source)
	for {
		out, err := c.round(ctx)
		switch {
		case err != nil:
			return err
		case out.syncing:
			return errNoSource
		case out.completed:
			if p := r.peer(source.UUID); p != nil {
				return r.keepMarks(ctx, p, c.marks())
			}
			return nil
		case !out.cut:
			r.log.Warn("this node is filled but for records that could not be taken", "from", source.NodeID, "refused", c.refused)
			return nil
		}
		r.done.Add(uint64(out.moved))
	}
}

// band is a range of timestamps: From <= t < To.
type band struct{ From, To types.Timestamp }

// bands gives the age bands of a bootstrap, the newest first. The first also has
// what is dated after its start, the last is open: nothing is left out.
func (r *Replicator) bands(p progress) []band {
	to := types.Timestamp(math.MaxUint64)
	var out []band
	for _, age := range []time.Duration{time.Hour, 24 * time.Hour, r.o.BootstrapMaxAge} {
		from := types.TimestampOf(max(0, p.Started-age.Milliseconds()))
		if from < to {
			out = append(out, band{from, to})
			to = from
		}
	}
	return append(out, band{0, to})
}

// page is a fetched part of the stream.
type page struct {
	records []types.Record
	after   progress // the position once the page is durable
	err     error    // instead of a page
}

// stream brings all bands from one member, from state on, which moves along with
// what is durable. Fetching goes on while pages are applied.
func (r *Replicator) stream(ctx context.Context, from Peer, state *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan page, pagesHeld)
	fetched := make(chan struct{})
	defer func() { cancel(); <-fetched }()
	go func() {
		defer close(fetched)
		defer close(pages)
		r.fetchPages(ctx, from, *state, pages)
	}()
	last := time.Now()
	for p := range pages {
		if p.err != nil {
			return p.err
		}
		if _, err := r.apply(ctx, from, singles(p.records)); err != nil {
			return err
		}
		r.done.Add(uint64(len(p.records)))
		*state = p.after
		// The position follows the records at a distance: a crash repeats a second.
		if time.Since(last) > persistEvery {
			last = time.Now()
			if err := r.keepProgress(ctx, *state); err != nil {
				return err
			}
			r.log.Info("this node is being filled", "from", from.NodeID, "done", r.done.Load(), "of", r.total.Load())
		}
	}
	return ctx.Err()
}

// fetchPages sends the pages from position at on, in order.
func (r *Replicator) fetchPages(ctx context.Context, from Peer, at progress, pages chan<- page) {
	bands := r.bands(at)
	for at.Band < len(bands) {
		b := bands[at.Band]
		req := wire.Stream{Header: r.header(), From: b.From, To: b.To, After: at.After, Size: pageBytes}
		answer, err := r.fetchPage(ctx, from, &req)
		if err == nil {
			at.After = answer.Next
			if answer.Done {
				at.Band, at.After = at.Band+1, types.Ref{}
			}
		}
		select {
		case pages <- page{answer.Records, at, err}:
		case <-ctx.Done():
			return
		}
		if err != nil || !backoff.Sleep(ctx, r.o.FetchDelay) {
			return
		}
	}
}

func (r *Replicator) fetchPage(ctx context.Context, from Peer, req *wire.Stream) (wire.StreamAnswer, error) {
	raw, err := r.call(ctx, from, pathStream, req.Append(nil))
	if err != nil {
		return wire.StreamAnswer{}, err
	}
	answer, err := wire.DecodeStreamAnswer(raw)
	if err := r.answered(from, answer.Header, err); err != nil {
		return wire.StreamAnswer{}, err
	}
	if !answer.Done && !before(req.After, answer.Next) {
		return wire.StreamAnswer{}, fmt.Errorf("answer of %s: %w: the stream does not move on from %s", from.NodeID, wire.ErrMalformed, req.After)
	}
	return answer, nil
}

// before is the order of refs in the store.
func before(a, b types.Ref) bool { return a.NS < b.NS || a.NS == b.NS && a.Key < b.Key }

func (r *Replicator) keepProgress(ctx context.Context, p progress) error {
	if err := r.store.PutMeta(ctx, map[string][]byte{metaBootstrap: p.encode()}); err != nil {
		return fmt.Errorf("store the position of the filling: %w", err)
	}
	return nil
}
