package server

import (
	"errors"
	"net/http"
	"net/netip"

	"kvs/auth"
	"kvs/features/ratelimit"
	"kvs/storage"
	"kvs/types"
)

// access is what a call asks of whoever makes it, before its handler runs. The
// zero value is none of them, so that a route that does not say cannot be
// served.
type access int

const (
	_          access = iota
	open              // anybody, without a token
	withToken         // any valid token
	withAdmin         // the admin scope, without a prefix
	readsKeys         // the read scope for some keys; the handler asks for each key
	writesKeys        // the write scope for some keys; the handler asks for each key
	usesKeys          // either; the handler asks for each key
)

// request is a request and who makes it.
type request struct {
	*http.Request
	who  *auth.Principal // nil only where access is open
	gate *gate           // that let it in

	noted bool // what was refused of it is in the tamper log already
}

// actor is who makes the request, for what is kept about a change.
func (r *request) actor() *storage.Actor {
	return &storage.Actor{Subject: r.who.Subject, Token: r.who.TokenID, Address: r.from()}
}

// from is the client's address, as far as it is known.
func (r *request) from() string {
	addr := r.gate.address(r.Request)
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// everybody is who makes requests on a node that asks nobody who they are.
var everybody = &auth.Principal{Subject: auth.Root, Scopes: auth.Scopes{{Scope: auth.ScopeAdmin}}}

// gate decides who may come in, and how often. Its fields are set once.
type gate struct {
	authenticator *auth.Authenticator // nil: auth_enabled is false
	limiter       *ratelimit.Limiter  // nil: rate_limiting_enabled is false
	proxies       []netip.Prefix
}

// enter finds out who makes a request, and refuses whoever is nobody, may not do
// this at all, or comes too often.
func (g *gate) enter(w http.ResponseWriter, r *http.Request, need access, limited bool) (request, error) {
	req := request{Request: r, who: everybody, gate: g}
	var failed error
	if g.authenticator != nil {
		req.who, failed = g.authenticator.Identify(r)
	}
	if g.limiter != nil && limited {
		// Whoever shows no valid token is known by their address alone; so a
		// flood of forged ones is bounded too.
		var key ratelimit.Key
		if failed == nil && req.who.TokenID != "" {
			key = ratelimit.SubjectKey(req.who.Subject)
		} else {
			key = ratelimit.AddressKey(g.address(r))
		}
		if err := g.spend(w, key); err != nil {
			return req, err
		}
	}
	if failed != nil {
		return req, refuseEntry(w, failed)
	}
	return req, g.allow(w, req.who, need)
}

// known reports whether a request that anybody may make shows a good token.
func (g *gate) known(r *http.Request) bool {
	if g.authenticator == nil {
		return true
	}
	who, err := g.authenticator.Identify(r)
	return err == nil && who.TokenID != ""
}

// address is where a request comes from, as far as it is known.
func (g *gate) address(r *http.Request) netip.Addr {
	return ratelimit.ClientAddress(r.RemoteAddr, r.Header["X-Forwarded-For"], g.proxies)
}

// allow asks for what a call needs of everybody.
func (g *gate) allow(w http.ResponseWriter, who *auth.Principal, need access) error {
	ok, want := true, ""
	switch need {
	case open:
	case withToken:
		// Without authentication, everybody counts as having one.
		ok, want = who.TokenID != "" || g.authenticator == nil, "any valid token"
	case withAdmin:
		ok, want = who.Admin(), "the admin scope, without a prefix"
	case readsKeys:
		ok, want = who.Scopes.Any(auth.ScopeRead), "the read scope"
	case writesKeys:
		ok, want = who.Scopes.Any(auth.ScopeWrite), "the write scope"
	case usesKeys:
		ok, want = who.Scopes.Any(auth.ScopeRead) || who.Scopes.Any(auth.ScopeWrite), "the read or the write scope"
	default:
		panic("server: a route was served without saying who may call it")
	}
	switch {
	case ok:
		return nil
	case who.TokenID == "": // anonymous: a token would help
		return refuseEntry(w, auth.ErrNoToken)
	}
	return forbidden.refuse("this call needs %s; this token has %q", want, who.Scopes.Strings())
}

// howToGetToken is the remedy in every refusal of a stranger.
const howToGetToken = "send \"Authorization: Bearer TOKEN\"; a machine that has the cluster secret makes a token with `kvs token create --scope admin`, " +
	"and with that one POST /auth/tokens makes others"

func refuseEntry(w http.ResponseWriter, err error) error {
	if errors.Is(err, auth.ErrNoToken) {
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="kvs"`}
		return unauthorized.refuse("a token is needed: %s", howToGetToken)
	}
	w.Header()["Www-Authenticate"] = []string{`Bearer realm="kvs", error="invalid_token"`}
	return unauthorized.refuse("%s; %s", err, howToGetToken)
}

// errHidden is the refusal of what the caller may not even know to be there: to
// them it is the absence that it looks like, and to the tamper log it is not.
var errHidden error = hidden{}

type hidden struct{}

func (hidden) Error() string        { return types.ErrNotFound.Error() }
func (hidden) Is(target error) bool { return target == types.ErrNotFound }
