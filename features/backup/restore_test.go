package backup

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// A full backup and incremental ones bring back exactly what was there at the
// last of them, though the horizon passed deletes in between, and what had
// expired.
func TestChainRestoresTheState(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			n := startNode(t)
			model := make(map[types.Ref][]types.Record)
			set := func(rec types.Record) { model[rec.Ref] = append(model[rec.Ref], rec) }
			write := func(count int) {
				for range count {
					key := types.Key(fmt.Sprintf("k%02d", r.IntN(30)))
					switch old := model[types.DataRef(key)]; {
					case r.IntN(3) == 0 && len(old) > 0 && old[len(old)-1].Live(time.Now().UnixMilli()+5000):
						set(n.delete(key))
					case r.IntN(5) == 0:
						set(n.putTTL(key, fmt.Sprint(r.Uint64()), time.Duration(1+r.IntN(2)*60_000)*time.Millisecond))
					default:
						set(n.put(key, fmt.Sprint(r.Uint64())))
					}
				}
			}
			// The horizon in this test is far ahead of the clock, so that what is
			// deleted now is forgotten now.
			purge := func(ahead time.Duration) {
				to := time.Now().Add(ahead).UnixMilli()
				for ref, versions := range model {
					if versions[len(versions)-1].Purged(to) {
						delete(model, ref)
					}
				}
				n.purge(to)
				set(n.follow.last())
			}
			write(100)
			var last Info
			for i := range 5 {
				kind := Incremental
				if i == 0 {
					kind = Full
				}
				last = n.backup(kind)
				if i == 4 {
					break
				}
				write(r.IntN(40))
				if r.IntN(3) > 0 {
					purge(20 * time.Second * time.Duration(i+1))
				}
				write(r.IntN(10))
			}
			want := make(map[types.Ref][]types.Record)
			for ref, versions := range model {
				if !versions[len(versions)-1].Purged(n.horizon.Load()) {
					want[ref] = kept(versions)
				}
			}
			s, report := restore(t, restoreOptions(t, false, last))
			wantCurrent(t, s, want)
			if got := report.Live + report.Tombstones + report.Expired; got != uint64(len(want)) {
				t.Errorf("%d keys are reported, %d are there", got, len(want))
			}
		})
	}
}

// wantCurrent is wantState, but that the history may be shorter where a key was
// forgotten in between.
func wantCurrent(t *testing.T, s *storage.Store, want map[types.Ref][]types.Record) {
	t.Helper()
	got := stateOf(t, s)
	for ref, versions := range want {
		have := got[ref]
		if len(have) == 0 || !same(have[len(have)-1], versions[len(versions)-1]) {
			t.Errorf("%s is %s, want %s", ref, values(have), values(versions))
		}
		delete(got, ref)
	}
	for ref, versions := range got {
		t.Errorf("%s came back: %s", ref, values(versions))
	}
}

// Nothing is lost of a key: versions, history, losers of conflicts, expiry.
func TestRestoreIsByteForByte(t *testing.T) {
	n := startNode(t)
	for i := range 300 {
		n.put(types.Key(fmt.Sprintf("k%d", i%90)), fmt.Sprint(i))
	}
	for i := range 20 {
		n.delete(types.Key(fmt.Sprintf("k%d", i)))
		n.putTTL(types.Key(fmt.Sprintf("ttl%d", i)), "1", time.Hour)
	}
	var ops []storage.Op
	for i := range 3 {
		ops = append(ops, storage.Op{Ref: types.DataRef("inner"), Value: fmt.Append(nil, i)})
	}
	if _, err := n.store.Write(t.Context(), ops, true); err != nil {
		t.Fatal(err)
	}
	storagetest.Merge(t, n.store, other("k50", 5, 8, `"lost a conflict"`))
	for _, ns := range []types.Namespace{types.NSAuth, types.NSJobs} {
		storagetest.One(t, n.store, storage.Op{Ref: types.Ref{NS: ns, Key: "x"}, Value: []byte("1")})
	}
	want := stateOf(t, n.store)
	s, report := restore(t, restoreOptions(t, true, n.backup(Full)))
	for ref, versions := range want {
		if ref.NS != types.NSData {
			want[ref] = versions[len(versions)-1:]
		}
	}
	wantState(t, s, want)
	if report.Live != 70+20+1+1+2 || report.Tombstones != 20 || report.Older == 0 || report.Unknown+report.Damaged+report.Expired != 0 {
		t.Errorf("%+v", report)
	}
	if s.Identity() == n.store.Identity() {
		t.Error("the identity was taken over")
	}
	// The next write is later than all that came in.
	if rec := storagetest.Put(t, s, "k60", "new"); rec.Timestamp <= want[types.DataRef("k60")][0].Timestamp || len(rec.Context) == 0 {
		t.Errorf("%+v", rec)
	}
}

// The cluster of the backup is not taken over, and remembered.
func TestRestoreLeavesTheClusterBehind(t *testing.T) {
	n := startNode(t)
	member := types.NodeID{7}
	ref := types.Ref{NS: types.NSCluster, Key: types.Key("roster/" + member.String())}
	storagetest.One(t, n.store, storage.Op{Ref: ref, Value: []byte(`{"node_id":"m"}`)})
	s, report := restore(t, restoreOptions(t, true, n.backup(Full)))
	if _, err := s.Lookup(ref); !errors.Is(err, types.ErrNotFound) || report.Left != 1 {
		t.Errorf("the roster: %v, %+v", err, report)
	}
	for _, id := range []types.NodeID{member, n.store.Identity().UUID} {
		if _, err := s.Get(types.Ref{NS: types.NSCluster, Key: types.Key("lineage/" + id.String())}); err != nil {
			t.Errorf("the mark of %s: %v", id, err)
		}
	}
}

// --at gives what was current then, or says that it is not known. The model has
// every version there ever was.
func TestRestoreAsOf(t *testing.T) {
	n := startNode(t)
	r := rand.New(rand.NewPCG(9, 9))
	n.put("once", "1")
	for i := range 5 * limit {
		n.put("often", fmt.Sprint(i))
	}
	full := n.backup(Full)
	var times []time.Time
	for i := range 12 {
		time.Sleep(2 * time.Millisecond) // so that times differ in their milliseconds
		times = append(times, time.Now())
		time.Sleep(2 * time.Millisecond)
		key := types.Key(fmt.Sprintf("k%d", r.IntN(3)))
		if _, err := n.store.Get(types.DataRef(key)); err == nil && r.IntN(2) == 0 {
			n.delete(key)
		} else {
			n.put(key, fmt.Sprint(r.Uint64()))
		}
		if i%4 == 3 {
			n.backup(Incremental)
		}
	}
	n.backup(Incremental)
	all := n.follow.at(n.store.Seq())
	known, unknown := 0, 0
	for i, at := range times {
		if i%2 == 0 {
			continue // a store each takes its time
		}
		o := restoreOptions(t, true, full)
		if o.At = at; len(o.Chain) < 3 {
			t.Fatal("the incremental backups were not found")
		}
		p, err := Prepare(t.Context(), o)
		if u := (*UnknownError)(nil); errors.As(err, &u) {
			o.SkipUnknown = true
			p, err = Prepare(t.Context(), o)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := storagetest.Open(t, storage.Options{RevisionLimit: limit})
		if err := p.Write(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		p.Close()
		missing := uint64(0)
		for ref, versions := range all {
			var want *types.Record
			for i := range versions {
				if versions[i].Timestamp.Millis() <= at.UnixMilli() {
					want = &versions[i]
				}
			}
			rec, err := s.Lookup(ref)
			switch {
			case err == nil && (want == nil || !same(rec, *want)):
				t.Fatalf("%s at %s is %s, want %v", ref, at, rec.Value, want)
			case err == nil:
				known++
			case want != nil:
				missing++
			}
		}
		if missing > p.Report.Unknown {
			t.Fatalf("%d keys are missing, and %d are said to be unknown", missing, p.Report.Unknown)
		}
		unknown += int(p.Report.Unknown)
	}
	if known == 0 {
		t.Error("nothing was restored")
	}
	before := restoreOptions(t, true, full)
	before.At = time.UnixMilli(all[types.DataRef("often")][1].Timestamp.Millis() - 1)
	if _, err := Prepare(t.Context(), before); !errors.As(err, new(*UnknownError)) || !strings.Contains(err.Error(), `"often"`) {
		t.Errorf("a time before all that is known: %v", err)
	}
	before.At = time.Now().Add(time.Minute)
	if _, err := Prepare(t.Context(), before); err == nil || !strings.Contains(err.Error(), "later than the newest backup") {
		t.Errorf("a time after the backup: %v", err)
	}
}

// A time between two backups, of a key that was deleted and forgotten in
// between.
func TestAsOfBetweenBackups(t *testing.T) {
	n := startNode(t)
	rec := n.put("k", "1")
	full := n.backup(Full)
	time.Sleep(3 * time.Millisecond)
	tomb := n.delete("k")
	n.purge(tomb.PurgeAt)
	n.backup(Incremental)
	for at, want := range map[int64]bool{rec.Timestamp.Millis() - 1: false, rec.Timestamp.Millis(): true, tomb.Timestamp.Millis() - 1: true, tomb.Timestamp.Millis(): false} {
		o := restoreOptions(t, true, full)
		o.At = time.UnixMilli(at)
		s, _ := restore(t, o)
		if _, err := s.Get(rec.Ref); (err == nil) != want {
			t.Errorf("%d ms after the write: %v", at-rec.Timestamp.Millis(), err)
		}
	}
}

// A key that was deleted, forgotten, and written again has the history of its
// second life alone.
func TestSecondLife(t *testing.T) {
	n := startNode(t)
	first := n.put("k", "1")
	full := n.backup(Full)
	time.Sleep(3 * time.Millisecond)
	tomb := n.delete("k")
	n.purge(tomb.PurgeAt)
	n.reopen()
	time.Sleep(3 * time.Millisecond)
	second := n.put("k", "2")
	n.backup(Incremental)
	o := restoreOptions(t, true, full)
	s, _ := restore(t, o)
	if got := stateOf(t, s)[first.Ref]; len(got) != 1 || !same(got[0], second) {
		t.Errorf("versions %s", values(got))
	}
	for at, want := range map[int64]string{tomb.Timestamp.Millis() - 1: "1", tomb.Timestamp.Millis(): "", second.Timestamp.Millis(): "2"} {
		o.At = time.UnixMilli(at)
		s, _ := restore(t, o)
		if rec, _ := s.Get(first.Ref); string(rec.Value) != want {
			t.Errorf("%d ms after the first write: %q, want %q", at-first.Timestamp.Millis(), rec.Value, want)
		}
	}
	// Whereas one that is deleted and written again at once keeps all.
	n.put("l", "1")
	full = n.backup(Full)
	n.delete("l")
	n.put("l", "2")
	n.backup(Incremental)
	s, _ = restore(t, restoreOptions(t, true, full))
	if got := stateOf(t, s)[types.DataRef("l")]; len(got) != 3 {
		t.Errorf("versions %s", values(got))
	}
}

func TestAsOf(t *testing.T) {
	ref := types.DataRef("k")
	at := func(ms int64, previous int64) types.Record {
		rec := other("k", ms, 1, fmt.Sprint(ms))
		if previous != 0 {
			rec.Context = types.Context{{Origin: types.NodeID{1}, Timestamp: types.TimestampOf(previous)}}
		}
		return rec
	}
	gone := func(ms, previous int64) vanished {
		return vanished{types.TimestampOf(ms), types.TimestampOf(previous)}
	}
	for _, c := range []struct {
		name     string
		versions []types.Record
		gone     []vanished
		at       int64
		want     string // value, "absent" or "unknown"
	}{
		{"before it was written", []types.Record{at(10, 0)}, nil, 9, "absent"},
		{"when it was written", []types.Record{at(10, 0)}, nil, 10, "10"},
		{"long after", []types.Record{at(10, 0)}, nil, 99, "10"},
		{"between two versions", []types.Record{at(10, 0), at(20, 10)}, nil, 15, "10"},
		{"before the oldest that is kept", []types.Record{at(20, 10)}, nil, 15, "unknown"},
		{"in a gap", []types.Record{at(10, 0), at(50, 40)}, nil, 30, "unknown"},
		{"behind a gap", []types.Record{at(10, 0), at(50, 40)}, nil, 50, "50"},
		{"two that knew nothing of each other", []types.Record{at(10, 0), at(50, 0)}, nil, 30, "10"},
		{"before it vanished", []types.Record{at(10, 0)}, []vanished{gone(20, 10)}, 15, "10"},
		{"after it vanished", []types.Record{at(10, 0)}, []vanished{gone(20, 10)}, 25, "absent"},
		{"between, and another version was in between", []types.Record{at(10, 0)}, []vanished{gone(20, 15)}, 17, "unknown"},
		{"a second life", []types.Record{at(10, 0), at(30, 0)}, []vanished{gone(20, 10)}, 25, "absent"},
		{"in a second life", []types.Record{at(10, 0), at(30, 0)}, []vanished{gone(20, 10)}, 35, "30"},
	} {
		records, f := plan{at: c.at, older: 5}.of(&history{ref: ref, versions: c.versions, gone: c.gone})
		got := map[fate]string{absent: "absent", unknown: "unknown"}[f]
		if f == restored {
			got = string(records[len(records)-1].Value)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Revocations stay, whatever time is asked for.
func TestAsOfKeepsRevocations(t *testing.T) {
	n := startNode(t)
	n.put("a", "1")
	at := time.Now()
	time.Sleep(2 * time.Millisecond)
	mark := types.Ref{NS: types.NSAuth, Key: "revoked/x"}
	storagetest.One(t, n.store, storage.Op{Ref: mark, Value: []byte("1")})
	o := restoreOptions(t, true, n.backup(Full))
	o.At = at
	s, _ := restore(t, o)
	if _, err := s.Get(mark); err != nil {
		t.Errorf("the revocation: %v", err)
	}
}

func TestRestoreRefusals(t *testing.T) {
	n := startNode(t)
	n.put("a", "1")
	full := n.backup(Full)
	n.put("a", "2")
	inc := n.backup(Incremental)
	n.put("a", "3")
	second := n.backup(Incremental)

	// Into a store that has something.
	p, err := Prepare(t.Context(), restoreOptions(t, false, full))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), n.store); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a store with records: %v", err)
	}
	p.Close()

	// A clock that is behind the backup.
	o := restoreOptions(t, false, full)
	o.Now = o.Now.Add(-time.Hour)
	if _, err := Prepare(t.Context(), o); !errors.Is(err, types.ErrClockSkew) {
		t.Errorf("a wrong clock: %v", err)
	}

	chainNames := func(following bool, infos ...Info) string {
		var names []string
		for _, info := range restoreOptions(t, following, infos...).Chain {
			names = append(names, info.Name)
		}
		return strings.Join(names, " ")
	}
	three := full.Name + " " + inc.Name + " " + second.Name
	for name, got := range map[string]string{
		"the newest":                 chainNames(false, second),
		"all, in any order":          chainNames(false, second, full, inc),
		"the full one and followers": chainNames(true, full),
		"the ends":                   chainNames(true, full, second),
	} {
		if got != three {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := chainNames(false, full); got != full.Name {
		t.Errorf("the full one alone: %s", got)
	}
	if got := chainNames(true, inc); got != full.Name+" "+inc.Name {
		t.Errorf("the one in between: %s", got)
	}

	// A damaged file in the chain: named, with the block, and before anything else.
	b, err := os.ReadFile(inc.Path())
	if err != nil {
		t.Fatal(err)
	}
	o = restoreOptions(t, false, second)
	at := blocksOf(t, b)[1] + blockHead + 2
	b[at] ^= 4
	if err := os.WriteFile(inc.Path(), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Prepare(t.Context(), o)
	if d := (*DamageError)(nil); !errors.As(err, &d) || d.Block != 1 || !strings.Contains(err.Error(), inc.Name) {
		t.Errorf("a damaged file: %v", err)
	}

	// One that is missing.
	if err := os.Remove(inc.Path()); err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve([]string{second.Path()}, false); err == nil || !strings.Contains(err.Error(), inc.ID.String()) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Resolve([]string{filepath.Join(n.dir, "nothing")}, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	m := startNode(t)
	m.put("a", "1")
	foreign := m.backup(Full)
	if _, err := Resolve([]string{full.Path(), foreign.Path()}, true); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("backups of two nodes: %v", err)
	}
}
