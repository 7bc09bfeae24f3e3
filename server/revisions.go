package server

import (
	"context"
	"fmt"
	"net/http"

	"kvs/features/revisions"
	"kvs/types"
)

// revisions answers GET /kv/{path}?revisions: what this node still knows of a
// key's versions.
func (a *api) revisions(ctx context.Context, w http.ResponseWriter, key types.Key, p params) error {
	if p.has("raw") {
		return invalidParameter.refuse("parameters raw and revisions ask for different answers")
	}
	if a.revisionLimit == 0 {
		return featureDisabled.refuse("no history is kept on this node (revision_history_enabled)")
	}
	history, err := revisions.List(ctx, a.store, key, a.revisionLimit)
	if err != nil {
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
