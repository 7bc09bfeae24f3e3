package server

import (
	"errors"
	"net/http"
	"strconv"

	"kvs/auth"
	"kvs/storage"
	"kvs/types"
)

// put answers PUT and POST of a key.
func (a *api) put(w http.ResponseWriter, r *request) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	if err := r.mayKey(auth.ScopeWrite, key); err != nil {
		return err
	}
	p, err := parseParams(r, "ttl", "w", "timeout", "metadata", "restore")
	if err != nil {
		return err
	}
	if metadata, err := p.flag("metadata"); err != nil {
		return err
	} else if metadata {
		return a.putMetadata(w, r, key, p)
	}
	if p.has("restore") {
		return a.restore(w, r, key, p)
	}
	terms, err := a.terms(r, p)
	if err != nil {
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
		Guard:       terms.guard(false),
		By:          r.actor(),
	}
	op.Guard = a.permit(r, &op)
	res, err := a.carryOut(r, op, terms)
	if err != nil {
		return err
	}
	return a.written(w, r, terms.acks, res)
}

// terms are what a single write comes with beside its value.
type terms struct {
	acks
	conditions
}

// terms reads them, and refuses where this node takes no writes.
func (a *api) terms(r *request, p params) (t terms, err error) {
	if t.acks, err = a.parseAcks(p); err != nil {
		return t, err
	}
	if t.conditions, err = parseConditions(r.Header); err != nil {
		return t, err
	}
	return t, a.writable()
}

// carryOut does a single write, whose guard has everything in it.
func (a *api) carryOut(r *request, op storage.Op, t terms) (storage.Result, error) {
	if err := a.prepare(r, &op, t.any()); err != nil {
		return storage.Result{}, err
	}
	return a.write(r.Context(), op)
}

// written answers a write, once enough nodes have it.
func (a *api) written(w http.ResponseWriter, r *request, acks acks, res storage.Result) error {
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
func (a *api) delete(w http.ResponseWriter, r *request) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	if err := r.mayKey(auth.ScopeWrite, key); err != nil {
		return err
	}
	p, err := parseParams(r, "w", "timeout")
	if err != nil {
		return err
	}
	terms, err := a.terms(r, p)
	if err != nil {
		return err
	}
	op := storage.Op{
		Kind:  storage.OpDelete,
		Ref:   types.DataRef(key),
		Guard: terms.guard(true),
		By:    r.actor(),
	}
	op.Guard = a.permit(r, &op)
	res, err := a.carryOut(r, op, terms)
	if err != nil {
		return err
	}
	if _, err := a.await(r.Context(), terms.acks, res); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// prepare heals the record that an operation depends on where it is damaged:
// the committer would refuse it. What nobody can heal may be overwritten,
// unless that would pass by a condition or a permission.
func (a *api) prepare(r *request, op *storage.Op, conditional bool) error {
	free := op.Kind == storage.OpPut && !conditional && r.who.AdminOf(op.Ref.Key)
	op.OverDamaged = free
	if op.Kind == storage.OpPut && op.Guard == nil {
		return nil
	}
	_, err := a.read(r.Context(), op.Ref)
	if errors.Is(err, types.ErrNotFound) || free && errors.Is(err, types.ErrCorrupt) {
		return nil // the committer's business
	}
	return err
}
