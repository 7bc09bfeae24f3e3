package auth

import (
	"fmt"
	"net/http"
	"strings"
)

// bearer takes the token out of a request's one Authorization header (RFC 6750).
// Without any header the error is ErrNoToken itself, and wraps ErrUnauthorized
// otherwise. The token may be anything, and may share memory with the header.
func bearer(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", ErrNoToken
	}
	if len(values) > 1 {
		return "", fmt.Errorf("%w: %d Authorization headers, one is needed", ErrUnauthorized, len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", fmt.Errorf("%w: the Authorization header is not a Bearer token", ErrUnauthorized)
	}
	return token, nil
}
