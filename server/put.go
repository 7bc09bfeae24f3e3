package server

import (
	"errors"
	"net/http"
	"strconv"

	"kvs/storage"
	"kvs/types"
)

// put answers PUT and POST of a key.
func (a *api) put(w http.ResponseWriter, r *http.Request) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	p, err := parseParams(r, "ttl", "w", "timeout")
	if err != nil {
		return err
	}
	acks, err := a.parseAcks(p)
	if err != nil {
		return err
	}
	cond, err := parseConditions(r.Header)
	if err != nil {
		return err
	}
	if err := a.writable(); err != nil {
		return err
	}
	v, err := a.readValue(w, r, p)
	if err != nil {
		return err
	}
	op := storage.Op{
		Kind:        storage.OpPut,
		Ref:         types.DataRef(key),
		Value:       v.data,
		Raw:         v.raw,
		ContentType: v.contentType,
		TTL:         v.ttl,
		Guard:       cond.guard(false),
	}
	if op.Guard != nil {
		if err := a.readable(r, op.Ref); err != nil {
			return err
		}
	}
	res, err := a.write(r.Context(), op)
	if err != nil {
		return err
	}
	replicas, err := a.await(r.Context(), acks, res)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if res.Created {
		status = http.StatusCreated
	}
	w.Header()["Etag"] = etagOf(res.Record.UUID)
	writeJSON(w, status, func(b []byte) []byte {
		b = append(b, '{')
		b = appendVersion(b, &res.Record.Version)
		if acks.asked {
			b = append(b, `,"replicas":`...)
			b = strconv.AppendInt(b, int64(replicas), 10)
		}
		return append(b, '}', '\n')
	})
	return nil
}

// delete answers DELETE of a key.
func (a *api) delete(w http.ResponseWriter, r *http.Request) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	p, err := parseParams(r, "w", "timeout")
	if err != nil {
		return err
	}
	acks, err := a.parseAcks(p)
	if err != nil {
		return err
	}
	cond, err := parseConditions(r.Header)
	if err != nil {
		return err
	}
	if err := a.writable(); err != nil {
		return err
	}
	ref := types.DataRef(key)
	if err := a.readable(r, ref); err != nil {
		return err
	}
	res, err := a.write(r.Context(), storage.Op{Kind: storage.OpDelete, Ref: ref, Guard: cond.guard(true)})
	if err != nil {
		return err
	}
	if _, err := a.await(r.Context(), acks, res); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readable heals the record of ref where it is damaged, before a write whose
// outcome depends on what is there: the committer takes a damaged record for an
// absent one.
func (a *api) readable(r *http.Request, ref types.Ref) error {
	_, err := a.read(r.Context(), ref)
	if errors.Is(err, types.ErrNotFound) {
		return nil // the committer's business
	}
	return err
}
