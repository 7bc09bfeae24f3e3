package auth

import (
	"time"

	"kvs/types"
)

// Principal is who makes a request, and what they may. It is shared by all
// requests with its token: nobody changes it.
type Principal struct {
	Subject string    // a user's UUID, Root or Anonymous
	TokenID string    // jti; "" for anonymous
	Scopes  Scopes    // of the token
	Groups  []string  // UUIDs of the groups of the user, sorted
	Expires time.Time // of the token; zero: never (anonymous, or authentication is off)
}

// Admin reports whether the principal may do everything.
func (p *Principal) Admin() bool {
	for _, g := range p.Scopes {
		if g == (Grant{Scope: ScopeAdmin}) {
			return true
		}
	}
	return false
}

// AdminOf reports whether the principal may do everything with the key.
func (p *Principal) AdminOf(key types.Key) bool {
	for _, g := range p.Scopes {
		if g.Scope == ScopeAdmin && g.covers(string(key)) {
			return true
		}
	}
	return false
}

// May reports whether the principal has all of right, which may be several, on
// an item with meta m under key. Both must agree: the token's scopes, read for
// RightRead and write for all others, must cover key; and the item's mode must
// give the right to the principal's class. An admin grant that covers key passes
// the mode. Without an item, m being nil, the scopes decide alone: a new key
// without ancestors.
//
// To create, key is the new key and m the nearest ancestor's. No right at all is
// had by nobody.
func (p *Principal) May(right Right, key types.Key, m *types.Meta) bool {
	if right == 0 || right&^allRights != 0 {
		return false
	}
	if right&RightRead != 0 && !p.Scopes.Covers(ScopeRead, string(key)) {
		return false
	}
	if right&^RightRead != 0 && !p.Scopes.Covers(ScopeWrite, string(key)) {
		return false
	}
	return m == nil || rightsOf(m, p.Subject, p.Groups)&right == right || p.AdminOf(key)
}
