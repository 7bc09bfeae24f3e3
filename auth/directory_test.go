package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"kvs/types"
)

// world is a directory and the store that it is fed from.
type world struct {
	*Directory
	t     testing.TB
	clock *testClock
	wrote int // versions so far
}

func newWorld(t testing.TB) *world {
	clock := newClock()
	return &world{Directory: NewDirectory(clock.Now), t: t, clock: clock}
}

// record makes a version of a key that is newer than all before.
func (w *world) record(key string, value string) types.Record {
	w.wrote++
	id := types.VersionID{15: byte(w.wrote), 14: byte(w.wrote >> 8)}
	return types.Record{
		Ref:     types.Ref{NS: types.NSAuth, Key: types.Key(key)},
		Version: types.Version{Timestamp: types.TimestampOf(w.clock.Now().UnixMilli()) + types.Timestamp(w.wrote), UUID: id},
		Value:   []byte(value),
	}
}

func deleted(rec types.Record) types.Record {
	rec.Flags, rec.Value = types.FlagTombstone, nil
	rec.PurgeAt = types.PurgeTime(true, rec.Timestamp, 0, 0, time.Hour.Milliseconds())
	return rec
}

func expiring(rec types.Record, at time.Time) types.Record {
	rec.ExpiresAt = at.UnixMilli()
	rec.PurgeAt = types.PurgeTime(false, rec.Timestamp, rec.ExpiresAt, 0, time.Hour.Milliseconds())
	return rec
}

// records are what the store makes of changes.
func (w *world) records(changes []Change) []types.Record {
	var out []types.Record
	for _, c := range changes {
		rec := w.record(string(c.Ref.Key), string(c.Value))
		switch {
		case c.Delete:
			rec = deleted(rec)
		case c.TTL > 0:
			rec = expiring(rec, w.clock.Now().Add(c.TTL))
		}
		if c.Ref.NS != types.NSAuth || !c.Delete && !json.Valid(c.Value) {
			w.t.Errorf("change %+v", c)
		}
		out = append(out, rec)
	}
	return out
}

// write does changes as the server does.
func (w *world) write(changes []Change, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, rec := range w.records(changes) {
		w.Apply(rec)
	}
}

func (w *world) newUser(name string) User {
	w.t.Helper()
	u, changes, err := w.NewUser(name)
	w.write(changes, err)
	return u
}

func (w *world) newGroup(name string, members ...User) Group {
	w.t.Helper()
	g, changes, err := w.NewGroup(name)
	w.write(changes, err)
	for _, m := range members {
		w.write(w.SetMember(g.UUID, m.UUID, true))
	}
	g, _ = w.Group(g.UUID)
	return g
}

func claims(subject string, expires time.Time) Claims {
	return Claims{ID: uuid.NewString(), Subject: subject, Scopes: Scopes{{Scope: ScopeRead}}, Issued: expires.Add(-time.Hour), Expires: expires}
}

// holds fails unless got is want.
func holds(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestUsersAndGroups(t *testing.T) {
	w := newWorld(t)
	holds(t, "users of nothing", w.Users(), []User{})
	holds(t, "groups of nothing", w.Groups(), []Group{})
	holds(t, "tokens of nothing", w.Tokens(), []TokenInfo{})

	carol, ann := w.newUser("carol"), w.newUser("ann")
	staff := w.newGroup("staff", carol, ann)
	night := w.newGroup("night shift", ann)
	ids := func(a, b string) []string {
		if a > b {
			a, b = b, a
		}
		return []string{a, b}
	}
	now := w.clock.now.UnixMilli()
	annNow := User{UUID: ann.UUID, Nickname: "ann", Created: now, Groups: ids(staff.UUID, night.UUID)}
	carolNow := User{UUID: carol.UUID, Nickname: "carol", Created: now, Groups: []string{staff.UUID}}
	holds(t, "users", w.Users(), []User{annNow, carolNow})
	holds(t, "groups", w.Groups(), []Group{
		{UUID: night.UUID, Nickname: "night shift", Created: now, Members: []string{ann.UUID}},
		{UUID: staff.UUID, Nickname: "staff", Created: now, Members: ids(ann.UUID, carol.UUID)},
	})
	for _, name := range []string{"ann", ann.UUID} {
		got, err := w.FindUser(name)
		holds(t, "FindUser", got, annNow)
		holds(t, "FindUser", err, nil)
	}
	if _, err := w.FindUser("staff"); !errors.Is(err, ErrUserNotFound) || !errors.Is(err, types.ErrNotFound) {
		t.Errorf("a group found as a user: %v", err)
	}
	if _, err := w.FindGroup(ann.UUID); !errors.Is(err, ErrGroupNotFound) || errors.Is(err, ErrUserNotFound) {
		t.Errorf("a user found as a group: %v", err)
	}

	w.write(w.SetMember(staff.UUID, carol.UUID, false))
	got, _ := w.User(carol.UUID)
	holds(t, "who was taken out", got.Groups, []string{})
	w.write(w.SetMember(staff.UUID, carol.UUID, true))
	got, _ = w.User(carol.UUID)
	holds(t, "who was put in again", got.Groups, []string{staff.UUID})
	changes, err := w.SetMember(staff.UUID, carol.UUID, true)
	holds(t, "putting in who is in", len(changes), 0)
	holds(t, "putting in who is in", err, nil)

	w.write(w.DeleteGroup(staff.UUID))
	got, _ = w.User(ann.UUID)
	holds(t, "groups after one was deleted", got.Groups, []string{night.UUID})
	w.write(w.DeleteUser(ann.UUID))
	group, _ := w.Group(night.UUID)
	holds(t, "members after one was deleted", group.Members, []string{})
	holds(t, "relations of the deleted", len(w.groupsOf)+len(w.usersOf), 0)
	if _, ok := w.User(ann.UUID); ok || !w.UserDeleted(ann.UUID) || w.UserDeleted(carol.UUID) || w.UserDeleted(Root) {
		t.Error("a deleted user is there, or another is not")
	}
	again := w.newUser("ann") // the name is free
	if again.UUID == ann.UUID {
		t.Error("a UUID is used twice")
	}
}

func TestChangesRefuse(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.newUser("ann"), w.newUser("bob")
	staff := w.newGroup("staff", ann)
	w.write(w.DeleteUser(bob.UUID))
	none := uuid.NewString()
	for _, c := range []struct {
		name string
		do   func() ([]Change, error)
		want error
	}{
		{"a user's name twice", func() ([]Change, error) { _, c, err := w.NewUser("ann"); return c, err }, ErrNameTaken},
		{"a group's name twice", func() ([]Change, error) { _, c, err := w.NewGroup("staff"); return c, err }, ErrNameTaken},
		{"deleting nobody", func() ([]Change, error) { return w.DeleteUser(none) }, ErrUserNotFound},
		{"deleting twice", func() ([]Change, error) { return w.DeleteUser(bob.UUID) }, ErrUserNotFound},
		{"deleting a group as a user", func() ([]Change, error) { return w.DeleteUser(staff.UUID) }, ErrUserNotFound},
		{"deleting a user as a group", func() ([]Change, error) { return w.DeleteGroup(ann.UUID) }, ErrGroupNotFound},
		{"a member of no group", func() ([]Change, error) { return w.SetMember(none, ann.UUID, true) }, ErrGroupNotFound},
		{"nobody as a member", func() ([]Change, error) { return w.SetMember(staff.UUID, none, true) }, ErrUserNotFound},
		{"a deleted member", func() ([]Change, error) { return w.SetMember(staff.UUID, bob.UUID, true) }, ErrUserNotFound},
		{"taking out nobody", func() ([]Change, error) { return w.SetMember(staff.UUID, none, false) }, ErrUserNotFound},
		{"an unknown token", func() ([]Change, error) { return w.Revoke("x", false) }, ErrTokenNotFound},
	} {
		if changes, err := c.do(); !errors.Is(err, c.want) || len(changes) != 0 {
			t.Errorf("%s: %v, %v", c.name, changes, err)
		}
	}
	for name, ok := range map[string]bool{
		"x": true, "Ann": true, "ann lee": true, "ünïcode 名前 🦊": true, strings.Repeat("ü", 64): true, "a/b": true, "staff": true,
		"": false, strings.Repeat("x", 65): false, " ann": false, "ann ": false, " ": false, "\u00a0x": false, "a\u00a0b": false,
		"a\tb": false, "a\x00": false, "a\u200bb": false, "a\u202eb": false, "\xff": false, "a\xffb": false,
		"root": false, "Root": false, "anonymous": false, none: false, strings.ToUpper(none): false, "{" + none + "}": false,
		strings.ReplaceAll(none, "-", ""): false, "urn:uuid:" + none: false,
	} {
		if _, changes, err := w.NewUser(name); (err == nil) != ok || ok != (len(changes) == 1) || !ok && !errors.Is(err, ErrInvalid) {
			t.Errorf("nickname %q: %v", name, err)
		}
	}
}

func TestTokensAreNotedAndRevoked(t *testing.T) {
	w := newWorld(t)
	ann := w.newUser("ann")
	first, second := claims(ann.UUID, w.clock.now.Add(time.Hour)), claims(Root, w.clock.now.Add(2*time.Hour))
	changes := w.NoteToken(second)
	w.write(changes, nil)
	w.write(w.NoteToken(first), nil)
	holds(t, "life of the note", changes[0].TTL, 2*time.Hour)
	info := func(c Claims) TokenInfo {
		return TokenInfo{ID: c.ID, Subject: c.Subject, Scopes: []string{"read"}, Created: c.Issued.UnixMilli(), Expires: c.Expires.UnixMilli()}
	}
	holds(t, "tokens", w.Tokens(), []TokenInfo{info(first), info(second)})
	got, ok := w.Token(first.ID)
	holds(t, "token", got, info(first))
	holds(t, "token", ok, true)

	changes, err := w.Revoke(second.ID, false)
	holds(t, "life of the mark", changes[0].TTL, 2*time.Hour+24*time.Hour)
	w.write(changes, err)
	if !w.Revoked(second.ID) || w.Revoked(first.ID) {
		t.Error("Revoked is not about what was revoked")
	}
	holds(t, "tokens without the revoked one", w.Tokens(), []TokenInfo{info(first)})
	if _, err := w.Revoke(second.ID, true); !errors.Is(err, ErrTokenNotFound) {
		t.Errorf("revoked twice: %v", err)
	}
	changes, err = w.Revoke("not noted here", true)
	holds(t, "life of the mark of a token not noted", changes[0].TTL, MaxTokenLife+24*time.Hour)
	w.write(changes, err)
	if !w.Revoked("not noted here") {
		t.Error("a token not noted is not revoked")
	}

	w.write(w.DeleteUser(ann.UUID))
	holds(t, "tokens of a deleted user", w.Tokens(), []TokenInfo{})
	holds(t, "noting an expired token", len(w.NoteToken(claims(Root, w.clock.now))), 0)
	third := claims(Root, w.clock.now.Add(time.Minute))
	w.write(w.NoteToken(third), nil)
	w.clock.add(time.Minute)
	holds(t, "tokens at their end", w.Tokens(), []TokenInfo{})
	w.clock.add(MaxTokenLife + 25*time.Hour)
	if w.Revoked(second.ID) {
		t.Error("a mark outlives its record")
	}
}

// A note with an impossible expiry does not make a mark end before its token,
// nor overflow.
func TestMarkOfAnOddNote(t *testing.T) {
	w := newWorld(t)
	for _, expires := range []string{"-9223372036854775808", "0", "9223372036854775807"} {
		w.Apply(w.record("token/"+expires, `{"subject":"root","expires":`+expires+`}`))
		changes, err := w.Revoke(expires, false)
		if err != nil || changes[0].TTL < markGrace || changes[0].TTL > MaxTokenLife+markGrace {
			t.Errorf("expires %s: %v, %v", expires, changes, err)
		}
	}
}

func TestNicknamesGivenOutTwice(t *testing.T) {
	w := newWorld(t)
	one, first, _ := w.NewUser("ann")
	_, second, _ := w.NewUser("ann") // on another node
	w.write(first, nil)
	w.write(second, nil)
	if _, err := w.FindUser("ann"); !errors.Is(err, ErrAmbiguous) || errors.Is(err, types.ErrNotFound) {
		t.Errorf("of two: %v", err)
	}
	w.write(w.DeleteUser(one.UUID))
	if got, err := w.FindUser("ann"); err != nil || got.UUID == one.UUID {
		t.Errorf("of one that is left: %+v, %v", got, err)
	}
}

// A batch that deletes stays within what the store takes, and what is left over
// gives nobody anything.
func TestDeletingALargeGroup(t *testing.T) {
	w := newWorld(t)
	g := w.newGroup("all")
	user := ""
	for range 1200 {
		user = uuid.NewString()
		w.Apply(w.record("member/"+g.UUID+"/"+user, "{}"))
	}
	changes, err := w.DeleteGroup(g.UUID)
	if len(changes) != maxRemoved || maxRemoved > 1000 {
		t.Errorf("%d changes", len(changes))
	}
	w.write(changes, err)
	for user := range w.groupsOf {
		if groups, _, err := w.standing("x", user); len(groups) != 0 || err != nil {
			t.Fatalf("%v, %v", groups, err)
		}
	}
	if len(w.groupsOf) != 1200-(maxRemoved-2) {
		t.Errorf("%d memberships are left", len(w.groupsOf))
	}
}

// No write on another node, however late, undoes a mark.
func TestMarksStay(t *testing.T) {
	w := newWorld(t)
	ann := w.newUser("ann")
	g := w.newGroup("staff", ann)
	w.write(w.DeleteUser(ann.UUID))
	w.Apply(w.record("user/"+ann.UUID, `{"nickname":"ann"}`))
	w.Apply(w.record("member/"+g.UUID+"/"+ann.UUID, "{}"))
	if _, ok := w.User(ann.UUID); ok || !w.UserDeleted(ann.UUID) {
		t.Error("a deleted user is back")
	}
	got, _ := w.Group(g.UUID)
	holds(t, "members", got.Members, []string{})
	w.newUser("ann") // the name is free all the same

	w.Apply(w.record("revoked/x", "garbage"))
	w.write([]Change{set(kindToken, "x", details{Subject: Root}, time.Hour)}, nil)
	if _, ok := w.Token("x"); ok || !w.Revoked("x") {
		t.Error("a revoked token is back")
	}
	holds(t, "problems", w.Problems(), 0) // a mark's value is not read
}

// Who is not known yet may have a token and be in a group; a group that is not
// known gives nothing.
func TestRecordsOnTheirWay(t *testing.T) {
	w := newWorld(t)
	w.Apply(w.record("member/"+staff+"/"+alice, "{}"))
	groups, _, err := w.standing("x", alice)
	holds(t, "groups before the group is known", groups, []string{})
	holds(t, "an unknown user", err, nil)
	w.Apply(w.record("group/"+staff, `{"nickname":"staff"}`))
	groups, _, _ = w.standing("x", alice)
	holds(t, "groups", groups, []string{staff})
}

// randomRecords are versions of few keys, so that they meet: several of each,
// tombstones, expired ones and garbage among them.
func randomRecords(r *rand.Rand, clock *testClock) []types.Record {
	ids := []string{alice, bob, staff, guests}
	id := func() string { return ids[r.IntN(len(ids))] }
	values := []string{`{}`, ``, `null`, `[1]`, `{"nickname":5}`, "\xff\x00", `{"nickname":""}`, strings.Repeat(" ", maxDetails) + `{"nickname":"n0"}`}
	recs := make([]types.Record, 40+r.IntN(40))
	for i := range recs {
		key := [...]string{"user/" + id(), "group/" + id(), "member/" + id() + "/" + id(), "token/" + id(), "deleted/" + id(), "revoked/" + id(),
			"user/" + id(), "group/" + id(), "member/" + id() + "/" + id(), "member/x/y", "user/", "what/" + id(), "/", ""}[r.IntN(14)]
		value := values[r.IntN(len(values))]
		if r.IntN(4) > 0 {
			value = fmt.Sprintf(`{"nickname":"n%d","subject":"%s","scopes":["read"],"created":%d,"expires":5}`, r.IntN(3), id(), r.IntN(5))
		}
		rec := types.Record{
			Ref:     types.Ref{NS: types.NSAuth, Key: types.Key(key)},
			Version: types.Version{Timestamp: types.TimestampOf(clock.now.UnixMilli() + r.Int64N(3)), OriginJoined: r.Int64N(2)},
			Value:   []byte(value),
		}
		rec.UUID[0] = byte(r.IntN(4)) // now and then the same version twice, with other contents
		switch r.IntN(6) {
		case 0:
			rec = deleted(rec)
		case 1:
			rec = expiring(rec, clock.now.Add(time.Duration(r.IntN(3)-1)*time.Second))
		case 2:
			rec.ExpiresAt, rec.PurgeAt = r.Int64()-r.Int64(), r.Int64()-r.Int64()
		}
		if r.IntN(10) == 0 {
			rec.NS = types.NSData
		}
		recs[i] = rec
	}
	return recs
}

// state is all that a directory says.
func state(d *Directory) string {
	s := fmt.Sprint(d.Users(), d.Groups(), d.Tokens(), d.Problems())
	for _, id := range []string{alice, bob, staff, guests} {
		groups, lasting, err := d.standing(id, id)
		s += fmt.Sprint("\n", id, d.Revoked(id), d.UserDeleted(id), groups, lasting, err)
	}
	for _, name := range []string{"n0", "n1", "n2"} {
		u, err1 := d.FindUser(name)
		g, err2 := d.FindGroup(name)
		s += fmt.Sprint("\n", name, u, err1, g, err2)
	}
	return s
}

// dumbState is what Users and Groups must give, worked out from the winners
// alone, without any index.
func dumbState(recs []types.Record, now int64) (users map[string][]string, groups map[string][]string) {
	winners := map[types.Key]types.Record{}
	for _, rec := range recs {
		if rec.NS != types.NSAuth {
			continue
		}
		if old, ok := winners[rec.Key]; ok {
			rec = types.Merge(old, rec).Winner
		}
		winners[rec.Key] = rec
	}
	there := func(key string) bool {
		rec, ok := winners[types.Key(key)]
		return ok && rec.Live(now)
	}
	known := func(kind, id string) bool {
		var v struct{ Nickname string }
		rec := winners[types.Key(kind+"/"+id)]
		return there(kind+"/"+id) && !there("deleted/"+id) && len(rec.Value) <= maxDetails && json.Unmarshal(rec.Value, &v) == nil && v.Nickname != ""
	}
	users, groups = map[string][]string{}, map[string][]string{}
	ids := []string{staff, guests, alice, bob} // sorted
	for _, a := range ids {
		if known("user", a) {
			users[a] = []string{}
		}
		if known("group", a) {
			groups[a] = []string{}
		}
	}
	for _, g := range ids {
		for _, u := range ids {
			if there("member/"+g+"/"+u) && known("group", g) && !there("deleted/"+u) {
				groups[g] = append(groups[g], u)
				if users[u] != nil {
					users[u] = append(users[u], g)
				}
			}
		}
	}
	return users, groups
}

func TestOrderDoesNotMatter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	clock := newClock()
	filled := 0
	for range 150 {
		recs := randomRecords(r, clock)
		want := ""
		for i := range 6 {
			d := NewDirectory(clock.Now)
			for _, rec := range recs {
				d.Apply(rec)
				if r.IntN(3) == 0 {
					d.Apply(recs[r.IntN(len(recs))])
				}
			}
			got := state(d)
			if i == 0 {
				want = got
				users, groups := map[string][]string{}, map[string][]string{}
				for _, u := range d.Users() {
					users[u.UUID] = u.Groups
				}
				for _, g := range d.Groups() {
					groups[g.UUID] = g.Members
				}
				dumbUsers, dumbGroups := dumbState(recs, clock.now.UnixMilli())
				if a, b := fmt.Sprint(users, groups), fmt.Sprint(dumbUsers, dumbGroups); a != b {
					t.Fatalf("the directory says\n%s\nits records\n%s", a, b)
				}
				filled += len(users) + len(groups)
			}
			if got != want {
				t.Fatalf("one order gives\n%s\nanother\n%s", want, got)
			}
			r.Shuffle(len(recs), func(i, j int) { recs[i], recs[j] = recs[j], recs[i] })
		}
	}
	if filled < 150 {
		t.Errorf("%d users and groups in 150 runs, which tests little", filled)
	}
}

// What is over is forgotten, whatever comes and goes; what counts is not.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.newGroup("staff", w.newUser("ann"))
	odd := w.record("group/"+guests, `{"nickname":"guests"}`)
	odd.PurgeAt = 1 // no node writes that: what counts is never over
	w.Apply(odd)
	most := 0
	for i := range 8_000 {
		w.write(w.NoteToken(claims(Root, w.clock.now.Add(time.Minute))), nil)
		if i%10 == 0 {
			changes, err := w.Revoke(w.anyToken(), false)
			changes[0].TTL = time.Hour
			w.write(changes, err)
			w.Apply(deleted(w.record("member/"+uuid.NewString()+"/"+alice, "")))
		}
		w.clock.add(10 * time.Second)
		most = max(most, w.held)
	}
	if most > 3*minSweep {
		t.Errorf("%d entries were held", most)
	}
	if n := w.held; n != len(w.entries[kindUser])+len(w.entries[kindGroup])+len(w.entries[kindMember])+len(w.entries[kindToken])+
		len(w.entries[kindDeleted])+len(w.entries[kindRevoked])+len(w.entries[kindUnknown]) {
		t.Errorf("%d entries are counted", n)
	}
	if users := w.Users(); len(users) != 1 || len(users[0].Groups) != 1 {
		t.Errorf("users %+v", users)
	}
	if groups := w.Groups(); len(groups) != 2 {
		t.Errorf("groups %+v", groups)
	}
}

// Until no older version can be on its way, what is over is remembered.
func TestOlderVersionsDoNotComeBack(t *testing.T) {
	w := newWorld(t)
	old := w.record("user/"+alice, `{"nickname":"alice"}`)
	gone := deleted(w.record("user/"+alice, ""))
	w.Apply(gone)
	w.clock.now = time.UnixMilli(gone.PurgeAt + sweepGrace - 1)
	w.sweep(w.clock.now.UnixMilli())
	w.Apply(old)
	if _, ok := w.User(alice); ok {
		t.Error("a deleted user is back")
	}
	w.clock.add(time.Millisecond)
	w.sweep(w.clock.now.UnixMilli())
	holds(t, "entries", w.held, 0)
}

// What has expired is not deleted once more: the store would not find it.
func TestDeletingWithAnExpiredMembership(t *testing.T) {
	w := newWorld(t)
	ann := w.newUser("ann")
	g := w.newGroup("staff", ann)
	w.Apply(expiring(w.record("member/"+g.UUID+"/"+ann.UUID, "{}"), w.clock.now))
	changes, err := w.DeleteUser(ann.UUID)
	if err != nil || len(changes) != 2 {
		t.Errorf("%v, %v", changes, err)
	}
}

func (w *world) anyToken() string {
	for id := range w.entries[kindToken] {
		if _, ok := w.Token(id); ok {
			return id
		}
	}
	w.t.Fatal("no token is noted")
	return ""
}

func TestProblemsAreCountedOnce(t *testing.T) {
	w := newWorld(t)
	good := w.record("user/"+alice, `{"nickname":"alice"}`)
	bad := w.record("user/"+alice, `{"nickname":`)
	for range 3 {
		w.Apply(good)
		w.Apply(bad)
		w.Apply(w.record("policy/x", "{}"))
		w.Apply(w.record("user/ALICE", `{"nickname":"alice"}`))
		w.Apply(w.record("deleted/root", "{}")) // nobody can delete root
	}
	holds(t, "problems", w.Problems(), 4)
	holds(t, "root", w.UserDeleted(Root), false)
	if _, ok := w.User(alice); ok {
		t.Error("a user that cannot be read is there")
	}
	w.Apply(deleted(w.record("user/"+alice, "")))
	holds(t, "problems", w.Problems(), 3)
}

func TestDirectoryConcurrently(t *testing.T) {
	clock := newClock()
	d := NewDirectory(clock.Now)
	recs := randomRecords(rand.New(rand.NewPCG(1, 2)), clock)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for range 20 {
				for j := range recs {
					d.Apply(recs[(j+i*len(recs)/2)%len(recs)])
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				state(d)
				d.NewUser("n1")
				d.DeleteUser(alice)
				d.SetMember(staff, alice, true)
			}
		})
	}
	wg.Wait()
	again := NewDirectory(clock.Now)
	for _, rec := range recs {
		again.Apply(rec)
	}
	holds(t, "state", state(d), state(again))
}

func FuzzDirectory(f *testing.F) {
	f.Add("user/"+alice, []byte(`{"nickname":"alice"}`), int64(0), false)
	f.Add("member/"+staff+"/"+alice, []byte(`{}`), int64(0), false)
	f.Add("token/x", []byte(`{"subject":"root","scopes":["read"],"expires":-1}`), int64(1), false)
	f.Add("deleted/"+alice, []byte(nil), int64(-1), true)
	f.Add("user//", []byte("\xff"), int64(1)<<62, false)
	f.Fuzz(func(t *testing.T, key string, value []byte, expires int64, tombstone bool) {
		w := newWorld(t)
		before := []types.Record{
			w.record("group/"+staff, `{"nickname":"staff"}`), w.record("user/"+alice, `{"nickname":"alice"}`), w.record("member/"+staff+"/"+alice, "{}"),
		}
		rec := w.record(key, string(value))
		rec.ExpiresAt, rec.PurgeAt = expires, expires
		if tombstone {
			rec.Flags = types.FlagTombstone
		}
		for _, old := range before {
			w.Apply(old)
		}
		w.Apply(rec)
		other := NewDirectory(w.clock.Now)
		other.Apply(rec)
		for _, old := range before {
			other.Apply(old)
		}
		if a, b := state(w.Directory), state(other); a != b {
			t.Fatalf("%s\n%s", a, b)
		}
		for _, id := range []string{alice, key} {
			w.DeleteUser(id)
			w.SetMember(staff, id, false)
			w.FindUser(id)
			w.NewUser(id)
			if changes, err := w.Revoke(id, true); err == nil && changes[0].TTL <= 0 {
				t.Fatalf("%+v", changes)
			}
		}
	})
}
