package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// TokenSource gives the token to send. It is asked for every attempt, so it
// keeps what it gives for as long as that is good; several calls may ask at once.
// "" sends none. An error ends the call before anything is sent.
type TokenSource func() (string, error)

func (o Options) tokenSource() (TokenSource, error) {
	switch {
	case o.TokenSource != nil && o.Token != "":
		return nil, errors.New("both Token and TokenSource are set: remove one")
	case o.TokenSource != nil:
		return o.TokenSource, nil
	}
	if err := checkToken(o.Token); err != nil {
		return nil, err
	}
	return func() (string, error) { return o.Token, nil }, nil
}

// checkToken refuses what could not be sent in a header. It does not show it.
func checkToken(token string) error {
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errors.New("the token holds a space, a line break or a character beyond ASCII; was it copied whole?")
	}
	return nil
}

func (c *Client) authorize(r *http.Request) error {
	token, err := c.token()
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return fmt.Errorf("no token to send: %w", err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}
