package auth

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"kvs/types"
)

// A node token is a JWT (RFC 7519) signed with HS256, with these claims and no
// others needed:
//
//	iss     "kvs"
//	aud     "kvs-node"
//	sub     UUID of the node that made it
//	iat     when it was made
//	exp     at most 60 s later
//	jti     a random UUID
//	method  of the requests that it is for
//	path    of the requests that it is for
//
// It proves that its maker has the secret, and is good for one method and path
// only. It does not cover the body: whoever can read the connection can repeat
// the call with another body within that minute, so an open network needs TLS.
const (
	nodeIssuer   = "kvs"
	nodeAudience = "kvs-node"

	nodeTokenLife  = 60 * time.Second
	nodeTokenReuse = 30 * time.Second // a token made for one request serves those of the next 30 s

	maxNodeToken  = 2048 // bytes; longer ones are not even parsed
	maxNodeTokens = 4096 // in each of the two caches
)

type nodeClaims struct {
	jwt.RegisteredClaims
	Method string `json:"method"`
	Path   string `json:"path"`
}

// NodeTokensOptions configure NodeTokens. Keys and Node are required.
type NodeTokensOptions struct {
	Keys         Keys
	Node         types.NodeID
	MaxClockSkew time.Duration    // between nodes; 0: 5 s. Tokens are accepted for 30 s more, so that a node whose clock is off can be told so
	Now          func() time.Time // nil: time.Now
}

// NodeTokens makes and checks the tokens by which nodes prove themselves to each
// other. It is safe for concurrent use.
//
// To sign and to parse for each request would cost more than the request's own
// work, so tokens are reused, and those that were verified are remembered.
type NodeTokens struct {
	node    types.NodeID
	signing []byte
	accept  jwt.VerificationKeySet
	parser  *jwt.Parser
	leeway  time.Duration
	now     func() time.Time

	signed   *cache[target, signedToken]
	verified *cache[digest, verifiedToken] // valid ones only, so strangers cannot fill it
}

// target is what a token is for.
type target struct{ method, path string }

type signedToken struct {
	token string
	made  time.Time
}

type verifiedToken struct {
	target
	node    types.NodeID
	expires time.Time
}

// NewNodeTokens makes the tokens of one node.
func NewNodeTokens(o NodeTokensOptions) *NodeTokens {
	if o.MaxClockSkew == 0 {
		o.MaxClockSkew = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &NodeTokens{
		node:     o.Node,
		signing:  o.Keys.nodeToken[0],
		leeway:   o.MaxClockSkew + 30*time.Second,
		now:      o.Now,
		signed:   newCache[target, signedToken](maxNodeTokens),
		verified: newCache[digest, verifiedToken](maxNodeTokens),
	}
	for _, key := range o.Keys.nodeToken {
		t.accept.Keys = append(t.accept.Keys, key)
	}
	t.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithIssuer(nodeIssuer),
		jwt.WithAudience(nodeAudience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(t.leeway),
		jwt.WithTimeFunc(o.Now),
		jwt.WithStrictDecoding(),
	)
	return t
}

// Sign gives a token for requests of a method to a path.
func (t *NodeTokens) Sign(method, path string) string {
	to, now := target{method, path}, t.now()
	// Not before it was made either, or a clock set back would stretch its use.
	if s, ok := t.signed.get(to, now); ok && !now.Before(s.made) {
		return s.token
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, nodeClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    nodeIssuer,
			Audience:  jwt.ClaimStrings{nodeAudience},
			Subject:   t.node.String(),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(nodeTokenLife)),
			ID:        uuid.NewString(),
		},
		Method: method,
		Path:   path,
	}).SignedString(t.signing)
	if err != nil {
		panic(fmt.Sprintf("auth: an HMAC over plain claims failed: %v", err))
	}
	t.signed.put(to, signedToken{token, now}, now.Add(nodeTokenReuse))
	return token
}

// Verify checks a token that came with a request of a method to a path, and
// gives the node that made it. The error wraps ErrUnauthorized.
func (t *NodeTokens) Verify(token, method, path string) (types.NodeID, error) {
	if len(token) > maxNodeToken {
		return types.NodeID{}, fmt.Errorf("%w: node token: it is longer than %d bytes", ErrUnauthorized, maxNodeToken)
	}
	d := digestOf(token)
	v, ok := t.verified.get(d, t.now())
	if !ok {
		var err error
		if v, err = t.verify(token); err != nil {
			return types.NodeID{}, fmt.Errorf("%w: node token: %w", ErrUnauthorized, err)
		}
		t.verified.put(d, v, v.expires)
	}
	if v.target != (target{method, path}) {
		return types.NodeID{}, fmt.Errorf("%w: node token: it is for %s %s", ErrUnauthorized, v.method, v.path)
	}
	return v.node, nil
}

func (t *NodeTokens) verify(token string) (verifiedToken, error) {
	var c nodeClaims
	_, err := t.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return t.accept, nil })
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return verifiedToken{}, fmt.Errorf("%w: it was made with another cluster_secret, or is forged", err)
	case errors.Is(err, jwt.ErrTokenExpired), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return verifiedToken{}, fmt.Errorf("%w: if it was just made, the nodes' clocks differ by more than %s: "+
			"set them by NTP", err, t.leeway)
	case err != nil:
		return verifiedToken{}, err
	}
	// What the parser leaves optional.
	switch {
	case c.IssuedAt == nil:
		return verifiedToken{}, errors.New("it has no iat claim")
	case c.ExpiresAt.Sub(c.IssuedAt.Time) > nodeTokenLife:
		return verifiedToken{}, fmt.Errorf("it lives longer than %s", nodeTokenLife)
	case len(c.Audience) != 1:
		return verifiedToken{}, errors.New("it has more than one audience")
	case c.ID == "":
		return verifiedToken{}, errors.New("it has no jti claim")
	case c.Method == "" || c.Path == "":
		return verifiedToken{}, errors.New("it has no method or path claim")
	}
	node, err := types.ParseNodeID(c.Subject)
	if err != nil || node.IsZero() || node.String() != c.Subject {
		return verifiedToken{}, errors.New("its sub claim is not the UUID of a node")
	}
	return verifiedToken{target{c.Method, c.Path}, node, c.ExpiresAt.Add(t.leeway)}, nil
}

// Authorize puts a token for this request into its Authorization header.
func (t *NodeTokens) Authorize(r *http.Request) {
	method := r.Method
	if method == "" {
		method = http.MethodGet // what net/http sends for ""
	}
	r.Header.Set("Authorization", "Bearer "+t.Sign(method, r.URL.Path))
}

// Caller gives the node that a request comes from, and refuses one that does not
// come from a node of this cluster. The error wraps ErrUnauthorized and says why.
func (t *NodeTokens) Caller(r *http.Request) (types.NodeID, error) {
	token, err := bearer(r.Header)
	if err != nil {
		return types.NodeID{}, fmt.Errorf("a node token is needed: %w", err)
	}
	return t.Verify(token, r.Method, r.URL.Path)
}

// Authenticate is Caller where it does not matter which node it is.
func (t *NodeTokens) Authenticate(r *http.Request) error {
	_, err := t.Caller(r)
	return err
}
