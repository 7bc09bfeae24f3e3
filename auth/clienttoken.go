package auth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A client token is a JWT (RFC 7519) signed with HS256. Its header is
//
//	{"alg":"HS256","kid":KID,"typ":"JWT"}
//
// where KID names the key: 16 hexadecimal digits that are derived from the
// secret, and tell nothing about it. Its claims are these and no others:
//
//	aud     "kvs-client"
//	exp     when it ends, in seconds with up to three decimals
//	iat     when it was made, likewise
//	iss     "kvs"
//	jti     names the token; see newTokenID
//	nbf     when it begins; may be absent, and is not written by this version
//	scopes  list of strings; see ParseScopes
//	sub     UUID of a user, or "root"
//
// Both are JSON with the members in that order and no white space, and all three
// parts are base64url without padding. One token so has one spelling, and
// whatever differs in a byte is refused: members in another order or twice, a
// claim unknown here, a header that brings a key along. A claim that a later
// version adds to narrow a token is not overlooked by this one.
//
// golang-jwt signs and verifies, with the algorithm pinned and KID looked up among
// the keys in memory and nowhere else. What it leaves open, the spelling closes:
// the claims that were read are signed anew, and have to give the same token.
const (
	clientIssuer   = "kvs"
	clientAudience = "kvs-client"

	// MinTokenLife and MaxTokenLife bound what Issue gives.
	MinTokenLife = time.Second
	MaxTokenLife = 10 * 365 * 24 * time.Hour

	maxClientToken  = 4096   // bytes; longer ones are not even hashed
	maxClientTokens = 16_384 // in the cache
)

// clientKey is what one secret yields for client tokens.
type clientKey struct {
	id      string // kid
	signing []byte
	tokenID []byte // key of the MAC in a jti
}

func newClientKey(s Secret) clientKey {
	return clientKey{
		id:      hex.EncodeToString(derive(s, labelKeyID)[:8]),
		signing: derive(s, labelClientToken),
		tokenID: derive(s, labelTokenID),
	}
}

// sign gives the token of these claims, of which there is one: header and claims
// are encoded in the order of their members, and HMAC has no randomness.
func (k *clientKey) sign(c clientClaims) string {
	token, err := (&jwt.Token{
		Method: jwt.SigningMethodHS256,
		Header: map[string]any{"alg": jwt.SigningMethodHS256.Alg(), "kid": k.id, "typ": "JWT"},
		Claims: c,
	}).SignedString(k.signing)
	if err != nil {
		// Only for infinite numbers, which JSON cannot have brought.
		panic(fmt.Sprintf("auth: an HMAC over plain claims failed: %v", err))
	}
	return token
}

// Claims are what a client token says.
type Claims struct {
	ID      string // jti
	Subject string // a user's UUID, or Root
	Scopes  Scopes
	Issued  time.Time // to the millisecond, as is Expires
	Expires time.Time // the token is good before that moment
}

// ClientTokensOptions configure ClientTokens. Keys are required.
type ClientTokensOptions struct {
	Keys Keys
	Now  func() time.Time // nil: time.Now
}

// ClientTokens makes and checks the tokens by which clients prove who they are.
// It is safe for concurrent use.
//
// Tokens that were verified are remembered until they expire, so that a request
// costs one hash of its token.
type ClientTokens struct {
	keys     []clientKey // the current secret's first
	byID     map[string]*clientKey
	parser   *jwt.Parser
	now      func() time.Time
	verified *cache[digest, *verifiedClient] // valid ones only, so strangers cannot fill it
}

// verifiedClient is a token that is good. Claims do not change.
type verifiedClient struct {
	Claims
	principal atomic.Pointer[cachedPrincipal] // of the Authenticator
}

// NewClientTokens makes the tokens of a cluster's clients.
func NewClientTokens(o ClientTokensOptions) *ClientTokens {
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &ClientTokens{
		keys:     o.Keys.client,
		byID:     make(map[string]*clientKey, len(o.Keys.client)),
		now:      o.Now,
		verified: newCache[digest, *verifiedClient](maxClientTokens),
	}
	for i := range t.keys {
		t.byID[t.keys[i].id] = &t.keys[i]
	}
	t.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithIssuer(clientIssuer),
		jwt.WithAudience(clientAudience),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(t.now),
		jwt.WithStrictDecoding(),
	)
	return t
}

// Issue makes a token for a subject that is good for life, MinTokenLife to
// MaxTokenLife, from now on. The error wraps ErrInvalid.
func (t *ClientTokens) Issue(subject string, scopes Scopes, life time.Duration) (token string, c Claims, err error) {
	if life < MinTokenLife || life > MaxTokenLife {
		return "", Claims{}, fmt.Errorf("%w: a token cannot be made for %v: give %v to %d days",
			ErrInvalid, life, MinTokenLife, MaxTokenLife/(24*time.Hour))
	}
	if !validSubject(subject) {
		return "", Claims{}, fmt.Errorf("%w: a token is for the UUID of a user, in lower case, or for %q", ErrInvalid, Root)
	}
	// Through its strings, so that no token is made which Verify would refuse.
	if scopes, err = ParseScopes(scopes.Strings()); err != nil {
		return "", Claims{}, err
	}
	key, now := &t.keys[0], t.now()
	c = Claims{
		ID:      key.newTokenID(),
		Subject: subject,
		Scopes:  scopes,
		Issued:  time.UnixMilli(now.UnixMilli()),
		Expires: time.UnixMilli(now.Add(life).UnixMilli()),
	}
	if token = key.sign(encodeClaims(c)); len(token) > maxClientToken {
		return "", Claims{}, fmt.Errorf("%w: the token would have %d bytes, %d are allowed: give fewer or shorter scopes",
			ErrInvalid, len(token), maxClientToken)
	}
	return token, c, nil
}

// Verify checks a token and gives what it says, which is shared and not to be
// changed. It knows nothing of revocations; Authenticator does. The error wraps
// ErrUnauthorized.
func (t *ClientTokens) Verify(token string) (*Claims, error) {
	v, err := t.verify(token, t.now())
	if err != nil {
		return nil, err
	}
	return &v.Claims, nil
}

func (t *ClientTokens) verify(token string, now time.Time) (*verifiedClient, error) {
	if len(token) > maxClientToken {
		return nil, fmt.Errorf("%w: the token is longer than %d bytes", ErrUnauthorized, maxClientToken)
	}
	d := digestOf(token)
	if v, ok := t.verified.get(d, now); ok {
		return v, nil
	}
	c, err := t.read(token)
	if err != nil {
		return nil, fmt.Errorf("%w: the token %w", ErrUnauthorized, err)
	}
	v := &verifiedClient{Claims: c}
	t.verified.put(d, v, c.Expires)
	return v, nil
}

// What is wrong with a token. Only the holder of a secret can make one that gets
// past the first two.
var (
	errMalformed  = errors.New("is not a token")
	errForeign    = errors.New("is not of this cluster, or was made with a cluster_secret that is no longer accepted, or is forged")
	errClaims     = errors.New("does not have the claims of a client token")
	errSpelling   = errors.New("is not spelled as it was made")
	errWrongUse   = errors.New("is not for clients of KVS")
	errExpired    = errors.New("has expired")
	errNotYet     = errors.New("is not valid yet")
	errLife       = errors.New("has an impossible life")
	errSubject    = errors.New("is for no user")
	errTokenID    = errors.New("has a jti that was not made here")
	errScopeClaim = errors.New("has scopes that are not known here")
)

// read verifies a token without the cache.
func (t *ClientTokens) read(token string) (Claims, error) {
	var c clientClaims
	var key *clientKey
	_, err := t.parser.ParseWithClaims(token, &c, func(parsed *jwt.Token) (any, error) {
		id, _ := parsed.Header["kid"].(string)
		if key = t.byID[id]; key == nil {
			return nil, errForeign
		}
		return key.signing, nil
	})
	if err != nil {
		return Claims{}, judge(err)
	}
	if key.sign(c) != token {
		return Claims{}, errSpelling
	}
	return c.check(key)
}

// judge says what the library found, in words that show nothing of the token.
func judge(err error) error {
	for _, known := range []struct{ is, means error }{
		{jwt.ErrTokenExpired, errExpired},
		{jwt.ErrTokenNotValidYet, errNotYet},
		{jwt.ErrTokenInvalidIssuer, errWrongUse},
		{jwt.ErrTokenInvalidAudience, errWrongUse},
		{jwt.ErrTokenInvalidClaims, errClaims},
		{jwt.ErrTokenSignatureInvalid, errForeign},
		{jwt.ErrTokenUnverifiable, errForeign},
	} {
		if errors.Is(err, known.is) {
			return known.means
		}
	}
	return errMalformed
}
