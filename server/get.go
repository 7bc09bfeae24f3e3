package server

import (
	"net/http"
	"strings"

	"kvs/auth"
	"kvs/types"
)

// get answers GET and HEAD of a key. It is the hot path: without parameters and
// preconditions it does no more than read the record and append the answer.
func (a *api) get(w http.ResponseWriter, r *request) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	if err := r.mayKey(auth.ScopeRead, key); err != nil {
		return err
	}
	p, err := parseParams(r, "raw", "revisions", "metadata", "revision", "at")
	if err != nil {
		return err
	}
	if other, err := a.aspect(p); err != nil {
		return err
	} else if other != nil {
		return other(w, r, key)
	}
	raw, err := p.flag("raw")
	if err != nil {
		return err
	}
	cond, err := parseConditions(r.Header)
	if err != nil {
		return err
	}
	var rec types.Record
	if p.has("revision") || p.has("at") {
		rec, err = a.past(r, key, p)
	} else if rec, err = a.read(r.Context(), types.DataRef(key)); err == nil {
		err = r.mayRead(&rec)
	}
	if err != nil {
		return err
	}
	if cond.match != nil && !cond.match.strong(rec.UUID) {
		return preconditionFail.refuse("If-Match: the current version is %s", rec.UUID)
	}
	w.Header()["Etag"] = etagOf(rec.UUID)
	if cond.noneMatch != nil && cond.noneMatch.weak(rec.UUID) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if raw {
		sendRaw(w, &rec)
		return nil
	}
	writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, '{')
		b = appendRecord(b, &rec, true)
		return append(b, '}', '\n')
	})
	return nil
}

// aspect gives what answers for a key instead of its value, if that is asked
// for.
func (a *api) aspect(p params) (func(http.ResponseWriter, *request, types.Key) error, error) {
	var asked []string
	for _, name := range []string{"raw", "revisions", "metadata"} {
		if on, err := p.flag(name); err != nil {
			return nil, err
		} else if on {
			asked = append(asked, name)
		}
	}
	switch {
	case len(asked) > 1:
		return nil, invalidParameter.refuse("parameters %s ask for different answers", strings.Join(asked, " and "))
	case len(asked) == 1 && asked[0] == "revisions":
		return a.revisions, nil
	case len(asked) == 1 && asked[0] == "metadata":
		return a.metadata, nil
	}
	return nil, nil
}

// sendRaw answers with the value itself. What somebody stored must not run as a
// page of this origin, whatever its content type says.
func sendRaw(w http.ResponseWriter, rec *types.Record) {
	h := w.Header()
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Content-Security-Policy"] = []string{"default-src 'none'; sandbox"}
	send(w, http.StatusOK, []string{contentType(rec)}, rec.Value)
}

// etagOf is the ETag header of a version.
func etagOf(id types.VersionID) []string {
	b := make([]byte, 0, 38)
	b = append(b, '"')
	b = appendUUID(b, id)
	b = append(b, '"')
	return []string{string(b)}
}
