package auth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"kvs/auth/authtest"
)

func clientTokens(clock *testClock, current Secret, previous ...Secret) *ClientTokens {
	return NewClientTokens(ClientTokensOptions{Keys: DeriveKeys(Secrets{Current: current, Previous: previous}), Now: clock.Now})
}

func issue(t testing.TB, tokens *ClientTokens, subject string, life time.Duration, list ...string) (string, Claims) {
	t.Helper()
	token, c, err := tokens.Issue(subject, scopes(t, list...), life)
	if err != nil {
		t.Fatal(err)
	}
	return token, c
}

func TestClientTokens(t *testing.T) {
	clock := newClock()
	clock.add(123456 * time.Microsecond)
	tokens := clientTokens(clock, secretA)
	for _, c := range []struct {
		subject string
		life    time.Duration
		scopes  []string
	}{
		{Root, MinTokenLife, []string{"admin"}},
		{alice, MaxTokenLife, []string{"read:<a>&\u2028 \U0001F511/", "write:users/", "jobs"}},
		{alice, 90*time.Minute + time.Microsecond, []string{"read"}},
	} {
		token, made := issue(t, tokens, c.subject, c.life, c.scopes...)
		for range 2 { // the second time from the cache
			got, err := tokens.Verify(token)
			if err != nil {
				t.Fatalf("%v: %v", c.scopes, err)
			}
			if fmt.Sprint(*got) != fmt.Sprint(made) || got.Subject != c.subject || !slices.Equal(got.Scopes.Strings(), c.scopes) {
				t.Errorf("%+v was made, %+v is read", made, *got)
			}
		}
		if ms := time.Millisecond; made.Issued != clock.now.Truncate(ms) || made.Expires != clock.now.Add(c.life).Truncate(ms) {
			t.Errorf("made %v until %v, for %v", made.Issued, made.Expires, c.life)
		}
		if len(made.ID) != 32 || !tokens.MadeID(made.ID) {
			t.Errorf("jti %q", made.ID)
		}
	}
	a, _ := issue(t, tokens, Root, time.Hour, "read")
	b, _ := issue(t, tokens, Root, time.Hour, "read")
	if a == b {
		t.Error("two tokens are the same")
	}
}

func TestIssueRefuses(t *testing.T) {
	tokens := clientTokens(newClock(), secretA)
	read := scopes(t, "read")
	var many Scopes
	for i := range 4 {
		many = append(many, Grant{ScopeRead, fmt.Sprint(i) + strings.Repeat("x", 1000)})
	}
	for _, c := range []struct {
		name    string
		subject string
		scopes  Scopes
		life    time.Duration
	}{
		{"too short", Root, read, MinTokenLife - 1},
		{"negative", Root, read, -time.Hour},
		{"too long", Root, read, MaxTokenLife + 1},
		{"nobody", "", read, time.Hour},
		{"anonymous", Anonymous, read, time.Hour},
		{"a nickname", "alice", read, time.Hour},
		{"upper case", strings.ToUpper(alice), read, time.Hour},
		{"no scopes", Root, nil, time.Hour},
		{"unknown scope", Root, Scopes{{Scope: 9}}, time.Hour},
		{"a prefix that is none", Root, Scopes{{ScopeRead, "a//b"}}, time.Hour},
		{"twice", Root, Scopes{{ScopeRead, "a"}, {ScopeRead, "a"}}, time.Hour},
		{"more than fits", Root, many, time.Hour},
	} {
		if token, _, err := tokens.Issue(c.subject, c.scopes, c.life); !errors.Is(err, ErrInvalid) || token != "" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// The bytes of a token are part of the protocol: nodes of all versions accept it.
func TestGoldenClientToken(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImRiNGQ5ZDBmMjc2MDU0NjUiLCJ0eXAiOiJKV1QifQ." +
		"eyJhdWQiOiJrdnMtY2xpZW50IiwiZXhwIjoxNzAwMDAzNjAwLCJpYXQiOjE3MDAwMDAwMDAsImlzcyI6Imt2cyIs" +
		"Imp0aSI6IkFBQUFBQUFBQUFBQUFBQUFBQUFBQUI3Q0RtelRUdDJpIiwic2NvcGVzIjpbImFkbWluIiwicmVhZDpwdWIvIl0sInN1YiI6InJvb3QifQ." +
		"1nRC0QLp_uQGbVp9u2PCVmEckDsrXycKPJ5Mt9bMCfg"
	if made := authtest.Good(string(secretA), newClock().now); made != token {
		t.Errorf("authtest makes %s", made)
	}
	tokens := clientTokens(newClock(), secretA)
	c, err := tokens.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if got := tokens.keys[0].sign(encodeClaims(*c)); got != token {
		t.Errorf("a token of the same claims is spelled %s, not %s", got, token)
	}
}

// Tokens are JWTs like any others for who has the key.
func TestClientTokenIsAJWT(t *testing.T) {
	clock := newClock()
	token, c := issue(t, clientTokens(clock, secretA), alice, time.Hour, "read:pub/", "jobs")
	var claims struct {
		jwt.RegisteredClaims
		Scopes []string `json:"scopes"`
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer("kvs"), jwt.WithAudience("kvs-client"),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(clock.Now), jwt.WithStrictDecoding())
	parsed, err := parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return derive(secretA, labelClientToken), nil })
	if err != nil {
		t.Fatal(err)
	}
	if claims.Subject != alice || claims.ID != c.ID || !claims.ExpiresAt.Equal(c.Expires) || !slices.Equal(claims.Scopes, c.Scopes.Strings()) {
		t.Errorf("claims %+v", claims)
	}
	if parsed.Header["kid"] != fmt.Sprintf("%x", derive(secretA, labelKeyID)[:8]) || parsed.Header["typ"] != "JWT" || len(parsed.Header) != 3 {
		t.Errorf("header %v", parsed.Header)
	}
}

func TestForgedClientTokens(t *testing.T) {
	clock := newClock()
	tokens := clientTokens(clock, secretA)
	good := authtest.Good(string(secretA), clock.now)
	forgeries := authtest.Forgeries(string(secretA), clock.now)
	for range 2 { // before and after the good one is in the cache
		for name, token := range forgeries {
			c, err := tokens.Verify(token)
			if !errors.Is(err, ErrUnauthorized) || c != nil {
				t.Errorf("%s: accepted as %v, %v", name, c, err)
			}
			if len(token) > 16 && strings.Contains(fmt.Sprint(err), token[len(token)-16:]) {
				t.Errorf("%s: the error shows the token: %v", name, err)
			}
		}
		if _, err := tokens.Verify(good); err != nil {
			t.Fatalf("the token that all forgeries start from is refused: %v", err)
		}
	}
	if n := tokens.verified.size(); n != 1 {
		t.Errorf("%d tokens are remembered, one is good", n)
	}
	if len(forgeries) < 700 {
		t.Errorf("%d forgeries only", len(forgeries))
	}
}

// White space that no header carries, and that decoders of base64 skip.
func TestOneSpelling(t *testing.T) {
	clock := newClock()
	tokens := clientTokens(clock, secretA)
	good := authtest.Good(string(secretA), clock.now)
	for _, space := range []string{" ", "\n", "\r\n", "\r", "\t", "\x00", "\u00a0", "\ufeff"} {
		for _, at := range []int{0, 10, strings.IndexByte(good, '.') + 7, len(good) - 3, len(good)} {
			if _, err := tokens.Verify(good[:at] + space + good[at:]); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("accepted with %q at %d: %v", space, at, err)
			}
		}
	}
}

func TestClientTokenEndsOnTheMoment(t *testing.T) {
	for _, cached := range []bool{false, true} {
		clock := newClock()
		tokens := clientTokens(clock, secretA)
		token, c := issue(t, tokens, Root, 1500*time.Millisecond, "read")
		if cached {
			tokens.Verify(token)
		}
		clock.add(c.Expires.Sub(clock.now) - 1)
		if cached {
			if _, err := tokens.Verify(token); err != nil {
				t.Errorf("refused a nanosecond before its end: %v", err)
			}
		} else if _, err := clientTokens(clock, secretA).Verify(token); err != nil {
			t.Errorf("refused a nanosecond before its end: %v", err)
		}
		clock.add(1)
		for range 2 {
			if _, err := tokens.Verify(token); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "expired") {
				t.Errorf("at its end, cached %v: %v", cached, err)
			}
		}
	}
}

func TestClientTokenBegins(t *testing.T) {
	clock := newClock()
	tokens := clientTokens(clock, secretA)
	key := &tokens.keys[0]
	c := encodeClaims(Claims{ID: key.newTokenID(), Subject: Root, Scopes: scopes(t, "read"), Issued: clock.now, Expires: clock.now.Add(time.Hour)})
	c.NotBefore = float64(clock.now.Unix()) + 10
	token := key.sign(c)
	clock.add(10*time.Second - 1)
	if _, err := tokens.Verify(token); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("before its nbf: %v", err)
	}
	clock.add(1)
	if _, err := tokens.Verify(token); err != nil {
		t.Errorf("at its nbf: %v", err)
	}
}

// Milliseconds go through the claims' decimals unharmed.
func TestEveryMillisecond(t *testing.T) {
	clock := newClock()
	tokens := clientTokens(clock, secretA)
	for range 1000 {
		token, made := issue(t, tokens, Root, time.Hour, "read")
		if c, err := tokens.read(token); err != nil || c.Issued != made.Issued || c.Expires != made.Expires {
			t.Fatalf("%+v is read as %+v, %v", made, c, err)
		}
		clock.add(time.Millisecond)
	}
}

func TestIssuersClockMayBeAhead(t *testing.T) {
	ahead := newClock()
	ahead.add(time.Hour)
	token, _ := issue(t, clientTokens(ahead, secretA), Root, time.Minute, "read")
	if _, err := clientTokens(newClock(), secretA).Verify(token); err != nil {
		t.Error(err)
	}
}

func TestClientTokenRotation(t *testing.T) {
	clock := newClock()
	old := clientTokens(clock, secretA)
	changing := clientTokens(clock, secretB, secretA, secretA) // twice, as in previous_secrets and in the file
	done := clientTokens(clock, secretB)
	before, oldClaims := issue(t, old, Root, time.Hour, "read")
	after, newClaims := issue(t, changing, Root, time.Hour, "read")
	for _, c := range []struct {
		name   string
		tokens *ClientTokens
		token  string
		id     string
		ok     bool
	}{
		{"a previous secret's", changing, before, oldClaims.ID, true},
		{"the current one's", changing, after, newClaims.ID, true},
		{"the new one's, when done", done, after, newClaims.ID, true},
		{"the old one's, when done", done, before, oldClaims.ID, false},
		{"a secret to come", old, after, newClaims.ID, false},
	} {
		if _, err := c.tokens.Verify(c.token); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.tokens.MadeID(c.id) != c.ok {
			t.Errorf("%s: MadeID is not %v", c.name, c.ok)
		}
	}
}

func TestMadeID(t *testing.T) {
	tokens := clientTokens(newClock(), secretA)
	_, c := issue(t, tokens, Root, time.Hour, "read")
	for i := range c.ID {
		mistyped := []byte(c.ID)
		if mistyped[i]++; tokens.MadeID(string(mistyped)) {
			t.Errorf("%s is taken for made", mistyped)
		}
	}
	for _, id := range []string{"", "x", c.ID[:31], c.ID + "A", c.ID + "=", c.ID + "\n", c.ID[:5] + "\n" + c.ID[5:], alice, strings.Repeat("A", 32)} {
		if tokens.MadeID(id) {
			t.Errorf("%q is taken for made", id)
		}
	}
}

func TestClientTokenCacheIsBounded(t *testing.T) {
	clock := newClock()
	tokens := clientTokens(clock, secretA)
	used, _ := issue(t, tokens, Root, time.Hour, "read")
	v, err := tokens.verify(used, clock.now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxClientTokens {
		tokens.verified.put(digestOf(fmt.Sprint(i)), v, v.Expires)
		if i%1000 == 0 {
			if again, err := tokens.verify(used, clock.now); err != nil || again != v {
				t.Fatal("a token in use was forgotten")
			}
		}
	}
	if n := tokens.verified.size(); n > maxClientTokens || n < maxClientTokens/2 {
		t.Errorf("%d tokens are remembered", n)
	}
}

func TestClientTokensConcurrently(t *testing.T) {
	clock := newClock()
	tokens := clientTokens(clock, secretA)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				token, c, err := tokens.Issue(Root, Scopes{{Scope: ScopeRead}}, time.Hour)
				if err != nil {
					t.Error(err)
				}
				for range 3 {
					if got, err := tokens.Verify(token); err != nil || got.ID != c.ID {
						t.Errorf("%v, %v", got, err)
					}
				}
				clock.add(time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// Whatever is accepted is, byte for byte, a token that was issued.
func FuzzClientVerify(f *testing.F) {
	clock := newClock()
	tokens := clientTokens(clock, secretA, secretB)
	good := authtest.Good(string(secretA), clock.now)
	previous := authtest.Good(string(secretB), clock.now)
	f.Add("", 0, byte(0), 0)
	f.Add(good, 0, byte(0), 0)
	f.Add(previous, len(previous)-1, byte(1), 0)
	f.Add(good, 0, byte(0), len(good)-1)
	forgeries := authtest.Forgeries(string(secretA), clock.now)
	for _, name := range slices.Sorted(maps.Keys(forgeries)) {
		if strings.HasPrefix(name, "claims ") || strings.HasPrefix(name, "alg ") {
			f.Add(forgeries[name], 0, byte(0), 0)
		}
	}
	// A token as it is, with a byte of it changed, and cut.
	f.Fuzz(func(t *testing.T, token string, at int, change byte, cut int) {
		for _, base := range []string{token, good} {
			b := []byte(base)
			if len(b) > 0 {
				b[uint(at)%uint(len(b))] ^= change
				b = b[:len(b)-int(uint(cut)%uint(len(b)))]
			}
			for _, presented := range []string{base, string(b), string(b) + token, token + string(b)} {
				_, err := tokens.Verify(presented)
				if issued := presented == good || presented == previous; issued != (err == nil) {
					t.Fatalf("issued %v, %v: %q", issued, err, presented)
				}
				if err != nil && !errors.Is(err, ErrUnauthorized) {
					t.Fatal(err)
				}
			}
		}
	})
}
