package server

import (
	"errors"
	"net/http"
	"strconv"

	"kvs/auth"
	"kvs/storage"
	"kvs/types"
)

// deleteRange answers DELETE /kv/_range: it deletes what is under the prefix
// when it comes by, and nothing that is written there meanwhile.
func (a *api) deleteRange(w http.ResponseWriter, r *request) error {
	p, err := parseParams(r, "prefix")
	if err != nil {
		return err
	}
	if p["prefix"] == "" {
		return invalidParameter.refuse(`parameter "prefix" is missing or empty, and would delete every key`)
	}
	o, err := scanOptions(p, types.NSData)
	if err != nil {
		return err
	}
	if err := a.writable(); err != nil {
		return err
	}
	o.KeysOnly, o.Limit = true, maxRangeLimit
	r.narrow(&o, auth.RightDelete)
	deleted := 0
	for more := true; more; {
		page, err := a.scanStep(r.Context(), o)
		if err != nil {
			return err
		}
		n, err := a.deleteAll(r, page.Records)
		if err != nil {
			return err
		}
		deleted += n
		o.Start, more = page.Next, page.More
	}
	writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, `{"deleted":`...)
		b = strconv.AppendInt(b, int64(deleted), 10)
		return append(b, "}\n"...)
	})
	return nil
}

// errOverwritten drops a delete whose key has another version by now.
var errOverwritten = errors.New("overwritten meanwhile")

// deleteAll deletes these versions, and gives how many were still current.
func (a *api) deleteAll(r *request, records []types.Record) (int, error) {
	if len(records) == 0 {
		return 0, nil
	}
	ops, by := make([]storage.Op, len(records)), r.actor()
	for i := range records {
		seen := records[i].UUID // whose permissions the scan has asked
		ops[i] = storage.Op{Kind: storage.OpDelete, Ref: records[i].Ref, By: by, Guard: func(v *storage.View) error {
			if v.Current == nil || v.Current.UUID != seen {
				return errOverwritten
			}
			return nil
		}}
	}
	results, err := a.store.Write(r.Context(), ops, false)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, res := range results {
		switch {
		case res.Err == nil:
			n++
		case !errors.Is(res.Err, errOverwritten):
			return n, res.Err
		}
	}
	return n, nil
}
