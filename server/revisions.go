package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"kvs/auth"
	"kvs/features/revisions"
	"kvs/types"
)

// revisions answers GET /kv/{path}?revisions: what this node still knows of a
// key's versions.
func (a *api) revisions(w http.ResponseWriter, r *request, key types.Key) error {
	if a.revisionLimit == 0 {
		return featureDisabled.refuse("no history is kept on this node (revision_history_enabled)")
	}
	history, err := revisions.List(r.Context(), a.store, key, a.revisionLimit)
	if err != nil {
		return err
	}
	if history, err = a.readableHistory(r, key, history); err != nil {
		return err
	}
	if len(history) == 0 {
		return types.ErrNotFound
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
