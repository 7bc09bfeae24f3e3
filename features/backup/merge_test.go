package backup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// body is what is sent for a chain.
func body(t *testing.T, infos ...Info) *bytes.Reader {
	t.Helper()
	var all []byte
	for _, info := range infos {
		b, err := os.ReadFile(info.Path())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return bytes.NewReader(all)
}

func (n *node) merge(o MergeOptions, infos ...Info) MergeReport {
	n.t.Helper()
	before := files(n.t, n.dir)
	r, err := n.m.Merge(n.t.Context(), body(n.t, infos...), o)
	if err != nil {
		n.t.Fatal(err)
	}
	if r.Records != r.Merged+r.Known+r.Purged+r.Missing+r.Left+r.Refused {
		n.t.Errorf("the report does not add up: %+v", r)
	}
	if after := files(n.t, n.dir); len(after) != len(before) {
		n.t.Errorf("files before %v, after %v", before, after)
	}
	return r
}

// has compares the values of live keys.
func (n *node) has(want map[types.Key]string) {
	n.t.Helper()
	got := map[types.Key]string{}
	if err := n.store.Walk(n.t.Context(), types.Ref{}, func(rec *types.Record) bool {
		if rec.NS == types.NSData && rec.Live(time.Now().UnixMilli()) && rec.Key != "purged/at" {
			got[rec.Key] = string(rec.Value)
		}
		return true
	}); err != nil {
		n.t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		n.t.Errorf("there is %v, want %v", got, want)
	}
}

// What was lost comes back, what is newer stays, what was deleted stays deleted,
// and merging again changes nothing.
func TestMergeIntoTheSameCluster(t *testing.T) {
	n := startNode(t)
	for _, key := range []types.Key{"same", "newer", "deleted", "forgotten", "expired"} {
		n.put(key, `"old"`)
	}
	n.putTTL("short", "1", time.Millisecond)
	full := n.backup(Full)
	n.put("newer", `"new"`)
	tomb := n.delete("forgotten")
	n.purge(tomb.PurgeAt + 20_000) // and with it what is short
	n.reopen()
	// Its tombstone is still there.
	old, err := n.store.Get(types.DataRef("deleted"))
	if err != nil {
		t.Fatal(err)
	}
	later := other("deleted", time.Now().UnixMilli(), 9, "")
	later.Flags, later.Value, later.PurgeAt, later.Context = types.FlagTombstone, nil, n.horizon.Load()+60_000, old.Context.Extend(old.Version)
	storagetest.Merge(t, n.store, later)
	want := map[types.Key]string{"same": `"old"`, "newer": `"new"`, "expired": `"old"`}
	n.has(want)
	seq := n.store.Seq()
	for _, dry := range []bool{true, false, false} {
		r := n.merge(MergeOptions{DryRun: dry}, full)
		if r.Merged != 0 || r.Purged != 1 || r.Missing != 1 || r.Known != 4 {
			t.Errorf("dry run %v: %+v", dry, r)
		}
		n.has(want)
	}
	if st := n.store.Stats(); st.Conflicts != 0 {
		t.Errorf("%d conflicts", st.Conflicts)
	}
	// Nothing but the mark of where it came from was written.
	if now := n.store.Seq(); now > seq+1 {
		t.Errorf("%d commits", now-seq)
	}
	// Who knows better says so.
	want["forgotten"] = `"old"`
	if r := n.merge(MergeOptions{Missing: true}, full); r.Merged != 1 || r.Missing != 0 {
		t.Errorf("%+v", r)
	}
	n.has(want)
}

// A chain into a cluster that has nothing to do with it: all comes in, but what
// was deleted before its end; and later only what cannot have been deleted here.
func TestMergeOfAnotherCluster(t *testing.T) {
	source, n := startNode(t), startNode(t)
	source.put("a", "1")
	source.put("b", "1")
	source.put("gone", "1")
	storagetest.One(t, source.store, storage.Op{Ref: types.Ref{NS: types.NSAuth, Key: "user/x"}, Value: []byte("1")})
	storagetest.One(t, source.store, storage.Op{Ref: types.Ref{NS: types.NSCluster, Key: "roster/x"}, Value: []byte("1")})
	full := source.backup(Full)
	source.put("b", "2")
	source.purge(source.delete("gone").PurgeAt)
	inc := source.backup(Incremental)

	n.put("own", "1")
	n.horizon.Store(time.Now().Add(time.Hour).UnixMilli())
	if r := n.merge(MergeOptions{DryRun: true}, full, inc); r.Merged != 4 || r.Left != 1 {
		t.Errorf("dry run: %+v", r)
	}
	n.has(map[types.Key]string{"own": "1"})
	if r := n.merge(MergeOptions{By: &storage.Actor{Subject: "me"}}, full, inc); r.Merged != 4 || r.Left != 1 || r.Known+r.Missing+r.Purged+r.Refused != 0 {
		t.Errorf("%+v", r)
	}
	want := map[types.Key]string{"own": "1", "a": "1", "b": "2"}
	n.has(want)
	if _, err := n.store.Get(types.Ref{NS: types.NSAuth, Key: "user/x"}); err != nil {
		t.Errorf("the user: %v", err)
	}
	if _, err := n.store.Lookup(types.Ref{NS: types.NSCluster, Key: "roster/x"}); !errors.Is(err, types.ErrNotFound) {
		t.Errorf("the roster: %v", err)
	}

	// Deleted here, and forgotten: it does not come back by the same backup.
	n.purge(max(n.delete("a").PurgeAt, n.horizon.Load()))
	n.reopen()
	delete(want, "a")
	if r := n.merge(MergeOptions{}, full, inc); r.Merged != 0 || r.Missing != 1 || r.Known != 3 {
		t.Errorf("again: %+v", r)
	}
	n.has(want)
}

// A merge refuses what a node would of another one, and takes the rest.
func TestMergeNamesWhatIsRefused(t *testing.T) {
	source, n := startNode(t), startNode(t)
	source.put("a", "1")
	info := source.backup(Full)
	b, err := os.ReadFile(info.Path())
	if err != nil {
		t.Fatal(err)
	}
	h, entries, err := readBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	ahead := entries[0].rec
	ahead.Key, ahead.Timestamp = "b", types.TimestampOf(time.Now().Add(time.Hour).UnixMilli())
	var out bytes.Buffer
	w, err := newWriter(&out, &h)
	for _, rec := range []types.Record{entries[0].rec, ahead} {
		if err == nil {
			err = w.record(entryCurrent, &rec)
		}
	}
	if err == nil {
		_, err = w.end()
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.m.Merge(t.Context(), &out, MergeOptions{})
	if err != nil || r.Merged < 1 || r.Refused != 1 || !errors.Is(r.Refusal, types.ErrClockSkew) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := n.store.Get(types.DataRef("b")); !errors.Is(err, types.ErrNotFound) {
		t.Errorf("the record that is ahead: %v", err)
	}
}

// brokenBody is a client that goes away.
type brokenBody struct{ b *bytes.Reader }

func (r brokenBody) Read(p []byte) (int, error) {
	if r.b.Len() < 200 {
		return 0, errors.New("the client is gone")
	}
	return r.b.Read(p[:min(len(p), 100)])
}

// Nothing is written of what is damaged or incomplete, wherever the damage is.
func TestMergeRefusesDamage(t *testing.T) {
	source, n := startNode(t), startNode(t)
	for i := range 50 {
		source.put(types.Key(fmt.Sprint(i)), fmt.Sprint(i))
	}
	full := source.backup(Full)
	source.put("x", "1")
	inc := source.backup(Incremental)
	good, err := os.ReadFile(full.Path())
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.Clone(good)
	last[len(last)-endSize-10] ^= 1
	both, err := os.ReadFile(inc.Path())
	if err != nil {
		t.Fatal(err)
	}
	seq := n.store.Seq()
	for name, b := range map[string][]byte{
		"nothing":                 nil,
		"half":                    good[:len(good)/2],
		"a byte short":            good[:len(good)-1],
		"a byte more":             append(bytes.Clone(good), 0),
		"a bit in the last block": last,
		"no backup":               []byte(strings.Repeat("kvs", 100)),
		"the second one is short": append(bytes.Clone(good), both[:len(both)-1]...),
		"they are no chain":       append(bytes.Clone(good), good...),
	} {
		r, err := n.m.Merge(t.Context(), bytes.NewReader(b), MergeOptions{})
		if !errors.Is(err, types.ErrCorrupt) && !errors.Is(err, ErrNoChain) || r != (MergeReport{}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := n.m.Merge(t.Context(), brokenBody{bytes.NewReader(good)}, MergeOptions{}); err == nil || !strings.Contains(err.Error(), "the client is gone") {
		t.Errorf("a client that went away: %v", err)
	}
	if n.store.Seq() != seq {
		t.Error("something was written")
	}
	if got := files(t, n.dir); len(got) != 0 {
		t.Errorf("files %v", got)
	}
}

func TestAdmit(t *testing.T) {
	old := other("k", 50, 1, "")
	newer := other("k", 70, 2, "")
	dead := other("k", 50, 1, "")
	dead.PurgeAt = 90
	for _, c := range []struct {
		name            string
		related         bool
		horizon, backup int64
		rec             types.Record
		old             *types.Record
		want            string
	}{
		{"foreign and absent", false, 100, 10, old, nil, "merge"},
		{"absent, and a delete may be forgotten", true, 100, 10, old, nil, "missing"},
		{"absent, and the horizon is where it was", true, 100, 100, old, nil, "merge"},
		{"absent, and dated above the horizon", true, 49, 10, old, nil, "merge"},
		{"present and older", true, 100, 10, newer, &old, "merge"},
		{"present and newer", true, 100, 10, old, &newer, "known"},
		{"present and newer, nothing is forgotten", true, 100, 100, old, &newer, "merge"}, // and becomes a conflict, if it is one
		{"purged here", true, 90, 10, dead, nil, "purged"},
		{"purged there", false, 0, 90, dead, nil, "purged"},
		{"not purged yet", false, 89, 10, dead, nil, "merge"},
	} {
		g := merger{m: &Manager{opts: Options{horizon: func() int64 { return c.horizon }}}, related: c.related, last: Header{Horizon: c.backup}}
		var r MergeReport
		got := "known"
		switch ok := g.admit(&r, &c.rec, c.old); {
		case ok:
			got = "merge"
		case r.Missing == 1:
			got = "missing"
		case r.Purged == 1:
			got = "purged"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
