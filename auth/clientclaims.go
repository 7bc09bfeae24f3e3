package auth

import (
	"math"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// clientClaims are the claims as they are written: in this order, and only with
// these members. Nothing needs to say which are required, since encoding what
// was read gives all but nbf.
type clientClaims struct {
	Audience  string   `json:"aud"`
	Expires   float64  `json:"exp"`
	Issued    float64  `json:"iat"`
	Issuer    string   `json:"iss"`
	ID        string   `json:"jti"`
	NotBefore float64  `json:"nbf,omitempty"`
	Scopes    []string `json:"scopes"`
	Subject   string   `json:"sub"`
}

func encodeClaims(c Claims) clientClaims {
	seconds := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	return clientClaims{
		Audience: clientAudience,
		Expires:  seconds(c.Expires),
		Issued:   seconds(c.Issued),
		Issuer:   clientIssuer,
		ID:       c.ID,
		Scopes:   c.Scopes.Strings(),
		Subject:  c.Subject,
	}
}

// check asks what the library does not.
func (c clientClaims) check(key *clientKey) (Claims, error) {
	issued, ok := instant(c.Issued)
	expires, _ := instant(c.Expires) // the library has asked for it
	// Issue gives no longer life; that of a revocation's mark relies on it.
	if life := expires.Sub(issued); !ok || life <= 0 || life > MaxTokenLife {
		return Claims{}, errLife
	}
	if !validSubject(c.Subject) {
		return Claims{}, errSubject
	}
	if !key.madeID(c.ID) {
		return Claims{}, errTokenID
	}
	scopes, err := ParseScopes(c.Scopes)
	if err != nil {
		return Claims{}, errScopeClaim
	}
	return Claims{ID: c.ID, Subject: c.Subject, Scopes: scopes, Issued: issued, Expires: expires}, nil
}

// What follows makes them jwt.Claims. Times keep their milliseconds, which the
// library's own types would drop.

// GetExpirationTime implements jwt.Claims.
func (c clientClaims) GetExpirationTime() (*jwt.NumericDate, error) { return date(c.Expires) }

// GetIssuedAt implements jwt.Claims.
func (c clientClaims) GetIssuedAt() (*jwt.NumericDate, error) { return date(c.Issued) }

// GetNotBefore implements jwt.Claims.
func (c clientClaims) GetNotBefore() (*jwt.NumericDate, error) { return date(c.NotBefore) }

// GetIssuer implements jwt.Claims.
func (c clientClaims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject implements jwt.Claims.
func (c clientClaims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience implements jwt.Claims.
func (c clientClaims) GetAudience() (jwt.ClaimStrings, error) {
	return jwt.ClaimStrings{c.Audience}, nil
}

func date(seconds float64) (*jwt.NumericDate, error) {
	t, ok := instant(seconds)
	if !ok {
		return nil, errLife
	}
	if seconds == 0 {
		return nil, nil // absent
	}
	return &jwt.NumericDate{Time: t}, nil
}

// instant reads the seconds of a claim. Beyond the year 5138 it is not ok, since
// no integer would hold it sooner or later.
func instant(seconds float64) (t time.Time, ok bool) {
	const limit = 1e11
	if seconds < 0 || seconds > limit {
		return t, false
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))), true
}

// validSubject reports whether a token may be for s: a UUID in the one spelling
// that records use, or Root.
func validSubject(s string) bool { return s == Root || canonicalUUID(s) }

func canonicalUUID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id != uuid.Nil && id.String() == s
}
