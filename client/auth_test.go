package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvs/types"
)

// once gives a client of a node that answers every call with the same, and the
// call that it got last, as "METHOD path?query body".
func once(t *testing.T, status int, body string) (*Client, *string) {
	t.Helper()
	got := new(string)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*got = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + string(b))
		if len(b) > 0 && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: content type %q", *got, r.Header.Get("Content-Type"))
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	return c, got
}

func TestAuthCalls(t *testing.T) {
	ctx := t.Context()
	user := User{"u1", "Ada", 7, []string{"g1"}}
	group := Group{"g1", "staff", 8, []string{"u1"}}
	token := TokenInfo{"j1", "u1", []string{"read", "write:a/"}, 7, 9}
	const (
		userJSON  = `{"uuid":"u1","nickname":"Ada","created":7,"groups":["g1"]}`
		groupJSON = `{"uuid":"g1","nickname":"staff","created":8,"members":["u1"]}`
		tokenJSON = `{"jti":"j1","subject":"u1","scopes":["read","write:a/"],"created":7,"expires_at":9}`
	)
	for name, tt := range map[string]struct {
		status int
		body   string
		call   func(*Client) (any, error)
		sent   string
		want   any
	}{
		"add user": {201, `{"uuid":"u1"}`, func(c *Client) (any, error) { return c.AddUser(ctx, `A"<`) },
			`POST /auth/users {"nickname":"A\"<"}`, "u1"},
		"users": {200, `{"users":[` + userJSON + `]}`, func(c *Client) (any, error) { return c.Users(ctx) },
			`GET /auth/users`, []User{user}},
		"user": {200, userJSON, func(c *Client) (any, error) { return c.User(ctx, "Ada L/é?") },
			`GET /auth/users/Ada%20L%2F%C3%A9%3F`, user},
		"delete user": {204, "", func(c *Client) (any, error) { return nil, c.DeleteUser(ctx, "u1") },
			`DELETE /auth/users/u1`, nil},
		"add group": {201, `{"uuid":"g1"}`, func(c *Client) (any, error) { return c.AddGroup(ctx, "staff") },
			`POST /auth/groups {"nickname":"staff"}`, "g1"},
		"groups": {200, `{"groups":[` + groupJSON + `]}`, func(c *Client) (any, error) { return c.Groups(ctx) },
			`GET /auth/groups`, []Group{group}},
		"group": {200, groupJSON, func(c *Client) (any, error) { return c.Group(ctx, "g1") },
			`GET /auth/groups/g1`, group},
		"delete group": {204, "", func(c *Client) (any, error) { return nil, c.DeleteGroup(ctx, "g1") },
			`DELETE /auth/groups/g1`, nil},
		"join": {204, "", func(c *Client) (any, error) { return nil, c.AddMember(ctx, "g1", "a b") },
			`PUT /auth/groups/g1/members/a%20b`, nil},
		"leave": {204, "", func(c *Client) (any, error) { return nil, c.RemoveMember(ctx, "g1", "u1") },
			`DELETE /auth/groups/g1/members/u1`, nil},
		"create token": {201, `{"token":"t","expires_at":9,"jti":"j1"}`, func(c *Client) (any, error) {
			return c.CreateToken(ctx, TokenRequest{User: "u1", Scopes: []string{"read", "write:users/"}, ExpiresIn: 15 * time.Minute})
		}, `POST /auth/tokens {"user_uuid":"u1","scopes":["read","write:users/"],"expires_in":"15m0s"}`, NewToken{"t", 9, "j1"}},
		"create token, defaults": {201, `{"token":"t","expires_at":9,"jti":"j1"}`, func(c *Client) (any, error) {
			return c.CreateToken(ctx, TokenRequest{Scopes: []string{"admin"}})
		}, `POST /auth/tokens {"scopes":["admin"]}`, NewToken{"t", 9, "j1"}},
		"tokens": {200, `{"tokens":[` + tokenJSON + `]}`, func(c *Client) (any, error) { return c.Tokens(ctx) },
			`GET /auth/tokens`, []TokenInfo{token}},
		"token": {200, tokenJSON, func(c *Client) (any, error) { return c.Token(ctx, "j1") },
			`GET /auth/tokens/j1`, token},
		"revoke": {204, "", func(c *Client) (any, error) { return nil, c.RevokeToken(ctx, "j1") },
			`DELETE /auth/tokens/j1`, nil},
		"me": {200, `{"subject":"u1","nickname":"Ada","groups":["g1"],"scopes":["read"],"jti":"j1","expires_at":9}`,
			func(c *Client) (any, error) { return c.Me(ctx) },
			`GET /auth/me`, Me{"u1", "Ada", []string{"g1"}, []string{"read"}, "j1", 9}},
	} {
		t.Run(name, func(t *testing.T) {
			c, sent := once(t, tt.status, tt.body)
			got, err := tt.call(c)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
			if *sent != tt.sent {
				t.Errorf("sent %s\nwant %s", *sent, tt.sent)
			}
		})
	}
}

// Such a name would be the path of another call, of the list for example.
func TestNamesThatArePathsAreNotSent(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	ctx := t.Context()
	for _, name := range []string{"", ".", ".."} {
		_, user := c.User(ctx, name)
		_, token := c.Token(ctx, name)
		for i, err := range []error{user, token, c.DeleteUser(ctx, name), c.RevokeToken(ctx, name),
			c.AddMember(ctx, "g", name), c.RemoveMember(ctx, name, "u")} {
			if err == nil {
				t.Errorf("%q, call %d: no error", name, i)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	all := []error{ErrUnauthorized, ErrForbidden, ErrRateLimited, ErrNameTaken, types.ErrNotFound}
	for _, tt := range []struct {
		status int
		code   string
		want   error
	}{
		{401, "unauthorized", ErrUnauthorized},
		{403, "forbidden", ErrForbidden},
		{429, "rate_limited", ErrRateLimited},
		{409, "name_taken", ErrNameTaken},
		{404, "user_not_found", types.ErrNotFound},
		{404, "group_not_found", types.ErrNotFound},
		{404, "token_not_found", types.ErrNotFound},
		{401, "", ErrUnauthorized}, // a proxy in between
		{403, "", ErrForbidden},
		{429, "", ErrRateLimited},
		{404, "", nil}, // the key may be there, where no proxy looks
		{403, "feature_disabled", nil},
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) { problem(w, tt.status, tt.code, "why") })
		_, err := c.Me(t.Context())
		for _, target := range all {
			if errors.Is(err, target) != (target == tt.want) {
				t.Errorf("%d %s: %v is or is not %v", tt.status, tt.code, err, target)
			}
		}
	}
}

func TestRateLimitIsWaitedOut(t *testing.T) {
	for name, tt := range map[string]struct {
		after    string
		attempts int
		wait     time.Duration
	}{
		"soon":     {"2", 4, 6 * time.Second},
		"too late": {"60", 1, 0},
		"unknown":  {"", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := &counted{answer: func(int, *http.Request) (*http.Response, error) {
					return answer(429, `{"code":"rate_limited"}`, "Retry-After", tt.after)
				}}
				c, err := New(Options{Transport: tr})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err = c.AddUser(t.Context(), "a")
				if !errors.Is(err, ErrRateLimited) || tr.attempts != tt.attempts || time.Since(start) != tt.wait {
					t.Errorf("%v after %d attempts and %v", err, tr.attempts, time.Since(start))
				}
			})
		})
	}
}

func TestTokenSource(t *testing.T) {
	var mu sync.Mutex
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		values := r.Header.Values("Authorization")
		got = append(got, strings.Join(values, "+"))
		if len(got) == 1 { // so that the first call takes two attempts
			w.Header().Set("Retry-After", "0")
			problem(w, 503, "syncing", "")
			return
		}
		w.Write([]byte(`{"status":"ok"}`))
	}))
	defer server.Close()
	tokens := []string{"one", "two", "", "bad token", "!"}
	c, err := New(Options{URL: server.URL, TokenSource: func() (string, error) {
		next := tokens[0]
		tokens = tokens[1:]
		if next == "!" {
			return "", errors.New("no secret here")
		}
		return next, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"Bearer one", "Bearer two", ""}; !reflect.DeepEqual(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	_, err = c.Health(t.Context())
	if err == nil || strings.Contains(err.Error(), "bad token") || errors.Is(err, types.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if _, err = c.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "no secret here") || errors.Is(err, types.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if len(got) != 3 {
		t.Errorf("something was sent without a token: %q", got)
	}
	if _, err := New(Options{Token: "a", TokenSource: func() (string, error) { return "", nil }}); err == nil {
		t.Error("two ways to a token were taken")
	}
}
