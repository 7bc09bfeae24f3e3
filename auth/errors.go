package auth

import (
	"errors"
	"fmt"

	"kvs/types"
)

// Outcomes that callers branch on.
var (
	// ErrUnauthorized is any refusal of a token, or of a request without one.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNoToken is the ErrUnauthorized of a request that brings no token at all.
	ErrNoToken = fmt.Errorf(`%w: no token: send one as "Authorization: Bearer TOKEN"`, ErrUnauthorized)
	// ErrInvalid is any refusal of what a caller asked for: a scope, a nickname or
	// a token's life that breaks the rules. The error says which rule.
	ErrInvalid = errors.New("invalid")
	// ErrNameTaken: another user, or another group, has the nickname.
	ErrNameTaken = errors.New("the nickname is taken")
	// ErrAmbiguous: several have the nickname, since nodes that could not talk gave
	// it out at once. Their UUIDs still tell them apart.
	ErrAmbiguous = errors.New("several have this nickname: use the UUID")
)

// What was not found. Each is also types.ErrNotFound.
const (
	ErrUserNotFound  = notFound("user not found")
	ErrGroupNotFound = notFound("group not found")
	ErrTokenNotFound = notFound("token not found")
)

type notFound string

func (e notFound) Error() string { return string(e) }

// Is makes it types.ErrNotFound too.
func (e notFound) Is(target error) bool { return target == types.ErrNotFound }
