package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"kvs/types"
)

var (
	nodeA = types.NodeID(uuid.MustParse("01890000-0000-7000-8000-00000000000a"))
	nodeB = types.NodeID(uuid.MustParse("01890000-0000-7000-8000-00000000000b"))
)

// testClock is a clock that tests set.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *testClock { return &testClock{now: time.Unix(1_700_000_000, 0)} }

func tokens(node types.NodeID, clock *testClock, current Secret, previous ...Secret) *NodeTokens {
	return NewNodeTokens(NodeTokensOptions{
		Keys: DeriveKeys(Secrets{Current: current, Previous: previous}),
		Node: node,
		Now:  clock.Now,
	})
}

func request(method, path string) *http.Request { return httptest.NewRequest(method, path, nil) }

func TestNodesProveThemselves(t *testing.T) {
	clock := newClock()
	a, b := tokens(nodeA, clock, secretA), tokens(nodeB, clock, secretA)
	for range 3 { // the second time from the caches
		r := request("POST", "/sync/push")
		a.Authorize(r)
		if err := b.Authenticate(r); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Verify(a.Sign("POST", "/sync/push"), "POST", "/sync/push"); err != nil || got != nodeA {
			t.Fatalf("Verify gives %v, %v", got, err)
		}
	}
	r := &http.Request{URL: request("GET", "/sync/gossip").URL, Header: http.Header{}} // GET by default
	a.Authorize(r)
	r.Method = "GET"
	if err := b.Authenticate(r); err != nil {
		t.Error(err)
	}
}

func TestTokenIsGoodForItsRequestOnly(t *testing.T) {
	clock := newClock()
	a, b := tokens(nodeA, clock, secretA), tokens(nodeB, clock, secretA)
	token := a.Sign("POST", "/sync/push")
	for range 2 { // before and after it is in the cache
		for _, r := range []target{{"GET", "/sync/push"}, {"POST", "/sync/push/"}, {"POST", "/sync/hello"}, {"POST", ""}} {
			if _, err := b.Verify(token, r.method, r.path); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("a token for POST /sync/push was taken for %v: %v", r, err)
			}
		}
		if _, err := b.Verify(token, "POST", "/sync/push"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	clock := newClock()
	a := tokens(nodeA, clock, secretA)
	token := a.Sign("POST", "/sync/push")
	for _, c := range []struct {
		name   string
		values []string
		ok     bool
	}{
		{"right", []string{"Bearer " + token}, true},
		{"scheme in lower case", []string{"bearer " + token}, true},
		{"none", nil, false},
		{"empty", []string{""}, false},
		{"two", []string{"Bearer " + token, "Bearer " + token}, false},
		{"no scheme", []string{token}, false},
		{"other scheme", []string{"Basic " + token}, false},
		{"scheme alone", []string{"Bearer"}, false},
		{"two spaces", []string{"Bearer  " + token}, false},
		{"something behind", []string{"Bearer " + token + " x"}, false},
	} {
		r := request("POST", "/sync/push")
		if c.values != nil {
			r.Header["Authorization"] = c.values
		}
		if err := a.Authenticate(r); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// forge signs any claims with any key.
func forge(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestForgedNodeTokens(t *testing.T) {
	clock := newClock()
	now := clock.now.Unix()
	b := tokens(nodeB, clock, secretA)
	key := DeriveKeys(Secrets{Current: secretA}).nodeToken[0]
	good := jwt.MapClaims{
		"iss": "kvs", "aud": "kvs-node", "sub": nodeA.String(), "iat": now, "exp": now + 60, "jti": "1",
		"method": "POST", "path": "/sync/push",
	}
	with := func(name string, value any) jwt.MapClaims {
		c := maps.Clone(good)
		if c[name] = value; value == nil {
			delete(c, name)
		}
		return c
	}
	hs256 := jwt.SigningMethodHS256
	valid := forge(t, hs256, key, good)
	if node, err := b.Verify(valid, "POST", "/sync/push"); err != nil || node != nodeA {
		t.Fatalf("the claims that all cases start from are refused: %v", err)
	}
	parts := strings.Split(valid, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."

	cases := map[string]string{
		"empty":                   "",
		"garbage":                 "x",
		"three empty parts":       "..",
		"no algorithm":            unsigned,
		"no algorithm, signed":    unsigned + parts[2],
		"alg none":                forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good),
		"HS384":                   forge(t, jwt.SigningMethodHS384, key, good),
		"HS512":                   forge(t, jwt.SigningMethodHS512, key, good),
		"signature cut off":       parts[0] + "." + parts[1] + ".",
		"signature of another":    parts[0] + "." + parts[1] + "." + strings.Split(forge(t, hs256, key, with("jti", "2")), ".")[2],
		"payload of another":      parts[0] + "." + strings.Split(forge(t, hs256, key, with("jti", "2")), ".")[1] + "." + parts[2],
		"padded":                  valid + "=",
		"fourth part":             valid + "." + parts[2],
		"another secret":          forge(t, hs256, DeriveKeys(Secrets{Current: secretB}).nodeToken[0], good),
		"the secret itself":       forge(t, hs256, []byte(secretA), good),
		"the gossip key":          forge(t, hs256, DeriveKeys(Secrets{Current: secretA}).Gossip, good),
		"a client token":          forge(t, hs256, derive(secretA, "kvs v1 client token"), with("aud", "kvs-client")),
		"a client token's key":    forge(t, hs256, derive(secretA, "kvs v1 client token"), good),
		"a client's audience":     forge(t, hs256, key, with("aud", "kvs-client")),
		"two audiences":           forge(t, hs256, key, with("aud", []string{"kvs-node", "kvs-client"})),
		"expired":                 forge(t, hs256, key, with("exp", now-36)),
		"made in the future":      forge(t, hs256, key, jwtIn(good, now+36)),
		"not valid yet":           forge(t, hs256, key, with("nbf", now+36)),
		"too long a life":         forge(t, hs256, key, with("exp", now+61)),
		"exp is no number":        forge(t, hs256, key, with("exp", "soon")),
		"exp is huge":             forge(t, hs256, key, with("exp", 1e300)),
		"other issuer":            forge(t, hs256, key, with("iss", "other")),
		"sub is no UUID":          forge(t, hs256, key, with("sub", "node1")),
		"sub is nobody":           forge(t, hs256, key, with("sub", uuid.Nil.String())),
		"sub in another spelling": forge(t, hs256, key, with("sub", "urn:uuid:"+nodeA.String())),
		"other path":              forge(t, hs256, key, with("path", "/sync/hello")),
		"other method":            forge(t, hs256, key, with("method", "GET")),
		"too long":                forge(t, hs256, key, with("jti", strings.Repeat("x", maxNodeToken))),
	}
	for name := range good {
		cases["without "+name] = forge(t, hs256, key, with(name, nil))
	}
	for name, token := range cases {
		for range 2 { // a refusal is not remembered as anything else
			if node, err := b.Verify(token, "POST", "/sync/push"); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("%s: accepted as %v, %v", name, node, err)
			}
		}
	}
}

// jwtIn moves a token's life to begin at iat.
func jwtIn(c jwt.MapClaims, iat int64) jwt.MapClaims {
	c = maps.Clone(c)
	c["iat"], c["exp"] = iat, iat+60
	return c
}

func TestClocksMayDiffer(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration // the signer's clock
		ok    bool
	}{
		{0, true}, {35 * time.Second, true}, {-94 * time.Second, true},
		{40 * time.Second, false}, {-96 * time.Second, false}, {time.Hour, false},
	} {
		clock := newClock()
		ahead := &testClock{now: clock.now.Add(c.ahead)}
		a, b := tokens(nodeA, ahead, secretA), tokens(nodeB, clock, secretA)
		_, err := b.Verify(a.Sign("GET", "/"), "GET", "/")
		if (err == nil) != c.ok {
			t.Errorf("ahead by %v: %v", c.ahead, err)
		}
		if !c.ok && !strings.Contains(fmt.Sprint(err), "clocks differ") {
			t.Errorf("ahead by %v: %v does not speak of clocks", c.ahead, err)
		}
	}
}

func TestRememberedTokensExpire(t *testing.T) {
	clock := newClock()
	a := tokens(nodeA, clock, secretA)
	token := a.Sign("GET", "/")
	for range 94 {
		if _, err := a.Verify(token, "GET", "/"); err != nil {
			t.Fatal(err)
		}
		clock.add(time.Second)
	}
	clock.add(2 * time.Second)
	if _, err := a.Verify(token, "GET", "/"); !errors.Is(err, ErrUnauthorized) {
		t.Fatalf("an expired token: %v", err)
	}
}

func TestSignReusesTokensForHalfTheirLife(t *testing.T) {
	clock := newClock()
	a := tokens(nodeA, clock, secretA)
	first := a.Sign("GET", "/")
	clock.add(29 * time.Second)
	if a.Sign("GET", "/") != first {
		t.Error("a new token within 30 s")
	}
	if a.Sign("GET", "/other") == first || a.Sign("POST", "/") == first {
		t.Error("one token for two targets")
	}
	clock.add(time.Second)
	second := a.Sign("GET", "/")
	if second == first {
		t.Error("the same token after 30 s")
	}
	clock.add(-time.Hour)
	if a.Sign("GET", "/") == second {
		t.Error("the same token after the clock was set back")
	}
}

func TestRotation(t *testing.T) {
	clock := newClock()
	old := tokens(nodeA, clock, secretA)
	changing := tokens(nodeB, clock, secretB, secretA)
	done := tokens(nodeB, clock, secretB)
	verify := func(by, of *NodeTokens) error {
		_, err := by.Verify(of.Sign("GET", "/"), "GET", "/")
		return err
	}
	if err := verify(changing, old); err != nil {
		t.Errorf("the previous secret is refused: %v", err)
	}
	if err := verify(done, changing); err != nil {
		t.Errorf("a node with a previous secret signs with it: %v", err)
	}
	if verify(old, changing) == nil || verify(done, old) == nil {
		t.Error("a secret that is not listed was accepted")
	}
}

func TestCachesAreBounded(t *testing.T) {
	clock := newClock()
	a := tokens(nodeA, clock, secretA)
	for range 100 {
		a.Verify("forged", "GET", "/")
	}
	for i := range 10 {
		path := fmt.Sprint("/", i)
		if _, err := a.Verify(a.Sign("GET", path), "GET", path); err != nil {
			t.Fatal(err)
		}
	}
	if a.signed.size() != 10 || a.verified.size() != 10 {
		t.Errorf("%d signed and %d verified tokens are kept, of ten", a.signed.size(), a.verified.size())
	}
	for i := range 2 * maxNodeTokens {
		path, later := fmt.Sprint("/", i), clock.now.Add(time.Minute)
		a.signed.put(target{"GET", path}, signedToken{made: clock.now}, later)
		a.verified.put(digestOf(path), verifiedToken{}, later)
	}
	if a.signed.size() > maxNodeTokens || a.verified.size() > maxNodeTokens {
		t.Errorf("%d signed and %d verified tokens are kept", a.signed.size(), a.verified.size())
	}
}

func TestConcurrentUse(t *testing.T) {
	clock := newClock()
	a := tokens(nodeA, clock, secretA)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 200 {
				path := fmt.Sprint("/", (n+i)%7)
				if _, err := a.Verify(a.Sign("GET", path), "GET", path); err != nil {
					t.Error(err)
				}
				clock.add(100 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	clock := newClock()
	a := tokens(nodeA, clock, secretA)
	// Not from Sign, whose random jti differs between the fuzzer's processes.
	now := clock.now.Unix()
	valid := forge(f, jwt.SigningMethodHS256, a.signing, jwt.MapClaims{
		"iss": "kvs", "aud": "kvs-node", "sub": nodeA.String(), "iat": now, "exp": now + 60, "jti": "1",
		"method": "GET", "path": "/",
	})
	f.Add(valid)
	f.Add("")
	f.Add("a.b.c")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + ".e30.")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := a.Verify(token, "GET", "/"); err == nil && token != valid {
			t.Fatalf("accepted %q", token)
		}
	})
}

func BenchmarkSignAndVerify(b *testing.B) {
	t := NewNodeTokens(NodeTokensOptions{Keys: DeriveKeys(Secrets{Current: secretA}), Node: nodeA})
	for b.Loop() {
		if _, err := t.Verify(t.Sign("POST", "/sync/push"), "POST", "/sync/push"); err != nil {
			b.Fatal(err)
		}
	}
}
