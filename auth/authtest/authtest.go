// Package authtest makes client tokens that must be refused, for tests of
// whatever takes tokens.
//
// It derives its keys from the secret and spells its tokens by itself, without
// package auth: so it also tests that these have not changed, which are part of
// the protocol between nodes.
package authtest

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Good makes the token that all Forgeries differ from in one thing: made at now,
// for root, with the scopes admin and read:pub/, good for an hour. A test that
// sees it refused would see any refused.
func Good(secret string, now time.Time) string { return newForger(secret, now).good() }

type object = map[string]any

// forger makes tokens with the keys of one secret.
type forger struct {
	secret  string
	now     time.Time
	kid     string
	signing []byte
	header  object // of a good token, as are the claims
	claims  object
}

func newForger(secret string, now time.Time) *forger {
	f := &forger{
		secret:  secret,
		now:     now,
		kid:     hex.EncodeToString(derive(secret, "kvs v1 key id")[:8]),
		signing: derive(secret, "kvs v1 client token"),
	}
	f.header = object{"alg": "HS256", "kid": f.kid, "typ": "JWT"}
	f.claims = object{
		"aud": "kvs-client", "iss": "kvs", "sub": "root", "jti": f.tokenID(0), "scopes": []string{"admin", "read:pub/"},
		"iat": seconds(now), "exp": seconds(now.Add(time.Hour)),
	}
	return f
}

func derive(secret, label string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, label, 32)
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	return key
}

// seconds is an instant as claims have it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// tokenID makes a jti, another one for each n.
func (f *forger) tokenID(n byte) string {
	id := make([]byte, 16)
	id[0] = n
	h := hmac.New(sha256.New, derive(f.secret, "kvs v1 token id"))
	h.Write(id)
	return base64.RawURLEncoding.EncodeToString(h.Sum(id)[:24])
}

func (f *forger) good() string { return f.sign(f.header, f.claims) }

// withHeader signs the good claims under a header in which one member is set, or
// missing if value is nil.
func (f *forger) withHeader(name string, value any) string {
	return f.sign(changed(f.header, name, value), f.claims)
}

// withClaim signs the good claims with one of them set, or missing if value is
// nil.
func (f *forger) withClaim(name string, value any) string {
	return f.sign(f.header, changed(f.claims, name, value))
}

// sign makes a token with the right key and HS256, whatever the header says.
func (f *forger) sign(header, claims any) string {
	return with(jwt.SigningMethodHS256, f.signing, header, claims)
}

// with makes a token with any method and key. Header and claims are encoded, or
// taken as they are if they are strings.
func with(method jwt.SigningMethod, key, header, claims any) string {
	text := part(header) + "." + part(claims)
	signature, err := method.Sign(text, key)
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	return text + "." + encode(signature)
}

// part encodes one of the first two parts of a token. Maps are written with
// their members sorted, as nodes write them.
func part(v any) string {
	if s, ok := v.(string); ok {
		return encode([]byte(s))
	}
	return encode([]byte(text(v)))
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	return string(b)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func changed(o object, name string, value any) object {
	o = maps.Clone(o)
	if o[name] = value; value == nil {
		delete(o, name)
	}
	return o
}
