package auth

import (
	"fmt"
	"slices"
	"strings"

	"kvs/types"
)

// Scope is one kind of thing that a token lets its bearer do.
type Scope uint8

// The scopes. Their names are in tokens, and so part of the protocol.
const (
	ScopeRead  Scope = iota
	ScopeWrite       // create, overwrite, delete
	ScopeJobs        // everything under /jobs/; a prefix limits it to queues
	ScopeAdmin       // every scope, past every mode
)

var scopeNames = [...]string{ScopeRead: "read", ScopeWrite: "write", ScopeJobs: "jobs", ScopeAdmin: "admin"}

// String gives the scope's name.
func (s Scope) String() string {
	if int(s) < len(scopeNames) {
		return scopeNames[s]
	}
	return fmt.Sprintf("scope(%d)", uint8(s))
}

// maxPrefix bounds a grant's prefix, in bytes.
const maxPrefix = types.MaxKeyLen

// Grant gives one scope, for all names or for those under a prefix.
type Grant struct {
	Scope  Scope
	Prefix string // "": everything
}

// String writes the grant as ParseScopes reads it: "read", "read:pub/".
func (g Grant) String() string {
	if g.Prefix == "" {
		return g.Scope.String()
	}
	return g.Scope.String() + ":" + g.Prefix
}

// gives reports whether the grant is of the scope, somewhere: an admin grant is
// of every scope.
func (g Grant) gives(scope Scope) bool { return g.Scope == scope || g.Scope == ScopeAdmin }

// covers reports whether name is under the grant's prefix. A prefix ends at a
// segment's end: "pub/" covers pub/x and not pub, "pub" covers both, neither
// covers public.
func (g Grant) covers(name string) bool {
	rest, ok := strings.CutPrefix(name, g.Prefix)
	return ok && (g.Prefix == "" || rest == "" || g.Prefix[len(g.Prefix)-1] == '/' || rest[0] == '/')
}

// Scopes are what a token lets its bearer do: anything that one of the grants
// does.
type Scopes []Grant

// ParseScopes reads scopes as they stand in a token and in a request for one:
// "read", "write:users/". There is at least one, and none twice. A prefix is a
// key as types.ParseKey takes it, or a key and a slash; 1024 bytes at most. The
// error wraps ErrInvalid.
func ParseScopes(list []string) (Scopes, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no scopes: give some of read, write, jobs, admin", ErrInvalid)
	}
	scopes := make(Scopes, 0, len(list))
	for _, s := range list {
		g, err := parseGrant(s)
		if err != nil {
			return nil, err
		}
		if slices.Contains(scopes, g) {
			return nil, fmt.Errorf("%w: the scope %q is given twice", ErrInvalid, s)
		}
		scopes = append(scopes, g)
	}
	return scopes, nil
}

func parseGrant(s string) (Grant, error) {
	name, prefix, limited := strings.Cut(s, ":")
	i := slices.Index(scopeNames[:], name)
	if i < 0 {
		return Grant{}, fmt.Errorf("%w: the scope %q is none of read, write, jobs, admin", ErrInvalid, clip(s))
	}
	if !limited {
		return Grant{Scope: Scope(i)}, nil
	}
	if len(prefix) > maxPrefix {
		return Grant{}, fmt.Errorf("%w: the prefix of a scope %q has %d bytes, %d are allowed", ErrInvalid, name, len(prefix), maxPrefix)
	}
	// What no key begins with would be a grant of nothing, most likely a typing
	// error. It is that of a scope, so not wrapped: the caller named no key.
	if _, err := types.ParseKey(strings.TrimSuffix(prefix, "/")); err != nil {
		return Grant{}, fmt.Errorf("%w: the prefix of the scope %q: %v", ErrInvalid, s, err)
	}
	return Grant{Scope(i), prefix}, nil
}

// clip keeps what a stranger sent from filling an error.
func clip(s string) string { return s[:min(len(s), 64)] }

// Strings gives the scopes as ParseScopes reads them.
func (s Scopes) Strings() []string {
	list := make([]string, len(s))
	for i, g := range s {
		list[i] = g.String()
	}
	return list
}

// Any reports whether some grant gives scope, for whatever names.
func (s Scopes) Any(scope Scope) bool {
	for _, g := range s {
		if g.gives(scope) {
			return true
		}
	}
	return false
}

// Covers reports whether some grant gives scope for name: a key, or a queue.
func (s Scopes) Covers(scope Scope, name string) bool {
	for _, g := range s {
		if g.gives(scope) && g.covers(name) {
			return true
		}
	}
	return false
}

// Prefixes narrows a scan: what scope is given for begins with one of prefixes,
// or may be anything if all is set. They are sorted, and none begins with
// another. A name that begins with one is not covered for that (see Covers), so
// each is still to be asked for.
func (s Scopes) Prefixes(scope Scope) (prefixes []string, all bool) {
	for _, g := range s {
		if !g.gives(scope) {
			continue
		}
		if g.Prefix == "" {
			return nil, true
		}
		prefixes = append(prefixes, g.Prefix)
	}
	slices.Sort(prefixes)
	kept := prefixes[:0]
	for _, p := range prefixes {
		// In this order whatever begins with the last one kept follows it at once.
		if len(kept) == 0 || !strings.HasPrefix(p, kept[len(kept)-1]) {
			kept = append(kept, p)
		}
	}
	return kept, false
}
