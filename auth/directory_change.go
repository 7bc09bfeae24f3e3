package auth

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"kvs/types"
)

// Change is one record to write or to delete. A method that gives several means
// them as one atomic batch. Until the written records come back through Apply,
// the directory knows nothing of them: so a caller that must not do a thing
// twice does one at a time, and asks again if what is to be deleted is gone
// meanwhile.
type Change struct {
	Ref    types.Ref
	Value  []byte // JSON
	Delete bool
	TTL    time.Duration // 0: for ever
}

const (
	// maxNickname bounds a nickname, in runes.
	maxNickname = 64

	// maxRemoved bounds the batch that deletes a user or a group with its
	// memberships, to what the store takes at once. A membership left over is inert,
	// by the mark.
	maxRemoved = 900

	// markGrace is how long the mark of a revoked token outlives the token, in
	// case clocks differ.
	markGrace = 24 * time.Hour
)

// NewUser makes a user with a nickname of 1 to 64 printable characters, which
// does not begin or end with a space, is not "root" or "anonymous", and cannot
// be taken for a UUID. The error wraps ErrInvalid or ErrNameTaken; nodes that
// cannot talk may still give out one name twice (see ErrAmbiguous).
func (d *Directory) NewUser(nickname string) (User, []Change, error) {
	id, created, changes, err := d.create(kindUser, nickname)
	if err != nil {
		return User{}, nil, err
	}
	return User{UUID: id, Nickname: nickname, Created: created, Groups: []string{}}, changes, nil
}

// NewGroup makes a group; its nickname is as a user's. A user and a group may
// have the same.
func (d *Directory) NewGroup(nickname string) (Group, []Change, error) {
	id, created, changes, err := d.create(kindGroup, nickname)
	if err != nil {
		return Group{}, nil, err
	}
	return Group{UUID: id, Nickname: nickname, Created: created, Members: []string{}}, changes, nil
}

func (d *Directory) create(k kind, nickname string) (id string, created int64, changes []Change, err error) {
	if err := checkNickname(nickname); err != nil {
		return "", 0, nil, err
	}
	now := d.now().UnixMilli()
	d.mu.RLock()
	defer d.mu.RUnlock()
	for other := range d.names[k][nickname] {
		if d.is(k, other, now) && !d.is(kindDeleted, other, now) {
			return "", 0, nil, fmt.Errorf("%w: another %s is called %q", ErrNameTaken, kindNames[k], nickname)
		}
	}
	id = uuid.NewString()
	return id, now, []Change{set(k, id, details{Nickname: nickname, Created: now}, 0)}, nil
}

func checkNickname(s string) error {
	why := ""
	switch id, err := uuid.Parse(s); {
	case s == "":
		why = "it is empty"
	case !utf8.ValidString(s):
		why = "it is not valid UTF-8"
	case utf8.RuneCountInString(s) > maxNickname:
		why = fmt.Sprintf("it has more than %d characters", maxNickname)
	case strings.TrimSpace(s) != s:
		why = "it begins or ends with a space"
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		why = "it has a character that does not print"
	case strings.EqualFold(s, Root), strings.EqualFold(s, Anonymous):
		why = fmt.Sprintf("%q and %q are the store's own", Root, Anonymous)
	case err == nil:
		why = fmt.Sprintf("it could be taken for the UUID %s", id)
	}
	if why != "" {
		return fmt.Errorf("%w: the nickname: %s", ErrInvalid, why)
	}
	return nil
}

// DeleteUser deletes a user, and with them all their tokens; ErrUserNotFound.
func (d *Directory) DeleteUser(uuid string) ([]Change, error) {
	return d.remove(kindUser, uuid, d.groupsOf, func(group string) string { return group + "/" + uuid }, ErrUserNotFound)
}

// DeleteGroup deletes a group; ErrGroupNotFound. Items that belong to it keep
// its UUID, which nobody is in any more.
func (d *Directory) DeleteGroup(uuid string) ([]Change, error) {
	return d.remove(kindGroup, uuid, d.usersOf, func(user string) string { return uuid + "/" + user }, ErrGroupNotFound)
}

func (d *Directory) remove(k kind, id string, related relation, member func(string) string, missing error) ([]Change, error) {
	now := d.now().UnixMilli()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.is(k, id, now) || d.is(kindDeleted, id, now) {
		return nil, missing
	}
	changes := []Change{set(kindDeleted, id, details{}, 0), unset(k, id)}
	for other := range related[id] {
		if m := member(other); d.is(kindMember, m, now) && len(changes) < maxRemoved {
			changes = append(changes, unset(kindMember, m))
		}
	}
	return changes, nil
}

// SetMember puts a user into a group or takes them out of it. Putting in who is
// in changes nothing; ErrGroupNotFound; ErrUserNotFound, also for taking out who
// is not in.
func (d *Directory) SetMember(group, user string, in bool) ([]Change, error) {
	now := d.now().UnixMilli()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if _, ok := d.group(group, now); !ok {
		return nil, ErrGroupNotFound
	}
	if _, ok := d.user(user, now); !ok {
		return nil, ErrUserNotFound
	}
	id, is := group+"/"+user, d.member(group, user, now)
	switch {
	case in && !is:
		return []Change{set(kindMember, id, details{}, 0)}, nil
	case !in && is:
		return []Change{unset(kindMember, id)}, nil
	case !in:
		return nil, ErrUserNotFound
	}
	return nil, nil
}

// NoteToken notes a token that was made, so that it can be listed, for as long
// as it is good.
func (d *Directory) NoteToken(c Claims) []Change {
	life := c.Expires.Sub(d.now())
	if life <= 0 {
		return nil
	}
	return []Change{set(kindToken, c.ID, details{
		Subject: c.Subject, Scopes: c.Scopes.Strings(), Created: c.Issued.UnixMilli(), Expires: c.Expires.UnixMilli(),
	}, life)}
}

// Revoke revokes a token. known says that its id was made by this cluster
// (ClientTokens.MadeID): then it can be revoked without having been noted here.
// ErrTokenNotFound where it is neither noted nor known, or revoked already. The
// note stays and ends with the token; by the mark it is not listed any more.
func (d *Directory) Revoke(jti string, known bool) ([]Change, error) {
	now := d.now()
	ms := now.UnixMilli()
	d.mu.RLock()
	defer d.mu.RUnlock()
	noted := d.get(kindToken, jti, ms)
	if d.is(kindRevoked, jti, ms) || noted == nil && !known {
		return nil, ErrTokenNotFound
	}
	left := MaxTokenLife // no token that was made so far lives longer
	if noted != nil {
		left = min(max(time.UnixMilli(noted.Expires).Sub(now), 0), left) // whatever the record says
	}
	return []Change{set(kindRevoked, jti, details{}, left+markGrace)}, nil
}

func set(k kind, id string, v details, ttl time.Duration) Change {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("auth: plain details cannot be encoded: %v", err))
	}
	return Change{Ref: types.Ref{NS: types.NSAuth, Key: k.key(id)}, Value: b, TTL: ttl}
}

func unset(k kind, id string) Change {
	return Change{Ref: types.Ref{NS: types.NSAuth, Key: k.key(id)}, Delete: true}
}
