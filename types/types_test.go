package types

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseKey(t *testing.T) {
	for _, good := range []string{
		"a", "a/b", "a b", "é/日本", "...", "a/...", "-", "a_b", "a/_b", "~", "%2F", "a\u00a0b",
		strings.Repeat("k", MaxKeyLen),
	} {
		if key, err := ParseKey(good); err != nil || string(key) != good {
			t.Errorf("%q: %q, %v", good, key, err)
		}
	}
	for _, bad := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "../a", "a/..", "a\x00", "a\nb", "\x7f", "a\u0085", "\u009f",
		"\xff", "a\xc3", "\xed\xa0\x80", strings.Repeat("k", MaxKeyLen+1),
	} {
		if key, err := ParseKey(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, key)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"a/b", "..", "a//b", "\xff", "a\x00b", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := ParseKey(s)
		if err != nil {
			return
		}
		if string(key) != s || len(s) == 0 || len(s) > MaxKeyLen || !utf8.ValidString(s) {
			t.Fatalf("%q was taken as %q", s, key)
		}
		for segment := range strings.SplitSeq(s, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Fatalf("%q was taken", s)
			}
		}
		for _, r := range s {
			if r < 0x20 || r >= 0x7f && r <= 0x9f {
				t.Fatalf("%q was taken", s)
			}
		}
	})
}

func TestReserved(t *testing.T) {
	for key, want := range map[Key]bool{"_range": true, "_x/y": true, "a/_b": false, "a": false} {
		if key.Reserved() != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
}

func TestConflictKey(t *testing.T) {
	id := VersionID{1, 2, 3}
	key, got, ok := ParseConflictKey(ConflictKey("a/b", id))
	if key != "a/b" || got != id || !ok {
		t.Errorf("%q, %v, %v", key, got, ok)
	}
	for _, bad := range []Key{"", "a", "a/b", ConflictKey("a", id)[1:] + "x", Key(strings.Repeat("x", 60))} {
		if _, _, ok := ParseConflictKey(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestPurgeTime(t *testing.T) {
	ts := TimestampOf(100_001)
	for _, c := range []struct {
		tombstone                     bool
		expires, horizon, grace, want int64
	}{
		{false, 0, 0, 1000, 0},
		{true, 0, 0, 1000, 110_000},
		{true, 0, 500_000, 1000, 510_000},
		{false, 200_000, 0, 10_000, 210_000},
		{false, 50_000, 0, 0, 110_000},
	} {
		if got := PurgeTime(c.tombstone, ts, c.expires, c.horizon, c.grace); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// few gives versions out of so few that ties are common.
func few(r *rand.Rand) Version {
	v := Version{Timestamp: Timestamp(1 + r.IntN(3)), OriginJoined: int64(r.IntN(2))}
	v.Origin[0] = byte(v.OriginJoined)
	v.UUID[0], v.UUID[15] = byte(v.Timestamp), byte(r.IntN(4))
	v.UUID[1] = v.Origin[0]
	return v
}

func randomRecord(r *rand.Rand) Record {
	rec := Record{Ref: DataRef("k"), Version: few(r)}
	for range r.IntN(3) {
		rec.Context = rec.Context.Extend(few(r))
	}
	rec.Flags = Flags(rec.UUID[15] & 1) // one version, one content
	if rec.Tombstone() {
		rec.PurgeAt = int64(r.IntN(2)) * 10_000
	}
	return rec
}

// winner drops the context, which is part of a version: random records may have
// one version with two contexts, which real ones never do.
func winner(a, b Record) Record {
	w := Merge(a, b).Winner
	w.Context = nil
	return w
}

func TestMergeLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		a, b, c := randomRecord(r), randomRecord(r), randomRecord(r)
		if x, y := a.Version.Compare(b.Version), b.Version.Compare(a.Version); x != -y {
			t.Fatalf("Compare is not antisymmetric: %d and %d for %+v and %+v", x, y, a, b)
		}
		if !reflect.DeepEqual(winner(a, a), winner(a, a)) || Merge(a, a).Second || Merge(a, a).Conflict {
			t.Fatalf("merge is not idempotent for %+v", a)
		}
		if x, y := winner(a, b), winner(b, a); !reflect.DeepEqual(x, y) {
			t.Fatalf("merge does not commute:\n%+v\n%+v", x, y)
		}
		if x, y := winner(winner(a, b), c), winner(a, winner(b, c)); !reflect.DeepEqual(x, y) {
			t.Fatalf("merge does not associate:\n%+v\n%+v", x, y)
		}
		if a.UUID != b.UUID && Merge(a, b).Conflict != Merge(b, a).Conflict {
			t.Fatalf("whether there is a conflict depends on the order: %+v, %+v", a, b)
		}
	}
}

func TestOrder(t *testing.T) {
	base := Version{Timestamp: 5, OriginJoined: 10, UUID: VersionID{5}}
	later, older, smaller := base, base, base
	later.Timestamp, later.OriginJoined, later.UUID = 6, 99, VersionID{9}
	older.OriginJoined, older.UUID = 9, VersionID{9}
	smaller.UUID = VersionID{4}
	for name, wins := range map[string]Version{"the later timestamp": later, "the node that joined first": older, "the smaller uuid": smaller} {
		if wins.Compare(base) != 1 || base.Compare(wins) != -1 {
			t.Errorf("%s does not win", name)
		}
	}
}

func TestContext(t *testing.T) {
	v := func(origin byte, ts Timestamp) Version { return Version{Origin: NodeID{origin}, Timestamp: ts} }
	var c Context
	if c.Covers(v(1, 1)) {
		t.Error("an empty context covers something")
	}
	c = c.Extend(v(1, 5)).Extend(v(2, 3)).Extend(v(1, 4))
	for _, x := range []struct {
		v    Version
		want bool
	}{{v(1, 5), true}, {v(1, 4), true}, {v(1, 6), false}, {v(2, 3), true}, {v(3, 1), false}} {
		if c.Covers(x.v) != x.want {
			t.Errorf("covers %+v: %v", x.v, !x.want)
		}
	}
	before := c
	c.Extend(v(1, 9))
	if !reflect.DeepEqual(before, c) {
		t.Error("Extend changed its receiver")
	}
	for i := range 40 {
		c = c.Extend(v(byte(100+i), Timestamp(100+i)))
	}
	if len(c) != MaxContext || c.Covers(v(1, 1)) || !c.Covers(v(139, 139)) {
		t.Errorf("context of %d entries: %v", len(c), c)
	}
}

// Deleting on both sides loses nothing; writing on both sides does.
func TestConflicts(t *testing.T) {
	a := Record{Version: Version{Timestamp: 2, Origin: NodeID{1}, UUID: VersionID{1}}}
	b := Record{Version: Version{Timestamp: 1, Origin: NodeID{2}, UUID: VersionID{2}}}
	if m := Merge(a, b); !m.Conflict || m.Loser.UUID != b.UUID {
		t.Errorf("two writes: %+v", m)
	}
	seen := a
	seen.Context = Context(nil).Extend(b.Version)
	if Merge(seen, b).Conflict {
		t.Error("an overwrite is taken for a conflict")
	}
	a.Flags, b.Flags = FlagTombstone, FlagTombstone
	if Merge(a, b).Conflict {
		t.Error("two deletes are taken for a conflict")
	}
	a.Flags = 0
	if !Merge(a, b).Conflict {
		t.Error("a delete that lost to a write is not kept")
	}
}
