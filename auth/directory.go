package auth

import (
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kvs/types"
)

// The auth namespace. A record's key is its kind and what it is about:
//
//	user/UUID          {"nickname","created"}
//	group/UUID         {"nickname","created"}
//	member/GROUP/USER  {}: the user is in the group
//	token/JTI          {"subject","scopes","created","expires"}: a token that was made; never the token itself
//	deleted/UUID       {}: the user or group was deleted
//	revoked/JTI        {}: the token was revoked
//
// Times are Unix milliseconds. Records of the first four kinds are written once
// and deleted (a membership may come back). The last two are marks that are only
// ever written, and each outweighs all that it is about: so no write on another
// node, and no order of arrival, undoes a deletion or a revocation. Of a mark
// and of a membership the key says all, and the value is not read.
type kind int

const (
	kindUser kind = iota
	kindGroup
	kindMember
	kindToken
	kindDeleted
	kindRevoked
	kindUnknown // held so that it is counted
	kinds
)

var kindNames = [kindUnknown]string{"user", "group", "member", "token", "deleted", "revoked"}

// key is the key of a record.
func (k kind) key(id string) types.Key { return types.Key(kindNames[k] + "/" + id) }

// details are what the values of all kinds hold.
type details struct {
	Nickname string   `json:"nickname,omitempty"`
	Subject  string   `json:"subject,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	Created  int64    `json:"created,omitempty"`
	Expires  int64    `json:"expires,omitempty"`
}

// maxDetails bounds a value that is read, in bytes.
const maxDetails = 16 << 10

// entry is the newest version seen of one record.
type entry struct {
	details
	rec     types.Record // what merging and expiry need; no context, no meta
	problem bool         // neither a tombstone nor readable: it counts as absent
}

func (e *entry) live(now int64) bool { return !e.problem && e.rec.Live(now) }

// Directory is the auth namespace in memory: users, groups, the tokens that were
// made, and what was deleted or revoked. It is fed with every record of the
// namespace, in any order and again and again, and is a function of the set of
// them and of the clock. Expired records count as absent. It is safe for
// concurrent use.
//
// It also says what to write for a change (see Change), and writes nothing
// itself.
type Directory struct {
	now func() time.Time

	// generation grows with every change that can concern a principal, while mu
	// is held: whoever reads it and then the entries finds these at least as new.
	generation atomic.Uint64

	mu       sync.RWMutex // guards the fields below
	entries  [kinds]map[string]*entry
	names    [2]relation // of kindUser and kindGroup: nickname to UUIDs
	groupsOf relation    // user to groups
	usersOf  relation    // group to users
	problems int
	sweepAt  int // when so many entries are held, those that are over are looked for
	held     int
}

// NewDirectory makes an empty directory. A nil clock is time.Now.
func NewDirectory(now func() time.Time) *Directory {
	if now == nil {
		now = time.Now
	}
	d := &Directory{now: now, groupsOf: relation{}, usersOf: relation{}, sweepAt: minSweep}
	for k := range d.entries {
		d.entries[k] = map[string]*entry{}
	}
	for k := range d.names {
		d.names[k] = relation{}
	}
	return d
}

// Apply takes in a record; others than of the auth namespace are ignored. What
// cannot be read counts as absent, and as a problem (see Problems).
func (d *Directory) Apply(rec types.Record) {
	if rec.NS != types.NSAuth {
		return
	}
	k, id := splitKey(rec.Key)
	e := &entry{rec: types.Record{
		Ref: rec.Ref, Version: rec.Version, Flags: rec.Flags,
		ExpiresAt: rec.ExpiresAt, PurgeAt: rec.PurgeAt, Value: rec.Value,
	}}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The law of the store itself, so that both hold the same.
	if old := d.entries[k][id]; old != nil {
		if !types.Merge(old.rec, e.rec).Second {
			return
		}
		d.drop(k, id, old)
	}
	d.hold(k, id, e)
	if k != kindUser && k != kindToken {
		d.generation.Add(1)
	}
	if d.held >= d.sweepAt {
		d.sweep(d.now().UnixMilli())
	}
}

// splitKey gives kindUnknown, and the whole key, for what this version does not
// know.
func splitKey(key types.Key) (kind, string) {
	name, id, _ := strings.Cut(string(key), "/")
	for k, known := range kindNames {
		if name == known && validID(kind(k), id) {
			return kind(k), id
		}
	}
	return kindUnknown, string(key)
}

func validID(k kind, id string) bool {
	switch k {
	case kindUser, kindGroup, kindDeleted:
		return canonicalUUID(id)
	case kindMember:
		group, user, _ := strings.Cut(id, "/")
		return canonicalUUID(group) && canonicalUUID(user)
	}
	return id != ""
}

// hold adds an entry where there is none. Its details are read here.
func (d *Directory) hold(k kind, id string, e *entry) {
	e.read(k)
	d.entries[k][id] = e
	d.held++
	if e.problem {
		d.problems++
		return
	}
	if !e.rec.Tombstone() {
		d.relate(k, id, e, relation.add)
	}
}

// drop removes an entry.
func (d *Directory) drop(k kind, id string, e *entry) {
	delete(d.entries[k], id)
	d.held--
	if e.problem {
		d.problems--
		return
	}
	if !e.rec.Tombstone() {
		d.relate(k, id, e, relation.remove)
	}
}

// relate adds an entry to the indexes, or removes it.
func (d *Directory) relate(k kind, id string, e *entry, change func(r relation, a, b string)) {
	switch k {
	case kindUser, kindGroup:
		change(d.names[k], e.Nickname, id)
	case kindMember:
		group, user, _ := strings.Cut(id, "/")
		change(d.groupsOf, user, group)
		change(d.usersOf, group, user)
	}
}

// read takes the details out of the value, where the kind has any.
func (e *entry) read(k kind) {
	if e.rec.Tombstone() {
		return
	}
	switch k {
	case kindUser, kindGroup, kindToken:
		e.problem = len(e.rec.Value) > maxDetails || json.Unmarshal(e.rec.Value, &e.details) != nil ||
			k != kindToken && e.Nickname == "" || k == kindToken && e.Subject == ""
	case kindUnknown:
		e.problem = true
	}
}

const (
	minSweep = 1024

	// sweepGrace is how long an entry is kept after the store may forget its
	// record: no older version of it is still on its way then.
	sweepGrace = int64(time.Hour / time.Millisecond)
)

// sweep forgets what is over: tombstones and expired records whose purge time is
// past. It is called when as many entries were added as the last one left, so
// its cost is spread, and what is held stays within about twice what counts.
func (d *Directory) sweep(now int64) {
	for k := range d.entries {
		for id, e := range d.entries[k] {
			over := max(e.rec.PurgeAt, e.rec.ExpiresAt)
			if over != 0 && over <= now-sweepGrace && !e.rec.Live(now) {
				d.drop(kind(k), id, e)
			}
		}
	}
	d.sweepAt = max(2*d.held, minSweep)
}

// Problems counts the records that this version cannot read: of a kind that it
// does not know, or with a value that it does not understand.
func (d *Directory) Problems() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.problems
}

// relation is a set of pairs, found by the first.
type relation map[string]map[string]struct{}

func (r relation) add(a, b string) {
	if r[a] == nil {
		r[a] = map[string]struct{}{}
	}
	r[a][b] = struct{}{}
}

func (r relation) remove(a, b string) {
	if delete(r[a], b); len(r[a]) == 0 {
		delete(r, a)
	}
}
