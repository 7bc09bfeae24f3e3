package auth

import (
	"cmp"
	"errors"
	"slices"
)

// User is a user of the cluster.
type User struct {
	UUID     string
	Nickname string
	Created  int64    // Unix ms
	Groups   []string // UUIDs, sorted
}

// Group is a group of users.
type Group struct {
	UUID     string
	Nickname string
	Created  int64    // Unix ms
	Members  []string // UUIDs, sorted
}

// TokenInfo is what is noted of a token that was made.
type TokenInfo struct {
	ID      string // jti
	Subject string // a user's UUID, or Root
	Scopes  []string
	Created int64 // Unix ms
	Expires int64 // Unix ms
}

// Users lists the users by nickname.
func (d *Directory) Users() []User {
	return list(d, kindUser, d.user, func(a, b User) int {
		return cmp.Or(cmp.Compare(a.Nickname, b.Nickname), cmp.Compare(a.UUID, b.UUID))
	})
}

// User gives a user.
func (d *Directory) User(uuid string) (User, bool) { return one(d, uuid, d.user) }

// Groups lists the groups by nickname.
func (d *Directory) Groups() []Group {
	return list(d, kindGroup, d.group, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Nickname, b.Nickname), cmp.Compare(a.UUID, b.UUID))
	})
}

// Group gives a group.
func (d *Directory) Group(uuid string) (Group, bool) { return one(d, uuid, d.group) }

// Tokens lists the tokens that were noted and are still good, oldest first.
func (d *Directory) Tokens() []TokenInfo {
	return list(d, kindToken, d.token, func(a, b TokenInfo) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
	})
}

// Token gives a token that was noted and is still good.
func (d *Directory) Token(jti string) (TokenInfo, bool) { return one(d, jti, d.token) }

// Revoked reports whether a token was revoked.
func (d *Directory) Revoked(jti string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.is(kindRevoked, jti, d.now().UnixMilli())
}

// UserDeleted reports whether a user was deleted. One that was never seen was
// not.
func (d *Directory) UserDeleted(uuid string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.is(kindDeleted, uuid, d.now().UnixMilli())
}

// FindUser gives the user with this UUID, or else the only one with this
// nickname. The error is ErrUserNotFound or wraps ErrAmbiguous.
func (d *Directory) FindUser(nameOrUUID string) (User, error) {
	return find(d, kindUser, nameOrUUID, d.user, ErrUserNotFound)
}

// FindGroup is FindUser for groups; ErrGroupNotFound.
func (d *Directory) FindGroup(nameOrUUID string) (Group, error) {
	return find(d, kindGroup, nameOrUUID, d.group, ErrGroupNotFound)
}

// standing is what the directory says about the holder of a token, all of one
// moment. The groups are lasting if none of them ends with time alone.
func (d *Directory) standing(jti, subject string) (groups []string, lasting bool, err error) {
	now := d.now().UnixMilli()
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case d.is(kindRevoked, jti, now):
		return nil, false, errRevoked
	case d.is(kindDeleted, subject, now):
		return nil, false, errUserDeleted
	}
	groups, lasting = d.groups(subject, now)
	return groups, lasting, nil
}

// Why a good token is refused.
var (
	errRevoked     = errors.New("was revoked")
	errUserDeleted = errors.New("is of a user who was deleted")
)

// What follows is called with mu held. A record that a mark is about is absent.

// is reports whether there is a record of a kind.
func (d *Directory) is(k kind, id string, now int64) bool { return d.get(k, id, now) != nil }

func (d *Directory) get(k kind, id string, now int64) *entry {
	if e := d.entries[k][id]; e != nil && e.live(now) {
		return e
	}
	return nil
}

// member reports whether the user is in the group. Whoever is not known yet may
// be: the record may be on its way. But the group must be known, since this
// gives rights, and its record was written before.
func (d *Directory) member(group, user string, now int64) bool {
	return d.is(kindMember, group+"/"+user, now) && d.is(kindGroup, group, now) &&
		!d.is(kindDeleted, group, now) && !d.is(kindDeleted, user, now)
}

func (d *Directory) groups(user string, now int64) (groups []string, lasting bool) {
	groups, lasting = []string{}, true
	for group := range d.groupsOf[user] {
		if d.member(group, user, now) {
			groups = append(groups, group)
			lasting = lasting && d.entries[kindMember][group+"/"+user].rec.ExpiresAt == 0 &&
				d.entries[kindGroup][group].rec.ExpiresAt == 0
		}
	}
	slices.Sort(groups)
	return groups, lasting
}

func (d *Directory) user(uuid string, now int64) (User, bool) {
	e := d.get(kindUser, uuid, now)
	if e == nil || d.is(kindDeleted, uuid, now) {
		return User{}, false
	}
	groups, _ := d.groups(uuid, now)
	return User{UUID: uuid, Nickname: e.Nickname, Created: e.Created, Groups: groups}, true
}

func (d *Directory) group(uuid string, now int64) (Group, bool) {
	e := d.get(kindGroup, uuid, now)
	if e == nil || d.is(kindDeleted, uuid, now) {
		return Group{}, false
	}
	members := []string{}
	for user := range d.usersOf[uuid] {
		if d.member(uuid, user, now) {
			members = append(members, user)
		}
	}
	slices.Sort(members)
	return Group{UUID: uuid, Nickname: e.Nickname, Created: e.Created, Members: members}, true
}

func (d *Directory) token(jti string, now int64) (TokenInfo, bool) {
	e := d.get(kindToken, jti, now)
	if e == nil || d.is(kindRevoked, jti, now) || d.is(kindDeleted, e.Subject, now) {
		return TokenInfo{}, false
	}
	return TokenInfo{ID: jti, Subject: e.Subject, Scopes: append([]string{}, e.Scopes...), Created: e.Created, Expires: e.Expires}, true
}

// lookup is one of the three above.
type lookup[T any] func(id string, now int64) (T, bool)

func one[T any](d *Directory, id string, get lookup[T]) (T, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return get(id, d.now().UnixMilli())
}

func list[T any](d *Directory, k kind, get lookup[T], order func(a, b T) int) []T {
	now, all := d.now().UnixMilli(), []T{}
	d.mu.RLock()
	for id := range d.entries[k] {
		if v, ok := get(id, now); ok {
			all = append(all, v)
		}
	}
	d.mu.RUnlock()
	slices.SortFunc(all, order) // not while others wait
	return all
}

func find[T any](d *Directory, k kind, name string, get lookup[T], missing error) (found T, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := d.now().UnixMilli()
	if v, ok := get(name, now); ok {
		return v, nil
	}
	err = missing
	for id := range d.names[k][name] {
		v, ok := get(id, now)
		switch {
		case ok && err == nil:
			return *new(T), ErrAmbiguous
		case ok:
			found, err = v, nil
		}
	}
	return found, err
}
