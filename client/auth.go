package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// User is somebody with a name. All calls that take a user or a group take the
// UUID, or the nickname where only one has it; the error is types.ErrNotFound
// where there is none. All but Me need the admin scope.
type User struct {
	UUID     string   `json:"uuid"`
	Nickname string   `json:"nickname"`
	Created  int64    `json:"created"` // Unix milliseconds
	Groups   []string `json:"groups"`  // UUIDs
}

// Group is some users, for the rights of items.
type Group struct {
	UUID     string   `json:"uuid"`
	Nickname string   `json:"nickname"`
	Created  int64    `json:"created"` // Unix milliseconds
	Members  []string `json:"members"` // UUIDs of users
}

// TokenInfo is what is known of a token that was made; never the token itself.
type TokenInfo struct {
	ID      string   `json:"jti"`
	Subject string   `json:"subject"` // a user's UUID, or "root"
	Scopes  []string `json:"scopes"`
	Created int64    `json:"created"`    // Unix milliseconds
	Expires int64    `json:"expires_at"` // Unix milliseconds
}

// TokenRequest asks for a token.
type TokenRequest struct {
	User      string        // whose; "": root
	Scopes    []string      // such as "read", "write:users/"; at least one
	ExpiresIn time.Duration // 0: the node's default, 24h
}

// NewToken is a token, which is told once and kept nowhere.
type NewToken struct {
	Token   string `json:"token"`
	Expires int64  `json:"expires_at"` // Unix milliseconds
	ID      string `json:"jti"`        // to revoke it
}

// Me is who the node takes the caller for.
type Me struct {
	Subject  string   `json:"subject"` // a user's UUID, "root" or "anonymous"
	Nickname string   `json:"nickname,omitempty"`
	Groups   []string `json:"groups"` // UUIDs
	Scopes   []string `json:"scopes"`
	ID       string   `json:"jti"`        // of the token; "" without one
	Expires  int64    `json:"expires_at"` // Unix milliseconds; not positive: never
}

// Me asks who the token says that the caller is.
func (c *Client) Me(ctx context.Context) (Me, error) {
	var me Me
	err := c.call(ctx, request{method: http.MethodGet, path: "/auth/me"}, &me)
	return me, err
}

// AddUser makes a user and gives its UUID; ErrNameTaken if another has the
// nickname.
func (c *Client) AddUser(ctx context.Context, nickname string) (string, error) {
	return c.addNamed(ctx, "/auth/users", nickname)
}

// Users lists all users.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	var answer struct{ Users []User }
	err := c.call(ctx, request{method: http.MethodGet, path: "/auth/users"}, &answer)
	return answer.Users, err
}

// User gives one user.
func (c *Client) User(ctx context.Context, user string) (u User, err error) {
	err = c.getNamed(ctx, &u, "users", user)
	return u, err
}

// DeleteUser deletes a user for ever: the tokens are refused from then on, and
// what the user owns stays with the UUID.
func (c *Client) DeleteUser(ctx context.Context, user string) error {
	return c.change(ctx, http.MethodDelete, "users", user)
}

// AddGroup makes a group and gives its UUID; ErrNameTaken if another has the
// nickname.
func (c *Client) AddGroup(ctx context.Context, nickname string) (string, error) {
	return c.addNamed(ctx, "/auth/groups", nickname)
}

// Groups lists all groups.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	var answer struct{ Groups []Group }
	err := c.call(ctx, request{method: http.MethodGet, path: "/auth/groups"}, &answer)
	return answer.Groups, err
}

// Group gives one group.
func (c *Client) Group(ctx context.Context, group string) (g Group, err error) {
	err = c.getNamed(ctx, &g, "groups", group)
	return g, err
}

// DeleteGroup deletes a group for ever.
func (c *Client) DeleteGroup(ctx context.Context, group string) error {
	return c.change(ctx, http.MethodDelete, "groups", group)
}

// AddMember puts a user into a group; no error if it is there already.
func (c *Client) AddMember(ctx context.Context, group, user string) error {
	return c.change(ctx, http.MethodPut, "groups", group, "members", user)
}

// RemoveMember takes a user out of a group.
func (c *Client) RemoveMember(ctx context.Context, group, user string) error {
	return c.change(ctx, http.MethodDelete, "groups", group, "members", user)
}

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, r TokenRequest) (NewToken, error) {
	wire := struct {
		User      string   `json:"user_uuid,omitempty"`
		Scopes    []string `json:"scopes"`
		ExpiresIn string   `json:"expires_in,omitempty"`
	}{User: r.User, Scopes: r.Scopes}
	if r.ExpiresIn != 0 {
		wire.ExpiresIn = r.ExpiresIn.String()
	}
	var t NewToken
	err := c.post(ctx, "/auth/tokens", wire, &t)
	return t, err
}

// Tokens lists the tokens that were made by a node and are good still. One that
// was made from the cluster secret, without a node, is in no list.
func (c *Client) Tokens(ctx context.Context) ([]TokenInfo, error) {
	var answer struct{ Tokens []TokenInfo }
	err := c.call(ctx, request{method: http.MethodGet, path: "/auth/tokens"}, &answer)
	return answer.Tokens, err
}

// Token gives one token of the list, by its jti.
func (c *Client) Token(ctx context.Context, jti string) (t TokenInfo, err error) {
	err = c.getNamed(ctx, &t, "tokens", jti)
	return t, err
}

// RevokeToken makes a token worthless on every node, by its jti, listed or not.
func (c *Client) RevokeToken(ctx context.Context, jti string) error {
	return c.change(ctx, http.MethodDelete, "tokens", jti)
}

func (c *Client) addNamed(ctx context.Context, path, nickname string) (string, error) {
	var made struct{ UUID string }
	err := c.post(ctx, path, map[string]string{"nickname": nickname}, &made)
	return made.UUID, err
}

func (c *Client) getNamed(ctx context.Context, out any, kind, name string) error {
	path, err := authPath(kind, name)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: http.MethodGet, path: path}, out)
}

// change makes a call that has neither a body nor an answer.
func (c *Client) change(ctx context.Context, method string, parts ...string) error {
	path, err := authPath(parts...)
	if err != nil {
		return err
	}
	_, err = c.send(ctx, request{method: method, path: path})
	return err
}

func (c *Client) post(ctx context.Context, path string, body, out any) error {
	b, err := marshal(body)
	if err != nil {
		return err
	}
	return c.call(ctx, request{
		method: http.MethodPost,
		path:   path,
		header: http.Header{"Content-Type": {jsonType}},
		body:   b,
	}, out)
}

// authPath is a path below /auth/. A name that is empty or made of dots would
// make it the path of another call.
func authPath(parts ...string) (string, error) {
	path := "/auth"
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			return "", fmt.Errorf("%q names nothing here; use the UUID", p)
		}
		path += "/" + url.PathEscape(p)
	}
	return path, nil
}
