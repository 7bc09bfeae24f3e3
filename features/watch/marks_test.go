package watch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// TestGoneAgainstOracle: a place behind which the horizon has passed a delete or
// an expiry is refused, whatever else happened, restarts included; and one after
// which nothing is near the horizon is not.
func TestGoneAgainstOracle(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { goneAgainstOracle(t, seed) }) })
	}
}

func goneAgainstOracle(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	var horizon atomic.Int64
	o := worldOptions{
		Options: storage.Options{Dir: t.TempDir(), TombstoneGrace: time.Duration(r.IntN(3)) * 40 * time.Second},
		watch:   Options{Horizon: horizon.Load},
	}
	w := open(t, o)
	all := w.subscribe(SubOptions{})
	type moment struct {
		place Place
		after int // events of all
		time  int64
	}
	moments := []moment{{all.Place(), 0, 0}}
	var events []told
	refused, served := 0, 0
	for range 120 {
		key := types.Key(fmt.Sprintf("k%d", r.IntN(12)))
		switch r.IntN(8) {
		case 0, 1:
			w.store.Write(t.Context(), []storage.Op{{Kind: storage.OpDelete, Ref: types.DataRef(key)}}, false)
		case 2, 3:
			w.putFor(key, time.Duration(1+r.IntN(30_000))*time.Millisecond)
		case 4: // a delete that was long on its way
			now := w.store.Now().UnixMilli()
			rec := types.Record{Ref: types.DataRef(key), Flags: types.FlagTombstone}
			rec.Timestamp, rec.Origin, rec.UUID = types.TimestampOf(now), types.NodeID{1}, types.VersionID{1, byte(r.IntN(256)), byte(r.IntN(256))}
			rec.PurgeAt = max(horizon.Load()+1, now-int64(r.IntN(20_000)))
			storagetest.Merge(t, w.store, rec)
		default:
			w.put(key, "x")
		}
		if r.IntN(3) == 0 {
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Millisecond)
		}
		synctest.Wait()
		got, err := all.read()
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, got...)
		now := time.Now().UnixMilli()
		if r.IntN(3) == 0 {
			horizon.Store(max(horizon.Load(), now-int64(r.IntN(60_000))))
		}
		if r.IntN(15) == 0 {
			w.close()
			w = open(t, o)
			all = w.subscribe(SubOptions{})
		}
		for i := len(events) - len(got); i < len(events); i++ {
			moments = append(moments, moment{events[i].Place, i + 1, now})
		}
		moments = append(moments, moment{all.Place(), len(events), now})
		for _, m := range moments {
			missed, near := false, false
			for i, e := range events {
				if e.Kind == "put" && e.Expires == 0 || e.Purge == 0 {
					continue
				}
				missed = missed || i >= m.after && e.Kind != "put" && e.Purge <= horizon.Load()
				// What was overwritten before it expired counts as well, and marks
				// are rough.
				near = near || max(e.Expires, 0) >= m.time-40_000 && e.Purge <= horizon.Load()+20_000 || i >= m.after-20 && e.Purge <= horizon.Load()
			}
			gone := w.marks.gone(m.place, w.store.Seq())
			if missed && !gone {
				t.Fatalf("%v was served, behind %d of %v, under %d", m.place, m.after, events, horizon.Load())
			}
			if gone && !missed && !near {
				t.Fatalf("%v was refused, behind %d of %v, under %d", m.place, m.after, events, horizon.Load())
			}
			if gone {
				refused++
			} else {
				served++
			}
		}
		if p := Behind(w.store.Seq()); w.marks.gone(p, p.Seq) && !slices.ContainsFunc(events, func(e told) bool { return e.Purge > 0 && e.Purge <= horizon.Load() }) {
			t.Fatal("the present is refused")
		}
	}
	if refused == 0 || served == 0 {
		t.Errorf("%d refused, %d served", refused, served)
	}
	w.close()
}

// TestPresentIsServed: whoever lists what there is can always watch from there,
// however long ago the last commit was.
func TestPresentIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var horizon atomic.Int64
		w := open(t, worldOptions{watch: Options{Horizon: horizon.Load}})
		old := w.subscribe(SubOptions{}).Place()
		w.putFor("a", time.Minute)
		w.put("b", "x")
		w.delete("b")
		time.Sleep(2 * time.Hour)
		horizon.Store(time.Now().UnixMilli())
		w.resume(Behind(w.store.Seq())).want("expire a") // again, for it does not say when
		w.resume(w.subscribe(SubOptions{}).Place()).want()
		for _, p := range []Place{old, Behind(w.store.Seq() - 1), {w.store.Seq() - 1, 0}} {
			_, err := w.Subscribe(SubOptions{From: &p})
			wantErr(t, err, ErrGone)
		}
		w.close()
	})
}

func TestGoneByNumber(t *testing.T) {
	w := open(t, worldOptions{})
	p := Behind(w.store.Seq() + 1)
	_, err := w.Subscribe(SubOptions{From: &p})
	wantErr(t, err, ErrGone)
}

// TestGoneMeanwhile: what is forgotten while a subscriber catches up ends it.
func TestGoneMeanwhile(t *testing.T) {
	var horizon atomic.Int64
	o := worldOptions{Options: storage.Options{Dir: t.TempDir()}, watch: Options{Horizon: horizon.Load}}
	w := open(t, o)
	from := Behind(w.store.Seq())
	for i := range 20 {
		w.put(types.Key(fmt.Sprint(i)), "x")
	}
	gone := w.delete("3")
	w.close()
	w = open(t, o)
	w.room.most, w.room.least = 200, 200
	r := w.subscribe(SubOptions{From: &from})
	b, err := r.Take(t.Context())
	if err != nil || len(b.Events) == 0 {
		t.Fatal(len(b.Events), err)
	}
	horizon.Store(gone.PurgeAt)
	_, err = r.read()
	wantErr(t, err, ErrGone)
	if r.Place() != b.Place {
		t.Errorf("at %v, and what was taken ends at %v", r.Place(), b.Place)
	}
}

// TestMarksStayFew, durable, and true.
func TestMarksStayFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		const most = 64
		w := open(t, worldOptions{Options: storage.Options{Dir: dir}, adjust: func(h *Hub) { h.marks.most = most }})
		made := map[uint64]int64{}
		for i := range 4*most + 10 {
			rec := w.put("k", fmt.Sprint(i))
			made[w.store.Seq()] = rec.Timestamp.Millis()
			time.Sleep(markEvery + time.Second)
		}
		for again := range 2 {
			if n := len(w.marks.list); n > most || n < most/2 {
				t.Errorf("%d marks", n)
			}
			unknown := 0
			for seq, at := range made {
				if m := w.marks.madeAt(Behind(seq)); m > at {
					t.Fatalf("commit %d was made at %d, and is believed to be later, %d", seq, at, m)
				} else if m == 0 {
					unknown++
				} else if seq > w.store.Seq()-most/4 && at-m > 5 {
					t.Errorf("commit %d was made at %d, and is believed to be %d ms earlier", seq, at, at-m)
				}
			}
			if unknown > 1 {
				t.Errorf("nothing is known of %d commits", unknown)
			}
			if again == 1 {
				break
			}
			before := slices.Clone(w.marks.list)
			w.close()
			w = open(t, worldOptions{Options: storage.Options{Dir: dir}})
			if !reflect.DeepEqual(w.marks.list, before) {
				t.Error("other marks after a restart")
			}
		}
		w.close()
	})
}

// TestWithoutMarks: a store that was written without a hub.
func TestWithoutMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := storagetest.Open(t, storage.Options{Dir: dir})
		storagetest.One(t, s, storage.Op{Kind: storage.OpPut, Ref: types.DataRef("soon"), Value: []byte(`1`), TTL: 90 * time.Second})
		storagetest.Put(t, s, "a", `1`)
		from := Behind(s.Seq())
		deleted := storagetest.Delete(t, s, "a")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var horizon atomic.Int64
		o := worldOptions{Options: storage.Options{Dir: dir}, watch: Options{Horizon: horizon.Load}}
		w := open(t, o)
		onTime(t, w.subscribe(SubOptions{}).expiredAt("soon"))
		w.resume(from).want("expire soon", "delete a")
		horizon.Store(deleted.PurgeAt)
		_, err := w.Subscribe(SubOptions{From: &from})
		wantErr(t, err, ErrGone)
		w.close()
	})
}

// TestDamagedMark is refused by name.
func TestDamagedMark(t *testing.T) {
	m := newMarks()
	for _, c := range []struct{ key, value string }{{"", ""}, {"m", "x"}, {"x1234567812345678", "\x00" + "1234567812345678"}, {"m1234567812345678", "\x02" + "1234567812345678"}, {"l", "short"}} {
		if err := m.load([]byte(c.key), []byte(c.value)); err == nil {
			t.Errorf("%q: %q was taken", c.key, c.value)
		}
	}
	want := mark{7, 8, true, 9, never}
	if err := m.load(want.key(), want.value()); err != nil || m.list[0] != want {
		t.Errorf("%+v, %v", m.list, err)
	}
	wild := noLag
	for _, rec := range []types.Record{{PurgeAt: math.MaxInt64, ExpiresAt: 1}, {PurgeAt: math.MinInt64, ExpiresAt: math.MaxInt64}} {
		if wild.add(&rec); wild.shortest > wild.longest || wild.longest+1<<45 < wild.longest || wild.shortest-1<<45 > wild.shortest {
			t.Errorf("%+v", wild)
		}
	}
	l := lag{-10_000, 3_610_000}
	if err := m.load([]byte{'l'}, l.encode()); err != nil || m.lag != l {
		t.Errorf("%+v, %v", m.lag, err)
	}
}
