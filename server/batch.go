package server

import (
	"context"
	"errors"
	"net/http"

	"kvs/storage"
	"kvs/types"
)

// batch answers POST /kv/_batch.
func (a *api) batch(w http.ResponseWriter, r *http.Request) error {
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
		return a.forward.send(w, r, body, a.peers)
	}
	results, err := a.runBatch(r.Context(), ops, atomic, writes)
	if errors.Is(err, types.ErrTooLarge) {
		return batchTooLarge.refuse("%s", err)
	}
	if err != nil {
		return err
	}
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
func (a *api) runBatch(ctx context.Context, ops []batchOp, atomic, writes bool) ([]storage.Result, error) {
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
			results[i] = a.readOp(ctx, &todo[k])
		}
		return results, nil
	case len(todo) == 0:
		return results, nil
	}
	if err := a.healAll(ctx, todo); err != nil {
		return nil, err
	}
	done, err := a.store.Write(ctx, todo, atomic)
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
		err = op.Guard(&rec)
	}
	return storage.Result{Record: rec, Err: err}
}

// healAll heals damaged records before operations whose outcome depends on what
// is there; see readable.
func (a *api) healAll(ctx context.Context, ops []storage.Op) error {
	for i := range ops {
		if ops[i].Kind == storage.OpPut && ops[i].Guard == nil {
			continue
		}
		if _, err := a.read(ctx, ops[i].Ref); err != nil && !errors.Is(err, types.ErrNotFound) && !errors.Is(err, types.ErrCorrupt) {
			return err
		}
	}
	return nil
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
