package replication

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"kvs/cluster/replication/wire"
	"kvs/cluster/rpc"
	"kvs/types"
)

// maxStreams bounds the pages that are put together at once: each walks the
// store. Other requests for one wait.
const maxStreams = 2

// Handlers gives what is served to other nodes, by path. It does not check who
// calls: wrap it with the check of node tokens.
func (r *Replicator) Handlers() map[string]http.Handler {
	handlers := map[string]http.Handler{}
	for path, serve := range map[string]func(context.Context, []byte) ([]byte, error){
		pathPush:     r.servePush,
		pathRoot:     r.serveRoot,
		pathNodes:    r.serveNodes,
		pathBuckets:  r.serveBuckets,
		pathExchange: r.serveExchange,
		pathFetch:    r.serveFetch,
		pathStream:   r.serveStream,
	} {
		handlers[path] = rpc.Handler(r.o.MaxBody, r.log, func(ctx context.Context, body []byte) ([]byte, error) {
			answer, err := serve(ctx, body)
			var horizon *wire.HorizonError
			switch {
			case errors.As(err, &horizon):
				return wire.AppendHorizon(nil, r.header()), nil
			case errors.Is(err, wire.ErrMalformed):
				return nil, &rpc.Error{Status: http.StatusBadRequest, Code: "invalid_body", Detail: err.Error()}
			}
			return answer, err
		})
	}
	return handlers
}

// accept judges a decoded request.
func (r *Replicator) accept(h wire.Header, err error) error {
	if err != nil {
		return err
	}
	if h.Sender == r.o.Self {
		return &rpc.Error{Status: http.StatusConflict, Code: "same_node", Detail: "the body was sent by this node itself, or by a copy of its data directory"}
	}
	if err := r.o.Admit(h.Sender); err != nil {
		return &rpc.Error{Status: http.StatusForbidden, Code: "not_admitted", Detail: err.Error()}
	}
	if own := r.store.Horizon(); h.Horizon < own {
		// Among the body's records may be some that this node has forgotten.
		return &wire.HorizonError{Horizon: own}
	}
	return nil
}

func (r *Replicator) servePush(ctx context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodePush(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	h := r.header()
	refusals, err := r.store.Merge(ctx, m.Units)
	if err != nil {
		return nil, fmt.Errorf("merge records of %s: %w", m.Sender, err)
	}
	n := 0
	for _, unit := range m.Units {
		n += len(unit)
	}
	r.receivedRecords.Add(uint64(n - min(n, len(refusals))))
	answer := wire.PushAnswer{Header: h}
	for _, f := range refusals {
		answer.Refused = append(answer.Refused, wire.Refused{Ref: f.Ref, Reason: f.Err.Error()})
	}
	r.logRefusals(m.Sender.String(), answer.Refused)
	return answer.Append(nil), nil
}

// apply merges records that a peer sent on request, and gives how many were
// refused.
func (r *Replicator) apply(ctx context.Context, from Peer, units [][]types.Record) (refused int, err error) {
	if len(units) == 0 {
		return 0, nil
	}
	refusals, err := r.store.Merge(ctx, units)
	if err != nil {
		return 0, fmt.Errorf("merge records of %s: %w", from.NodeID, err)
	}
	list := make([]wire.Refused, 0, len(refusals))
	for _, f := range refusals {
		list = append(list, wire.Refused{Ref: f.Ref, Reason: f.Err.Error()})
	}
	r.logRefusals(from.NodeID, list)
	return min(len(list), len(units)), nil
}

// logRefusals writes one line, however many there are.
func (r *Replicator) logRefusals(from string, refused []wire.Refused) {
	if len(refused) > 0 {
		r.log.Warn("records of a peer are refused; the rest was taken", "peer", from,
			"refused", len(refused), "first", refused[0].Ref.String(), "reason", refused[0].Reason)
	}
}

func (r *Replicator) serveRoot(_ context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodeRoot(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	if p := r.peer(m.Sender); p != nil {
		p.sawRoot(m.Digest)
	}
	data, err := r.HasData()
	if err != nil {
		return nil, err
	}
	// The clock is read before the tree: it bounds what the tree may lack.
	answer := wire.RootAnswer{
		Header: r.header(), Data: data, Syncing: r.syncing.Load(), Clock: r.store.Now().UnixMilli(),
	}
	tree := r.store.Tree()
	answer.Digest, answer.Count = tree.Root()
	if answer.Equal = answer.Digest == m.Digest && answer.Count == m.Count; !answer.Equal {
		answer.Children = wire.SaltedChildren(tree, m.Salt, 0, 0)
	}
	return answer.Append(nil), nil
}

func (r *Replicator) serveNodes(_ context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodeNodes(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	answer := wire.NodesAnswer{Header: r.header(), Children: make([]wire.Children, 0, len(m.Indexes))}
	tree := r.store.Tree()
	for _, i := range m.Indexes {
		answer.Children = append(answer.Children, wire.SaltedChildren(tree, m.Salt, m.Level, i))
	}
	return answer.Append(nil), nil
}

// serveEntries is how many entries a listing has at most, but for those of one
// hash, which stay together.
const serveEntries = 4 * listEntries

func (r *Replicator) serveBuckets(ctx context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodeBuckets(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	answer := wire.BucketsAnswer{Header: r.header()}
	for _, bucket := range m.Buckets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, e := range r.store.Bucket(bucket) {
			if e.Hash < m.From {
				continue
			}
			if n := len(answer.Entries); n >= serveEntries && answer.Entries[n-1].Hash != e.Hash {
				answer.Next = e.Hash
				return answer.Append(nil, m.Buckets), nil
			}
			answer.Entries = append(answer.Entries, wire.Entry{Hash: e.Hash, Digest: wire.Salted(m.Salt, e.Digest.Bytes())})
		}
	}
	return answer.Append(nil, m.Buckets), nil
}

func (r *Replicator) serveExchange(ctx context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodeExchange(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	answer := wire.ExchangeAnswer{Header: r.header()}
	size := 0
	for answer.Handled < len(m.Items) && size < maxBatch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		first := answer.Handled
		hash := m.Items[first].Hash
		for answer.Handled < len(m.Items) && m.Items[answer.Handled].Hash == hash {
			answer.Handled++
		}
		mine := r.store.ByHash(hash)
		give, want := decide(m.Items[first:answer.Handled], itemsOf(hash, mine, m.Salt))
		if give {
			answer.Records = append(answer.Records, mine...)
			size += wire.Size(mine)
		}
		if want {
			answer.Wants = append(answer.Wants, uint32(first))
		}
	}
	return answer.Append(nil), nil
}

// decide says who sends what it holds under one hash: give the one that answers,
// want the one that asks. One record on each side: the newer one goes over, and
// both do where the times are equal. Keys that share a hash cannot be told
// apart here: then both sides send all.
func decide(theirs, mine []wire.Item) (give, want bool) {
	theirsNone, mineNone := theirs[0].Timestamp == 0, mine[0].Timestamp == 0
	switch {
	case theirsNone || mineNone:
		return !mineNone, !theirsNone
	case len(theirs) == 1 && len(mine) == 1:
		if theirs[0].Digest == mine[0].Digest {
			return false, false
		}
		return mine[0].Timestamp >= theirs[0].Timestamp, theirs[0].Timestamp >= mine[0].Timestamp
	}
	same := sameDigests(entriesOf(theirs), entriesOf(mine))
	return !same, !same
}

func entriesOf(items []wire.Item) (entries []wire.Entry) {
	for _, it := range items {
		entries = append(entries, wire.Entry{Hash: it.Hash, Digest: it.Digest})
	}
	return entries
}

func (r *Replicator) serveFetch(_ context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodeFetch(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	answer := wire.FetchAnswer{Header: r.header()}
	for _, ref := range m.Refs {
		// Absent or unreadable here: another node may have it.
		if rec, err := r.store.Lookup(ref); err == nil {
			answer.Records = append(answer.Records, rec)
		}
	}
	return answer.Append(nil), nil
}

func (r *Replicator) serveStream(ctx context.Context, body []byte) ([]byte, error) {
	m, err := wire.DecodeStream(body)
	if err := r.accept(m.Header, err); err != nil {
		return nil, err
	}
	select {
	case r.streams <- struct{}{}:
		defer func() { <-r.streams }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer := wire.StreamAnswer{Header: r.header(), Done: true, Next: m.After}
	size, limit := 0, max(minBatch, min(m.Size, maxBatch))
	seen, start := 0, time.Now()
	err = r.store.Walk(ctx, m.After, func(rec *types.Record) bool {
		if seen++; size >= limit || seen%1024 == 0 && time.Since(start) > scanTime {
			answer.Done = false
			return false
		}
		answer.Next = rec.Ref
		if rec.Timestamp >= m.From && rec.Timestamp < m.To {
			answer.Records = append(answer.Records, *rec)
			size += wire.Size(answer.Records[len(answer.Records)-1:])
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("walk the records after %s: %w", m.After, err)
	}
	return answer.Append(slices.Grow([]byte(nil), size+256)), nil
}

// HasData reports whether the node holds records other than those about the
// cluster itself.
func (r *Replicator) HasData() (has bool, err error) {
	// The cluster namespace sorts last: the first record tells.
	err = r.store.Walk(context.Background(), types.Ref{}, func(rec *types.Record) bool {
		has = rec.NS != types.NSCluster
		return false
	})
	if err != nil {
		return false, fmt.Errorf("look for data: %w", err)
	}
	return has, nil
}

func (r *Replicator) peer(id types.NodeID) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[id]
}
