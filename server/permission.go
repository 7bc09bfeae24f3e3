package server

import (
	"errors"
	"strings"
	"time"

	"kvs/auth"
	"kvs/storage"
	"kvs/types"
)

// guard decides about one operation in the committer.
type guard = func(*storage.View) error

// mayKey refuses a key that no scope of the token covers. It says nothing about
// what is there, and so is no secret.
func (r *request) mayKey(scope auth.Scope, key types.Key) error {
	if r.who.Scopes.Covers(scope, string(key)) {
		return nil
	}
	return forbidden.refuse("this token's scopes %q do not cover %s of the key %q", r.who.Scopes.Strings(), scope, key)
}

// mayRead hides a record from whoever may not read it.
func (r *request) mayRead(rec *types.Record) error {
	if r.who.May(auth.RightRead, rec.Key, &rec.Meta) {
		return nil
	}
	return errHidden
}

// unlimited says that there is nothing to ask: the caller may do anything with
// every key.
func (r *request) unlimited() bool { return r.who.Admin() }

// narrow makes a scan pass over what may not be read (or deleted, as right
// says), and spares it the keys that no scope covers.
func (r *request) narrow(o *storage.ScanOptions, right auth.Right) {
	if r.unlimited() {
		return
	}
	who := r.who
	o.Visible = func(rec *types.Record) bool {
		key := rec.Key
		if rec.NS == types.NSConflicts {
			key, _, _ = types.ParseConflictKey(key)
		}
		return who.May(right, key, &rec.Meta)
	}
	scope := auth.ScopeWrite
	if right == auth.RightRead {
		scope = auth.ScopeRead
	}
	prefixes, all := who.Scopes.Prefixes(scope)
	if all || len(prefixes) == 0 {
		return
	}
	low, high := prefixes[0], prefixes[0]
	for _, p := range prefixes[1:] {
		low, high = min(low, p), max(high, p)
	}
	o.Start = max(o.Start, types.Key(low))
	// Behind every key that begins with high: none has a byte 0xff.
	if end := types.Key(high + "\xff"); o.End == "" || end < o.End {
		o.End = end
	}
}

// permit puts the question whether r may before what else is asked of an
// operation, which is its guard.
func (a *api) permit(r *request, op *storage.Op) guard {
	next, kind, key, ttl := op.Guard, op.Kind, op.Ref.Key, op.TTL
	if a.gate.authenticator == nil {
		return next
	}
	next = r.discreet(next)
	return func(v *storage.View) error {
		var err error
		switch kind {
		case storage.OpPut:
			if err = r.mayPut(v, key); err == nil && v.Current != nil {
				err = r.mayExpire(v.Current, a.store.Now(), ttl)
			}
		case storage.OpDelete:
			err = r.mayDelete(v)
		case storage.OpGet:
			if v.Current != nil {
				err = r.mayRead(v.Current)
			}
		}
		if err != nil || next == nil {
			return err
		}
		return next(v)
	}
}

// discreet keeps the refusal of a condition from naming the current version to
// whoever may write it and not read it.
func (r *request) discreet(next guard) guard {
	if next == nil {
		return nil
	}
	return func(v *storage.View) error {
		err := next(v)
		if p := (*refusal)(nil); errors.As(err, &p) && p.problem == preconditionFail && v.Current != nil && r.mayRead(v.Current) != nil {
			return preconditionFail.refuse("the condition does not hold")
		}
		return err
	}
}

// conceal takes the name of a damaged record out of err for whoever is not known
// to be allowed to hear of it: what its permissions were cannot be read.
func (r *request) conceal(err error) error {
	if damaged := (*storage.CorruptError)(nil); !errors.As(err, &damaged) || r.who == nil || r.unlimited() {
		return err
	}
	return corruptRecord.refuse("a record that this call needs is damaged on this node's disk, and no live peer could give it; the node's log names it")
}

// mayPut asks for the right to overwrite what is there, or to create what is
// not, and gives what is new its owner, group and mode.
func (r *request) mayPut(v *storage.View, key types.Key) error {
	if v.Current != nil {
		if !r.who.May(auth.RightWrite, key, &v.Current.Meta) {
			return errMayNotWrite
		}
		return nil
	}
	parent, err := ancestor(v, key)
	if err != nil {
		return err
	}
	if parent != nil {
		if !r.who.May(auth.RightCreate, key, &parent.Meta) {
			return errMayNotWrite
		}
		v.Meta.Group, v.Meta.Mode = parent.Meta.Group, parent.Meta.Mode
	}
	v.Meta.Owner = r.who.Subject
	return nil
}

// mayExpire asks for the right to delete where a record would be gone earlier
// than it is now: or else whoever may overwrite a key could end it, and then make
// it anew as their own.
func (r *request) mayExpire(rec *types.Record, now time.Time, ttl time.Duration) error {
	if ttl == 0 {
		return nil
	}
	// From the timestamp of the new version, which is not before that of the old.
	expires := max(now.UnixMilli(), rec.Timestamp.Millis()) + ttl.Milliseconds()
	if rec.ExpiresAt != 0 && rec.ExpiresAt <= expires || r.who.May(auth.RightDelete, rec.Key, &rec.Meta) {
		return nil
	}
	return forbidden.refuse("the key's permissions do not let this token delete it, and so not let it expire earlier than it does: give a longer ttl, or 0 for none")
}

// errMayNotWrite reads the same whether the key is there or not.
var errMayNotWrite = forbidden.refuse("the key's permissions, or those of the nearest key above it, do not let this token write here")

func (r *request) mayDelete(v *storage.View) error {
	switch {
	case v.Current == nil:
		return types.ErrNotFound
	case r.who.May(auth.RightDelete, v.Current.Key, &v.Current.Meta):
		return nil
	}
	if err := r.mayRead(v.Current); err != nil {
		return err
	}
	return forbidden.refuse("the key's permissions do not let this token delete it")
}

// ancestor gives the nearest key above key that is there: of a/b/c first a/b,
// then a.
func ancestor(v *storage.View, key types.Key) (*types.Record, error) {
	for {
		i := strings.LastIndexByte(string(key), '/')
		if i < 0 {
			return nil, nil
		}
		key = key[:i]
		if rec, err := v.Live(types.DataRef(key)); err != nil || rec != nil {
			return rec, err
		}
	}
}
