package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kvs/cluster/replication/wire"
	"kvs/types"
)

const pathFetch = "/sync/fetch"

// healTimeout bounds the asking: a client may be waiting for the record.
const healTimeout = 3 * time.Second

// Heal replaces a record that the store cannot read by the best copy that any
// live peer has. It reports false where no peer has one; the error is the
// store's, or that of the peers if none could be asked.
func (r *Replicator) Heal(ctx context.Context, ref types.Ref) (types.Record, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	peers := r.alive()
	found := make([][]types.Record, len(peers))
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() { found[i], errs[i] = r.fetch(ctx, p, ref) })
	}
	wg.Wait()

	var best types.Record
	ok, failed := false, 0
	for i := range peers {
		if errs[i] != nil {
			failed++
		}
		for _, rec := range found[i] {
			if !ok {
				best, ok = rec, true
			} else {
				best = types.Merge(best, rec).Winner
			}
		}
	}
	if !ok {
		if failed == len(peers) && failed > 0 {
			return best, false, fmt.Errorf("heal %s: %w", ref, errors.Join(errs...))
		}
		return best, false, nil
	}
	if err := r.store.Repair(context.WithoutCancel(ctx), best); err != nil {
		return types.Record{}, false, fmt.Errorf("heal %s: %w", ref, err)
	}
	r.log.Info("an unreadable record was replaced by a peer's copy", "ref", ref.String())
	return best, true, nil
}

// fetch asks one peer for one record.
func (r *Replicator) fetch(ctx context.Context, p Peer, ref types.Ref) ([]types.Record, error) {
	raw, err := r.call(ctx, p, pathFetch, (&wire.Fetch{Header: r.header(), Refs: []types.Ref{ref}}).Append(nil))
	if err != nil {
		return nil, err
	}
	answer, err := wire.DecodeFetchAnswer(raw)
	if err := r.answered(p, answer.Header, err); err != nil {
		return nil, err
	}
	for _, rec := range answer.Records {
		if rec.Ref != ref {
			return nil, fmt.Errorf("answer of %s: %w: record %s was not asked for", p.NodeID, wire.ErrMalformed, rec.Ref)
		}
	}
	return answer.Records, nil
}
