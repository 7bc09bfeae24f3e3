package server

import (
	"context"
	"errors"
	"net/http"

	"kvs/auth"
	"kvs/storage"
	"kvs/types"
)

// batch answers POST /kv/_batch.
func (a *api) batch(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	body, err := a.readBody(w, r, maxBatchBody, batchTooLarge)
	if err != nil {
		return err
	}
	ops, atomic, err := a.parseBatch(body)
	if err != nil {
		return err
	}
	a.permitAll(r, ops)
	writes := false
	for i := range ops {
		writes = writes || ops[i].err == nil && ops[i].op.Kind != storage.OpGet
	}
	switch {
	case writes:
		if err := a.writable(); err != nil {
			return err
		}
	case a.peers.Mode() == types.ModeSyncing:
		return a.forward.send(w, r.Request, body, a.peers)
	}
	results, err := a.runBatch(r, ops, atomic, writes)
	if errors.Is(err, types.ErrTooLarge) {
		return batchTooLarge.refuse("%s", err)
	}
	if err != nil {
		return err
	}
	for i := range results {
		if results[i].Err = r.conceal(results[i].Err); results[i].Err != nil {
			a.noteAt(r, string(ops[i].op.Ref.Key), results[i].Err)
		}
	}
	r.noted = true
	if first := firstFailure(results); atomic && first != nil {
		failed := *first
		failed.members = appendResults(append(failed.members, ','), ops, results)
		return &failed
	}
	writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, '{')
		b = appendResults(b, ops, results)
		return append(b, "}\n"...)
	})
	return nil
}

// runBatch carries the operations out. Those that are wrong by themselves never
// reach the store; in an atomic batch they keep the others from it.
func (a *api) runBatch(r *request, ops []batchOp, atomic, writes bool) ([]storage.Result, error) {
	results := make([]storage.Result, len(ops))
	todo := make([]storage.Op, 0, len(ops))
	index := make([]int, 0, len(ops)) // of todo in ops
	for i := range ops {
		if results[i].Err = ops[i].err; ops[i].err == nil {
			todo, index = append(todo, ops[i].op), append(index, i)
		}
	}
	switch {
	case atomic && len(todo) < len(ops):
		for _, i := range index {
			results[i].Err = storage.ErrAborted
		}
		return results, nil
	case !writes && !atomic:
		// Reads alone need no commit, and no disk with room.
		for k, i := range index {
			results[i] = a.readOp(r.Context(), &todo[k])
		}
		return results, nil
	case len(todo) == 0:
		return results, nil
	}
	for k, i := range index {
		// What stays damaged fails by itself, in the committer.
		if err := a.prepare(r, &todo[k], ops[i].conditional); err != nil && !errors.Is(err, types.ErrCorrupt) {
			return nil, err
		}
	}
	done, err := a.store.Write(r.Context(), todo, atomic)
	if err != nil {
		return nil, err
	}
	for k, i := range index {
		results[i] = done[k]
	}
	return results, nil
}

// readOp is a get outside of a commit.
func (a *api) readOp(ctx context.Context, op *storage.Op) storage.Result {
	rec, err := a.read(ctx, op.Ref)
	if err == nil && op.Guard != nil {
		err = op.Guard(&storage.View{Current: &rec, Meta: rec.Meta})
	}
	return storage.Result{Record: rec, Err: err}
}

// permitAll refuses the operations on keys that no scope covers, and makes the
// committer ask for the rest.
func (a *api) permitAll(r *request, ops []batchOp) {
	by := r.actor()
	for i := range ops {
		o := &ops[i]
		if o.err != nil {
			continue
		}
		scope := auth.ScopeWrite
		if o.op.Kind == storage.OpGet {
			scope = auth.ScopeRead
		}
		if o.err = r.mayKey(scope, o.op.Ref.Key); o.err != nil {
			continue
		}
		o.conditional = o.op.Guard != nil
		o.op.Guard, o.op.By = a.permit(r, &o.op), by
	}
}

// firstFailure is what an atomic batch failed of: the first operation that is
// to blame, not one that was only given up with it.
func firstFailure(results []storage.Result) *refusal {
	for i := range results {
		if err := results[i].Err; err != nil && !errors.Is(err, storage.ErrAborted) {
			return refusalOf(err)
		}
	}
	return nil
}

func appendResults(b []byte, ops []batchOp, results []storage.Result) []byte {
	b = append(b, `"results":[`...)
	for i := range results {
		b = append(b, '{')
		b = appendResult(b, ops[i].op.Kind, &results[i])
		b = append(b, "},"...)
	}
	return closeList(b)
}

// appendResult writes the status of the same single call, and what its answer
// would have said.
func appendResult(b []byte, kind storage.OpKind, res *storage.Result) []byte {
	switch {
	case errors.Is(res.Err, storage.ErrAborted):
		return appendRefusal(b, batchAborted.refuse("nothing was done"))
	case res.Err != nil:
		return appendRefusal(b, refusalOf(res.Err))
	case kind == storage.OpDelete:
		return append(b, `"status":204`...)
	case kind == storage.OpGet:
		b = append(b, `"status":200,`...)
		return appendRecord(b, &res.Record, true)
	case res.Created:
		b = append(b, `"status":201,`...)
	default:
		b = append(b, `"status":200,`...)
	}
	return appendVersion(b, &res.Record.Version)
}
