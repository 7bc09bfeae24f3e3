package auth

import (
	"fmt"
	"net/http"
)

// AuthenticatorOptions configure an Authenticator. Tokens and Directory are
// required.
type AuthenticatorOptions struct {
	Tokens         *ClientTokens
	Directory      *Directory
	AnonymousRead  bool // requests without a token have the scope read,
	AnonymousWrite bool // and write
}

// Authenticator tells who makes a request. It is safe for concurrent use.
type Authenticator struct {
	tokens    *ClientTokens
	directory *Directory
	anonymous *Principal // nil: nobody comes without a token
}

// cachedPrincipal is a principal as one authenticator made it, of one generation
// of its directory.
type cachedPrincipal struct {
	Principal
	by         *Authenticator
	generation uint64
}

// NewAuthenticator makes an Authenticator.
func NewAuthenticator(o AuthenticatorOptions) *Authenticator {
	a := &Authenticator{tokens: o.Tokens, directory: o.Directory}
	var scopes Scopes
	if o.AnonymousRead {
		scopes = append(scopes, Grant{Scope: ScopeRead})
	}
	if o.AnonymousWrite {
		scopes = append(scopes, Grant{Scope: ScopeWrite})
	}
	if scopes != nil {
		a.anonymous = &Principal{Subject: Anonymous, Scopes: scopes}
	}
	return a
}

// Identify gives the principal of a request, which is shared and not to be
// changed. A request without any Authorization header is anonymous's, where that
// is allowed, and refused with ErrNoToken otherwise. A token that is not good,
// that was revoked, or whose user was deleted is refused, anonymous access or
// not. Every error wraps ErrUnauthorized.
//
// What was applied to the directory before the call counts. A token that was
// seen before costs one hash and one look-up.
func (a *Authenticator) Identify(r *http.Request) (*Principal, error) {
	token, err := bearer(r.Header)
	if err == ErrNoToken && a.anonymous != nil {
		return a.anonymous, nil
	}
	if err != nil {
		return nil, err
	}
	v, err := a.tokens.verify(token, a.tokens.now())
	if err != nil {
		return nil, err
	}
	// Read before the entries are: a change between the two makes the principal
	// newer than its generation says, and it is made again.
	generation := a.directory.generation.Load()
	if p := v.principal.Load(); p != nil && p.by == a && p.generation == generation {
		return &p.Principal, nil
	}
	groups, lasting, err := a.directory.standing(v.ID, v.Subject)
	if err != nil {
		return nil, fmt.Errorf("%w: the token %w", ErrUnauthorized, err)
	}
	p := &cachedPrincipal{
		Principal:  Principal{Subject: v.Subject, TokenID: v.ID, Scopes: v.Scopes, Groups: groups, Expires: v.Expires},
		by:         a,
		generation: generation,
	}
	if lasting {
		v.principal.Store(p)
	}
	return &p.Principal, nil
}
