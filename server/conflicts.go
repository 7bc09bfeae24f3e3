package server

import (
	"errors"
	"fmt"
	"net/http"

	"kvs/auth"
	"kvs/storage"
	"kvs/storage/codec"
	"kvs/types"
)

// conflicts answers GET /kv/_conflicts: the versions that lost, by key.
func (a *api) conflicts(w http.ResponseWriter, r *request) error {
	p, err := parseParams(r, "prefix", "limit", "cursor")
	if err != nil {
		return err
	}
	o, err := scanOptions(p, types.NSConflicts)
	if err != nil {
		return err
	}
	a.narrowConflicts(r, &o, auth.RightRead)
	page, err := a.scan(r.Context(), o)
	if err != nil {
		return err
	}
	losers := make([]types.Record, len(page.Records))
	winners := make([]string, len(page.Records))
	for i := range page.Records {
		if losers[i], err = loserOf(&page.Records[i]); err != nil {
			return err
		}
		current, err := a.store.Lookup(losers[i].Ref)
		switch {
		case err == nil && r.mayRead(&current) != nil:
		case err == nil:
			winners[i] = current.UUID.String()
		// The list is about the losers: it shows them also where the key's own
		// record is gone or damaged.
		case !errors.Is(err, types.ErrNotFound) && !errors.Is(err, types.ErrCorrupt):
			return err
		}
	}
	writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, `{"items":[`...)
		for i := range losers {
			b = append(b, `{"key":`...)
			b = appendString(b, string(losers[i].Key))
			b = append(b, `,"origin":"`...)
			b = appendUUID(b, losers[i].Origin)
			b = append(b, `","winner":"`...)
			b = append(b, winners[i]...)
			b = append(b, `","deleted":`...)
			b = fmt.Append(b, losers[i].Tombstone())
			b = append(b, ',')
			b = appendRecord(b, &losers[i], !losers[i].Tombstone())
			b = append(b, "},"...)
		}
		b = closeList(b)
		b = appendCursor(b, &page, false)
		return append(b, "}\n"...)
	})
	return nil
}

// narrowConflicts makes a scan pass over versions that the caller may not read,
// or delete: by their own permissions, and by those that their keys have now.
// Whoever closes a key has closed what lost under it, too.
func (a *api) narrowConflicts(r *request, o *storage.ScanOptions, right auth.Right) {
	r.narrow(o, right)
	own := o.Visible
	if own == nil {
		return
	}
	o.Visible = func(rec *types.Record) bool {
		key, _, _ := types.ParseConflictKey(rec.Key)
		if !own(rec) {
			return false
		}
		current, err := a.store.Lookup(types.DataRef(key))
		return r.mayBeside(right, key, &current, err)
	}
}

// mayBeside asks whether the current record of key, which err says could be had,
// lets the caller have a version beside it.
func (r *request) mayBeside(right auth.Right, key types.Key, current *types.Record, err error) bool {
	switch {
	case errors.Is(err, types.ErrNotFound):
		return true // nothing is left but that version
	case err != nil:
		return r.who.AdminOf(key) // its permissions cannot be read
	}
	return r.who.May(right, key, &current.Meta)
}

// loserOf reads the version that a record of the conflicts namespace keeps.
func loserOf(rec *types.Record) (types.Record, error) {
	loser, err := codec.DecodeOne(rec.Value)
	if err != nil {
		return loser, &storage.CorruptError{Ref: rec.Ref, Err: err}
	}
	return loser, nil
}

// settle answers DELETE /kv/_conflicts/{uuid}: somebody looked at the version
// that lost, and it need not be listed any longer.
func (a *api) settle(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	if err := a.writable(); err != nil {
		return err
	}
	id, err := types.ParseVersionID(r.PathValue("uuid"))
	if err != nil {
		return errNoConflict(r.PathValue("uuid"))
	}
	ref, err := a.findConflict(r, id)
	if err != nil {
		return err
	}
	_, err = a.write(r.Context(), storage.Op{Kind: storage.OpDelete, Ref: ref, By: r.actor(), Guard: func(v *storage.View) error {
		// The version cannot have changed since it was found, its key can.
		key, _, _ := types.ParseConflictKey(ref.Key)
		current, err := v.Live(types.DataRef(key))
		if (err != nil || current != nil) && !r.mayBeside(auth.RightDelete, key, current, err) {
			return types.ErrNotFound
		}
		return nil
	}})
	if errors.Is(err, types.ErrNotFound) {
		return errNoConflict(id.String())
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func errNoConflict(id string) error {
	return notFound.refuse("no conflict of this node has the version %q", id)
}

// findConflict looks for the one record of a version that lost. They are stored
// by key, and there are few: settling is done by people.
func (a *api) findConflict(r *request, id types.VersionID) (types.Ref, error) {
	o := storage.ScanOptions{NS: types.NSConflicts, Limit: maxRangeLimit, KeysOnly: true}
	a.narrowConflicts(r, &o, auth.RightDelete)
	for {
		page, err := a.scanStep(r.Context(), o)
		if err != nil {
			return types.Ref{}, err
		}
		for i := range page.Records {
			if _, have, ok := types.ParseConflictKey(page.Records[i].Key); ok && have == id {
				return page.Records[i].Ref, nil
			}
		}
		if !page.More {
			return types.Ref{}, errNoConflict(id.String())
		}
		o.Start = page.Next
	}
}
