package auth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvs/auth/authtest"
	"kvs/types"
)

// gate is an authenticator with all that it needs.
type gate struct {
	*Authenticator
	*world
	tokens *ClientTokens
}

func newGate(t testing.TB, read, write bool) *gate {
	w := newWorld(t)
	tokens := clientTokens(w.clock, secretA)
	return &gate{NewAuthenticator(AuthenticatorOptions{Tokens: tokens, Directory: w.Directory, AnonymousRead: read, AnonymousWrite: write}), w, tokens}
}

func bearing(values ...string) *http.Request {
	r := request("GET", "/kv/x")
	if values != nil {
		r.Header["Authorization"] = values
	}
	return r
}

// identify is Identify of a token.
func (g *gate) identify(token string) (*Principal, error) {
	return g.Identify(bearing("Bearer " + token))
}

func TestIdentify(t *testing.T) {
	g := newGate(t, false, false)
	ann := g.newUser("ann")
	staff := g.newGroup("staff", ann)
	token, c := issue(t, g.tokens, ann.UUID, time.Hour, "read", "write:pub/")
	p, err := g.identify(token)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, "principal", *p, Principal{Subject: ann.UUID, TokenID: c.ID, Scopes: c.Scopes, Groups: []string{staff.UUID}, Expires: c.Expires})
	if again, err := g.identify(token); err != nil || again != p {
		t.Errorf("the principal is made again: %v, %v", again, err)
	}
	root, _ := issue(t, g.tokens, Root, time.Hour, "admin")
	if p, err := g.identify(root); err != nil || p.Subject != Root || !p.Admin() {
		t.Errorf("root is %+v, %v", p, err)
	}
	stranger, _ := issue(t, g.tokens, alice, time.Hour, "read") // whose record is on its way
	if p, err := g.identify(stranger); err != nil || p.Subject != alice || len(p.Groups) != 0 {
		t.Errorf("a user not known yet is %+v, %v", p, err)
	}
	g.clock.add(time.Hour)
	if _, err := g.identify(token); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("at its end: %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	for _, c := range []struct {
		read, write bool
		want        []string
	}{{false, false, nil}, {true, false, []string{"read"}}, {false, true, []string{"write"}}, {true, true, []string{"read", "write"}}} {
		g := newGate(t, c.read, c.write)
		good, _ := issue(t, g.tokens, Root, time.Hour, "read")
		p, err := g.Identify(bearing())
		if c.want == nil {
			if !errors.Is(err, ErrNoToken) || !errors.Is(err, ErrUnauthorized) || p != nil {
				t.Errorf("without a token: %v, %v", p, err)
			}
		} else if err != nil || p.Subject != Anonymous || p.TokenID != "" || !p.Expires.IsZero() || !slices.Equal(p.Scopes.Strings(), c.want) {
			t.Errorf("anonymous is %+v, %v", p, err)
		}
		// Whoever presents something presents a good token.
		for name, values := range map[string][]string{
			"empty header": {""}, "two tokens": {"Bearer " + good, "Bearer " + good}, "other scheme": {"Basic " + good}, "no scheme": {good},
			"scheme alone": {"Bearer"}, "empty token": {"Bearer "}, "two spaces": {"Bearer  " + good}, "something behind": {"Bearer " + good + " x"},
			"comma": {"Bearer " + good + ", Bearer " + good}, "garbage": {"Bearer x"},
		} {
			if p, err := g.Identify(bearing(values...)); !errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrNoToken) || p != nil {
				t.Errorf("%s, anonymous %v: %v, %v", name, c.want, p, err)
			}
		}
		if _, err := g.Identify(bearing("bearer " + good)); err != nil {
			t.Errorf("scheme in lower case: %v", err)
		}
	}
}

func TestForgedTokensAreNobodys(t *testing.T) {
	g := newGate(t, true, true)
	for name, token := range authtest.Forgeries(string(secretA), g.clock.now) {
		if p, err := g.identify(token); !errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrNoToken) || p != nil {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	if p, err := g.identify(authtest.Good(string(secretA), g.clock.now)); err != nil || !p.Admin() {
		t.Fatalf("the token that all forgeries start from: %v, %v", p, err)
	}
}

// What is applied counts at the next request, whatever is cached.
func TestChangesCountAtOnce(t *testing.T) {
	g := newGate(t, true, true)
	ann := g.newUser("ann")
	staff := g.newGroup("staff")
	token, c := issue(t, g.tokens, ann.UUID, time.Hour, "read")
	second, _ := issue(t, g.tokens, ann.UUID, time.Hour, "read")
	groups := func(want ...string) {
		t.Helper()
		p, err := g.identify(token)
		if err != nil || !slices.Equal(p.Groups, want) {
			t.Fatalf("%+v, %v; want groups %v", p, err, want)
		}
	}
	groups()
	g.write(g.SetMember(staff.UUID, ann.UUID, true))
	groups(staff.UUID)
	g.write(g.SetMember(staff.UUID, ann.UUID, false))
	groups()
	g.write(g.SetMember(staff.UUID, ann.UUID, true))
	groups(staff.UUID)
	g.write(g.DeleteGroup(staff.UUID))
	groups()
	g.write(g.NoteToken(c), nil)
	groups()
	g.Apply(g.record("member/"+guests+"/"+ann.UUID, "{}"))
	groups()
	g.Apply(g.record("group/"+guests, `{"nickname":"guests"}`)) // after its member
	groups(guests)

	g.write(g.Revoke(c.ID, g.tokens.MadeID(c.ID)))
	for range 2 {
		if _, err := g.identify(token); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("a revoked token: %v", err)
		}
		if _, err := g.identify(second); err != nil {
			t.Errorf("another token of its user: %v", err)
		}
	}
	g.write(g.DeleteUser(ann.UUID))
	for range 2 {
		if _, err := g.identify(second); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("a deleted user's token: %v", err)
		}
	}
}

// A membership that ends by itself, which no node writes, ends on the moment.
func TestGroupsThatEnd(t *testing.T) {
	g := newGate(t, false, false)
	g.Apply(g.record("group/"+staff, `{"nickname":"staff"}`))
	g.Apply(expiring(g.record("member/"+staff+"/"+alice, "{}"), g.clock.now.Add(time.Minute)))
	token, _ := issue(t, g.tokens, alice, time.Hour, "read")
	for _, want := range [][]string{{staff}, {}} {
		for range 2 {
			p, err := g.identify(token)
			if err != nil {
				t.Fatal(err)
			}
			holds(t, "groups", p.Groups, want)
		}
		g.clock.add(time.Minute)
	}
}

// Two authenticators may share tokens; each has its own directory's principals.
func TestAuthenticatorsDoNotMix(t *testing.T) {
	g := newGate(t, false, false)
	other := NewAuthenticator(AuthenticatorOptions{Tokens: g.tokens, Directory: NewDirectory(g.clock.Now)})
	group, member := g.record("group/"+staff, `{"nickname":"staff"}`), g.record("member/"+staff+"/"+alice, "{}")
	g.Apply(group)
	g.Apply(member)
	other.directory.Apply(group)
	other.directory.Apply(deleted(member)) // as many changes, so of the same generation
	token, _ := issue(t, g.tokens, alice, time.Hour, "read")
	for range 2 {
		for a, want := range map[*Authenticator][]string{g.Authenticator: {staff}, other: {}} {
			p, err := a.Identify(bearing("Bearer " + token))
			if err != nil {
				t.Fatal(err)
			}
			holds(t, "groups", p.Groups, want)
		}
	}
}

// While a token is revoked, no request that begins after Apply returned passes.
func TestRevocationRaces(t *testing.T) {
	for range 50 {
		g := newGate(t, false, false)
		token, c := issue(t, g.tokens, alice, time.Hour, "read")
		mark := g.record("revoked/"+c.ID, "{}")
		join := g.record("member/"+staff+"/"+alice, "{}")
		var revoked atomic.Bool
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 100 {
					before := revoked.Load()
					if _, err := g.identify(token); err == nil && before {
						t.Error("accepted after it was revoked")
					}
				}
			})
		}
		wg.Go(func() { g.Apply(join) })
		g.Apply(mark)
		revoked.Store(true)
		wg.Wait()
	}
}

func TestErrorsSayWhy(t *testing.T) {
	g := newGate(t, false, false)
	token, c := issue(t, g.tokens, alice, time.Hour, "read")
	g.Apply(g.record("revoked/"+c.ID, "{}"))
	if _, err := g.identify(token); fmt.Sprint(err) != "unauthorized: the token was revoked" {
		t.Error(err)
	}
	if !errors.Is(ErrTokenNotFound, types.ErrNotFound) || errors.Is(ErrTokenNotFound, ErrUserNotFound) {
		t.Error("the errors for what is not found are not told apart")
	}
}

func BenchmarkIdentify(b *testing.B) {
	tokens := NewClientTokens(ClientTokensOptions{Keys: DeriveKeys(Secrets{Current: secretA})})
	a := NewAuthenticator(AuthenticatorOptions{Tokens: tokens, Directory: NewDirectory(nil)})
	token, _ := issue(b, tokens, alice, time.Hour, "read", "write:users/")
	r := bearing("Bearer " + token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Identify(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyUncached is what a token costs that was not seen before.
func BenchmarkVerifyUncached(b *testing.B) {
	tokens := NewClientTokens(ClientTokensOptions{Keys: DeriveKeys(Secrets{Current: secretA})})
	token, _ := issue(b, tokens, alice, time.Hour, "read", "write:users/")
	for b.Loop() {
		if _, err := tokens.read(token); err != nil {
			b.Fatal(err)
		}
	}
}
