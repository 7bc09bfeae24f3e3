package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"kvs/auth"
	"kvs/features/revisions"
	"kvs/storage"
	"kvs/types"
)

// revisions answers GET /kv/{path}?revisions: what this node still knows of a
// key's versions.
func (a *api) revisions(w http.ResponseWriter, r *request, key types.Key) error {
	history, err := a.history(r, key)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, `{"revisions":[`...)
		for i := range history {
			rec := &history[i].Record
			b = append(b, '{')
			b = appendVersion(b, &rec.Version)
			b = append(b, `,"deleted":`...)
			b = fmt.Append(b, rec.Tombstone())
			b = append(b, `,"conflict":`...)
			b = fmt.Append(b, history[i].Conflict)
			b = append(b, `,"origin":"`...)
			b = appendUUID(b, rec.Origin)
			b = append(b, `"},`...)
		}
		b = closeList(b)
		return append(b, "}\n"...)
	})
	return nil
}

// readableHistory leaves out what may not be read: all, if that holds for the
// current version, deleted or not; else each version for itself.
func (a *api) readableHistory(r *request, key types.Key, history []revisions.Entry) ([]revisions.Entry, error) {
	if r.unlimited() {
		return history, nil
	}
	current, err := a.store.Lookup(types.DataRef(key))
	if err == nil {
		err = r.mayRead(&current)
	} else if errors.Is(err, types.ErrNotFound) {
		err = nil // its versions are all that is left
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(history, func(e revisions.Entry) bool {
		return !r.who.May(auth.RightRead, key, &e.Record.Meta)
	}), nil
}

// history gives what this node still knows of a key's versions and the caller
// may know, newest first.
func (a *api) history(r *request, key types.Key) ([]revisions.Entry, error) {
	if a.revisionLimit == 0 {
		return nil, featureDisabled.refuse("no history is kept on this node (revision_history_enabled)")
	}
	list, err := revisions.List(r.Context(), a.store, key, a.revisionLimit)
	if err != nil {
		return nil, err
	}
	if list, err = a.readableHistory(r, key, list); err == nil && len(list) == 0 {
		err = types.ErrNotFound
	}
	return list, err
}

// past gives the version that ?revision or ?at names. One that deleted the key,
// or that has expired, is as absent as the value is.
func (a *api) past(r *request, key types.Key, p params) (types.Record, error) {
	if p.has("revision") && p.has("at") {
		return types.Record{}, invalidParameter.refuse("parameters revision and at ask for different answers")
	}
	list, err := a.history(r, key)
	if err != nil {
		return types.Record{}, err
	}
	var found *types.Record
	if p.has("revision") {
		found, err = versionIn(list, p["revision"])
	} else {
		found, err = versionAt(list, p["at"])
	}
	if err != nil {
		return types.Record{}, err
	}
	if !found.Live(a.store.Now().UnixMilli()) {
		return types.Record{}, types.ErrNotFound
	}
	return *found, nil
}

// versionIn finds a version by its UUID, those that lost a conflict included.
func versionIn(list []revisions.Entry, id string) (*types.Record, error) {
	want, err := types.ParseVersionID(id)
	if err != nil {
		return nil, invalidParameter.refuse("%.80q is not the uuid of a version", id)
	}
	for i := range list {
		if list[i].Record.UUID == want {
			return &list[i].Record, nil
		}
	}
	return nil, revisionNotFound.refuse("this node has no version %s of the key (any longer); ?revisions lists those that it has", want)
}

// versionAt finds the version that was current at a time: RFC 3339, or Unix
// milliseconds. Versions that lost a conflict count as never current.
func versionAt(list []revisions.Entry, at string) (*types.Record, error) {
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		// A plus sign of a time zone that was not escaped arrives as a space.
		t, err := time.Parse(time.RFC3339, strings.Replace(at, " ", "+", 1))
		if err != nil {
			return nil, invalidParameter.refuse(`parameter "at": want a time like 2026-01-31T15:04:05Z, or Unix milliseconds, not %.80q`, at)
		}
		ms = t.UnixMilli()
	}
	for i := range list {
		if !list[i].Conflict && list[i].Record.Timestamp.Millis() <= ms {
			return &list[i].Record, nil
		}
	}
	return nil, revisionNotFound.refuse("this node has no version of the key from that time or before it (any longer); ?revisions lists those that it has")
}

// restore answers POST /kv/{path}?restore=UUID: it writes that version again, as
// an ordinary write.
func (a *api) restore(w http.ResponseWriter, r *request, key types.Key, p params) error {
	if err := r.mayKey(auth.ScopeRead, key); err != nil {
		return err
	}
	ttl, err := p.duration("ttl", a.defaultTTL, 0, maxTTL)
	if err != nil {
		return err
	}
	terms, err := a.terms(r, p)
	if err != nil {
		return err
	}
	if r.ContentLength != 0 {
		return invalidBody.refuse("restore takes no body: the value is that of the version")
	}
	list, err := a.history(r, key)
	if err != nil {
		return err
	}
	old, err := versionIn(list, p["restore"])
	if err != nil {
		return err
	}
	op := storage.Op{
		Kind: storage.OpPut, Ref: types.DataRef(key), Value: old.Value, Raw: old.Raw(), ContentType: old.Meta.ContentType,
		TTL: ttl, Guard: terms.guard(false), By: r.actor(),
	}
	if !old.Live(a.store.Now().UnixMilli()) {
		return invalidParameter.refuse("version %s deleted the key, or has expired: DELETE does the same", old.UUID)
	}
	op.Guard = a.permit(r, &op)
	res, err := a.carryOut(r, op, terms)
	if err != nil {
		return err
	}
	return a.written(w, r, terms.acks, res)
}
