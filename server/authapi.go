package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"kvs/auth"
	"kvs/storage"
	"kvs/types"
)

// tokenLife is how long a token is good for that does not say.
const tokenLife = 24 * time.Hour

// authCalls are the calls under /auth/.
func (a *api) authCalls() map[string]map[string]call {
	admin := func(h handler) call { return call{withAdmin, a.authOnly(h), false} }
	return map[string]map[string]call{
		"/auth/me":                           {"GET": {withToken, a.authOnly(a.me), false}},
		"/auth/users":                        {"GET": admin(a.users), "POST": admin(a.addUser)},
		"/auth/users/{id}":                   {"GET": admin(a.user), "DELETE": admin(a.deleteUser)},
		"/auth/groups":                       {"GET": admin(a.groups), "POST": admin(a.addGroup)},
		"/auth/groups/{id}":                  {"GET": admin(a.group), "DELETE": admin(a.deleteGroup)},
		"/auth/groups/{id}/members/{member}": {"PUT": admin(a.addMember), "DELETE": admin(a.deleteMember)},
		"/auth/tokens":                       {"GET": admin(a.listTokens), "POST": admin(a.addToken)},
		"/auth/tokens/{id}":                  {"GET": admin(a.token), "DELETE": admin(a.revokeToken)},
	}
}

// authOnly refuses a call on a node that asks nobody who they are.
func (a *api) authOnly(h handler) handler {
	if a.gate.authenticator != nil {
		return h
	}
	return func(http.ResponseWriter, *request) error {
		return featureDisabled.refuse("authentication is off on this node (auth_enabled)")
	}
}

type userJSON struct {
	UUID     string   `json:"uuid"`
	Nickname string   `json:"nickname"`
	Created  int64    `json:"created"`
	Groups   []string `json:"groups"`
}

type groupJSON struct {
	UUID     string   `json:"uuid"`
	Nickname string   `json:"nickname"`
	Created  int64    `json:"created"`
	Members  []string `json:"members"`
}

type tokenJSON struct {
	ID      string   `json:"jti"`
	Subject string   `json:"subject"`
	Scopes  []string `json:"scopes"`
	Created int64    `json:"created"`
	Expires int64    `json:"expires_at"`
}

func userOf(u auth.User) userJSON {
	return userJSON{u.UUID, u.Nickname, u.Created, append([]string{}, u.Groups...)}
}

func groupOf(g auth.Group) groupJSON {
	return groupJSON{g.UUID, g.Nickname, g.Created, append([]string{}, g.Members...)}
}

func tokenOf(t auth.TokenInfo) tokenJSON {
	return tokenJSON{t.ID, t.Subject, append([]string{}, t.Scopes...), t.Created, t.Expires}
}

// listing answers with a list under its name.
func listing[T, J any](name string, all func() []T, of func(T) J) handler {
	return func(w http.ResponseWriter, r *request) error {
		if _, err := parseParams(r); err != nil {
			return err
		}
		list := []J{} // never null
		for _, v := range all() {
			list = append(list, of(v))
		}
		return writeAny(w, http.StatusOK, map[string][]J{name: list})
	}
}

func (a *api) users(w http.ResponseWriter, r *request) error {
	return listing("users", a.people.Users, userOf)(w, r)
}

func (a *api) groups(w http.ResponseWriter, r *request) error {
	return listing("groups", a.people.Groups, groupOf)(w, r)
}

func (a *api) listTokens(w http.ResponseWriter, r *request) error {
	return listing("tokens", a.people.Tokens, tokenOf)(w, r)
}

func (a *api) user(w http.ResponseWriter, r *request) error {
	u, err := a.findUser(r, "id")
	if err != nil {
		return err
	}
	return writeAny(w, http.StatusOK, userOf(u))
}

func (a *api) group(w http.ResponseWriter, r *request) error {
	g, err := a.findGroup(r)
	if err != nil {
		return err
	}
	return writeAny(w, http.StatusOK, groupOf(g))
}

func (a *api) token(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	t, ok := a.people.Token(r.PathValue("id"))
	if !ok {
		return errNoToken(r)
	}
	return writeAny(w, http.StatusOK, tokenOf(t))
}

func errNoToken(r *request) error {
	return tokenNotFound.refuse("no token that is good and listed has the jti %.80q", r.PathValue("id"))
}

// findUser gives the user that a part of the path names, by UUID or nickname.
func (a *api) findUser(r *request, part string) (auth.User, error) {
	if _, err := parseParams(r); err != nil {
		return auth.User{}, err
	}
	u, err := a.people.FindUser(r.PathValue(part))
	return u, lookupError(err, userNotFound, r.PathValue(part))
}

func (a *api) findGroup(r *request) (auth.Group, error) {
	if _, err := parseParams(r); err != nil {
		return auth.Group{}, err
	}
	g, err := a.people.FindGroup(r.PathValue("id"))
	return g, lookupError(err, groupNotFound, r.PathValue("id"))
}

func lookupError(err error, missing *problem, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, types.ErrNotFound):
		return missing.refuse("nobody has the uuid or nickname %.80q", name)
	}
	return invalidParameter.refuse("%s", err)
}

// named is the body that makes a user or a group.
type named struct {
	Nickname string
}

func (a *api) addUser(w http.ResponseWriter, r *request) error {
	return a.add(w, r, func(nickname string) (string, []auth.Change, error) {
		u, changes, err := a.people.NewUser(nickname)
		return u.UUID, changes, err
	})
}

func (a *api) addGroup(w http.ResponseWriter, r *request) error {
	return a.add(w, r, func(nickname string) (string, []auth.Change, error) {
		g, changes, err := a.people.NewGroup(nickname)
		return g.UUID, changes, err
	})
}

func (a *api) add(w http.ResponseWriter, r *request, make func(nickname string) (string, []auth.Change, error)) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	var body named
	if err := a.readSmall(w, r, &body, `{"nickname":"…"}`); err != nil {
		return err
	}
	var id string
	err := a.change(r, func() (changes []auth.Change, err error) {
		id, changes, err = make(body.Nickname)
		return changes, err
	})
	switch {
	case errors.Is(err, auth.ErrNameTaken):
		return nameTaken.refuse("%s", err)
	case errors.Is(err, auth.ErrInvalid):
		return invalidBody.refuse("%s", err)
	case err != nil:
		return err
	}
	return writeAny(w, http.StatusCreated, map[string]string{"uuid": id})
}

func (a *api) deleteUser(w http.ResponseWriter, r *request) error {
	u, err := a.findUser(r, "id")
	if err != nil {
		return err
	}
	return a.remain(w, r, userNotFound, func() ([]auth.Change, error) { return a.people.DeleteUser(u.UUID) })
}

func (a *api) deleteGroup(w http.ResponseWriter, r *request) error {
	g, err := a.findGroup(r)
	if err != nil {
		return err
	}
	return a.remain(w, r, groupNotFound, func() ([]auth.Change, error) { return a.people.DeleteGroup(g.UUID) })
}

func (a *api) addMember(w http.ResponseWriter, r *request) error    { return a.member(w, r, true) }
func (a *api) deleteMember(w http.ResponseWriter, r *request) error { return a.member(w, r, false) }

func (a *api) member(w http.ResponseWriter, r *request, in bool) error {
	g, err := a.findGroup(r)
	if err != nil {
		return err
	}
	u, err := a.findUser(r, "member")
	if err != nil {
		return err
	}
	return a.remain(w, r, userNotFound, func() ([]auth.Change, error) { return a.people.SetMember(g.UUID, u.UUID, in) })
}

// remain answers a change of which there is nothing to tell.
func (a *api) remain(w http.ResponseWriter, r *request, missing *problem, decide func() ([]auth.Change, error)) error {
	if err := a.change(r, decide); err != nil {
		if errors.Is(err, types.ErrNotFound) {
			return missing.refuse("there is no such thing here (any longer): %s", r.URL.Path)
		}
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// addToken answers POST /auth/tokens. The token itself is kept nowhere.
func (a *api) addToken(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	var body struct {
		User      *string `json:"user_uuid"`
		Scopes    []string
		ExpiresIn *string `json:"expires_in"`
	}
	if err := a.readSmall(w, r, &body, `{"user_uuid":"…","scopes":["read","write:users/"],"expires_in":"15m"}`); err != nil {
		return err
	}
	scopes, err := auth.ParseScopes(body.Scopes)
	if err != nil {
		return invalidBody.refuse(`"scopes": %s`, err)
	}
	life := tokenLife
	if body.ExpiresIn != nil {
		if life, err = parseDuration(*body.ExpiresIn); err != nil {
			return invalidBody.refuse(`"expires_in": want a duration such as "15m", "24h" or "30d", not %.40q`, *body.ExpiresIn)
		}
	}
	subject := auth.Root
	if body.User != nil {
		u, err := a.people.FindUser(*body.User)
		if err := lookupError(err, userNotFound, *body.User); err != nil {
			return err
		}
		subject = u.UUID
	}
	token, claims, err := a.tokens.Issue(subject, scopes, life)
	if err != nil {
		return invalidBody.refuse("%s", err)
	}
	if err := a.change(r, func() ([]auth.Change, error) { return a.people.NoteToken(claims), nil }); err != nil {
		return err
	}
	return writeAny(w, http.StatusCreated, struct {
		Token   string `json:"token"`
		Expires int64  `json:"expires_at"`
		ID      string `json:"jti"`
	}{token, claims.Expires.UnixMilli(), claims.ID})
}

func (a *api) revokeToken(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	id := r.PathValue("id")
	err := a.change(r, func() ([]auth.Change, error) { return a.people.Revoke(id, a.tokens.MadeID(id)) })
	if errors.Is(err, types.ErrNotFound) {
		return errNoToken(r)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// me answers GET /auth/me: who the token says that the caller is.
func (a *api) me(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	u, _ := a.people.User(r.who.Subject)
	return writeAny(w, http.StatusOK, struct {
		Subject  string   `json:"subject"`
		Nickname string   `json:"nickname,omitempty"`
		Groups   []string `json:"groups"`
		Scopes   []string `json:"scopes"`
		ID       string   `json:"jti"`
		Expires  int64    `json:"expires_at"`
	}{r.who.Subject, u.Nickname, append([]string{}, r.who.Groups...), r.who.Scopes.Strings(), r.who.TokenID, r.who.Expires.UnixMilli()})
}

// changeTries bounds how often a decision is taken anew because what it rests on
// was gone by then.
const changeTries = 3

// change writes what decide gives, as one. Decisions of this node are taken one
// after another, so that two of them cannot give one name away; and each waits
// for its commit even if the client has gone, or the next would not see it.
func (a *api) change(r *request, decide func() ([]auth.Change, error)) error {
	if err := a.writable(); err != nil {
		return err
	}
	a.deciding.Lock()
	defer a.deciding.Unlock()
	by, ctx := r.actor(), context.WithoutCancel(r.Context())
	var err error
	for range changeTries {
		var changes []auth.Change
		if changes, err = decide(); err != nil {
			return err
		}
		ops := make([]storage.Op, len(changes))
		for i, c := range changes {
			ops[i] = storage.Op{Ref: c.Ref, Value: c.Value, TTL: c.TTL, OverDamaged: true, By: by}
			if c.Delete {
				ops[i].Kind = storage.OpDelete
			}
		}
		if err = a.writeAll(ctx, ops); !errors.Is(err, types.ErrNotFound) {
			return err
		}
	}
	return err
}

// writeAll does all operations or none, and gives the first one's error that is
// to blame.
func (a *api) writeAll(ctx context.Context, ops []storage.Op) error {
	results, err := a.store.Write(ctx, ops, true)
	if err != nil {
		return err
	}
	for _, res := range results {
		if res.Err != nil && !errors.Is(res.Err, storage.ErrAborted) {
			return res.Err
		}
	}
	return nil
}
