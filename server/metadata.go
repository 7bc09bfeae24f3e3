package server

import (
	"net/http"
	"time"

	"kvs/auth"
	"kvs/storage"
	"kvs/storage/codec"
	"kvs/types"
)

// metadataJSON is the answer of GET ?metadata.
type metadataJSON struct {
	UUID        string `json:"uuid"`
	Timestamp   int64  `json:"timestamp"`
	Owner       string `json:"owner"` // a user's UUID, "root" or "anonymous"
	Group       string `json:"group"` // a group's UUID or "root"
	Mode        string `json:"mode"`
	TTL         string `json:"ttl"` // what is left; "0": for ever
	ExpiresAt   int64  `json:"expires_at,omitempty"`
	Size        int    `json:"size"`        // bytes of the value
	RecordSize  int    `json:"record_size"` // bytes of the whole record, before compression
	ContentType string `json:"content_type,omitempty"`
	Origin      string `json:"origin"`
}

// metadata answers GET /kv/{path}?metadata.
func (a *api) metadata(w http.ResponseWriter, r *request, key types.Key) error {
	rec, err := a.read(r.Context(), types.DataRef(key))
	if err != nil {
		return err
	}
	if err := r.mayRead(&rec); err != nil {
		return err
	}
	m := metadataJSON{
		UUID:       rec.UUID.String(),
		Timestamp:  rec.Timestamp.Millis(),
		Owner:      rec.Meta.Owner,
		Group:      rec.Meta.Group,
		Mode:       auth.FormatMode(rec.Meta.Mode),
		TTL:        "0",
		ExpiresAt:  rec.ExpiresAt,
		Size:       len(rec.Value),
		RecordSize: codec.Size(&rec),
		Origin:     rec.Origin.String(),
	}
	if rec.ExpiresAt != 0 {
		m.TTL = time.UnixMilli(rec.ExpiresAt).Sub(a.store.Now()).Round(time.Millisecond).String()
	}
	if rec.Raw() {
		m.ContentType = contentType(&rec)
	}
	w.Header()["Etag"] = etagOf(rec.UUID)
	return writeAny(w, http.StatusOK, m)
}

// metadataChange is the body of PUT ?metadata; what is absent stays.
type metadataChange struct {
	Owner, Group, Mode, TTL *string
}

// putMetadata answers PUT /kv/{path}?metadata. Owner, group and mode are the
// owner's and admins' to change; an expiry is part of what is written.
func (a *api) putMetadata(w http.ResponseWriter, r *request, key types.Key, p params) error {
	if p.has("restore") {
		return invalidParameter.refuse("parameters metadata and restore ask for different things")
	}
	if p.has("ttl") {
		return invalidParameter.refuse(`parameter "ttl" goes into the body here: {"ttl":"1h"}`)
	}
	terms, err := a.terms(r, p)
	if err != nil {
		return err
	}
	var change metadataChange
	if err := a.readSmall(w, r, &change, `{"owner":…,"group":…,"mode":"cdwr:--wr:---r","ttl":"1h"}, each as needed`); err != nil {
		return err
	}
	op := storage.Op{Kind: storage.OpMeta, Ref: types.DataRef(key), KeepTTL: change.TTL == nil, By: r.actor()}
	if change.TTL != nil {
		if op.TTL, err = parseDuration(*change.TTL); err != nil || op.TTL > maxTTL {
			return invalidBody.refuse(`"ttl": want a duration such as "30s", "1h" or "7d", or "0" for none, not %.40q`, *change.TTL)
		}
	}
	if op.Guard, err = a.metadataGuard(r, change, op.TTL, r.discreet(terms.guard(true))); err != nil {
		return err
	}
	res, err := a.carryOut(r, op, terms)
	if err != nil {
		return err
	}
	return a.written(w, r, terms.acks, res)
}

// metadataGuard checks what the body asks for, and gives what the committer
// checks and changes.
func (a *api) metadataGuard(r *request, change metadataChange, ttl time.Duration, next guard) (guard, error) {
	if change == (metadataChange{}) {
		return nil, invalidBody.refuse("the body changes nothing: it has none of owner, group, mode and ttl")
	}
	var mode uint16
	if change.Mode != nil {
		var err error
		if mode, err = auth.ParseMode(*change.Mode); err != nil {
			return nil, invalidBody.refuse(`"mode": %s`, err)
		}
	}
	ownersOnly := change.Owner != nil || change.Group != nil || change.Mode != nil
	return func(v *storage.View) error {
		if v.Current == nil {
			return types.ErrNotFound
		}
		if err := r.mayChange(v.Current, ownersOnly, a.store.Now(), ttl); err != nil {
			return err
		}
		if next != nil {
			if err := next(v); err != nil {
				return err
			}
		}
		if change.Mode != nil {
			v.Meta.Mode = mode
		}
		// Not before it is known that the caller may: the answer tells which names
		// there are.
		var err error
		if change.Owner != nil {
			if v.Meta.Owner, err = a.ownerNamed(*change.Owner); err != nil {
				return err
			}
		}
		if change.Group != nil {
			v.Meta.Group, err = a.groupNamed(*change.Group)
		}
		return err
	}, nil
}

// mayChange asks for the right to change a record's metadata.
func (r *request) mayChange(rec *types.Record, ownersOnly bool, now time.Time, ttl time.Duration) error {
	owner := r.who.AdminOf(rec.Key) || r.who.Subject == rec.Meta.Owner
	switch {
	case owner && r.who.Scopes.Covers(auth.ScopeWrite, string(rec.Key)):
		return nil
	case !ownersOnly && r.who.May(auth.RightWrite, rec.Key, &rec.Meta):
		return r.mayExpire(rec, now, ttl)
	}
	if err := r.mayRead(rec); err != nil {
		return err
	}
	if ownersOnly {
		return forbidden.refuse("owner, group and mode are changed by the owner or with the admin scope")
	}
	return errMayNotWrite
}

// ownerNamed gives the owner that a UUID or nickname stands for.
func (a *api) ownerNamed(name string) (string, error) {
	if name == auth.Root || name == auth.Anonymous {
		return name, nil
	}
	u, err := a.people.FindUser(name)
	if err != nil {
		return "", invalidBody.refuse(`"owner": no user has the uuid or nickname %.80q (%s)`, name, err)
	}
	return u.UUID, nil
}

func (a *api) groupNamed(name string) (string, error) {
	if name == auth.Root {
		return name, nil
	}
	g, err := a.people.FindGroup(name)
	if err != nil {
		return "", invalidBody.refuse(`"group": no group has the uuid or nickname %.80q (%s)`, name, err)
	}
	return g.UUID, nil
}
