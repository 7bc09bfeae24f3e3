package watch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// expiredAt waits for the expiry of a key and gives by how much it is late.
func (r *reader) expiredAt(key types.Key) time.Duration {
	r.t.Helper()
	for {
		ready := r.Ready()
		events, err := r.read()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind == "expire" && e.Key == key {
				return time.Since(time.UnixMilli(e.Expires))
			}
		}
		select {
		case <-ready:
		case <-time.After(2 * time.Hour):
			r.t.Fatalf("%s never expires", key)
		}
	}
}

func onTime(t *testing.T, late time.Duration) {
	t.Helper()
	if late < 0 || late > time.Second {
		t.Errorf("it is %s late", late)
	}
}

// TestExpireInTime: soon and late, written while watched and before the start.
func TestExpireInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := open(t, worldOptions{Options: storage.Options{Dir: dir}})
		r := w.subscribe(SubOptions{})
		for i, ttl := range []time.Duration{time.Millisecond, 1500 * time.Millisecond, 59 * time.Second, 61 * time.Second, 20 * time.Minute} {
			key := types.Key(fmt.Sprint(i))
			rec := w.putFor(key, ttl)
			onTime(t, r.expiredAt(key))
			last := r.told[len(r.told)-1]
			if last.UUID != rec.UUID.String() || last.Value != "" && last.Value != "1" {
				t.Errorf("%v", last)
			}
		}
		inOrder(t, r.told)
		w.putFor("soon", 3*time.Second)
		w.putFor("later", 3*time.Minute)
		time.Sleep(time.Second)
		w.close()
		w = open(t, worldOptions{Options: storage.Options{Dir: dir}})
		r = w.subscribe(SubOptions{})
		onTime(t, r.expiredAt("soon"))
		onTime(t, r.expiredAt("later"))
		if len(r.told) != 2 {
			t.Errorf("%v", r.told)
		}
		w.close()
	})
}

// TestNoExpire: of versions that are not there any more when their time comes.
func TestNoExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, worldOptions{})
		for _, key := range []types.Key{"overwritten", "deleted", "extended", "kept"} {
			w.putFor(key, 10*time.Second)
		}
		r := w.subscribe(SubOptions{})
		w.put("overwritten", "x")
		w.delete("deleted")
		storagetest.One(t, w.store, storage.Op{Kind: storage.OpMeta, Ref: types.DataRef("extended"), TTL: 30 * time.Second})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		r.want("put overwritten", "delete deleted", "put extended", "expire kept")
		onTime(t, r.expiredAt("extended"))
		w.close()
	})
}

// TestManyExpire: more at one moment than are kept in advance, and at many.
func TestManyExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, worldOptions{adjust: func(h *Hub) { h.expiries.most = 16 }})
		r := w.subscribe(SubOptions{})
		rnd := rand.New(rand.NewPCG(5, 6))
		var ops []storage.Op
		want := map[types.Key]bool{}
		for i := range 800 {
			ttl := 30 * time.Second
			if i%2 == 0 {
				ttl = time.Second + rand.N(2*time.Minute)
			}
			key := types.Key(fmt.Sprint(rnd.IntN(1 << 30)))
			want[key] = true
			ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(`1`), TTL: ttl})
		}
		if _, err := w.store.Write(t.Context(), ops, true); err != nil {
			t.Fatal(err)
		}
		for len(want) > 0 {
			ready := r.Ready()
			events, err := r.read()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Kind != "expire" {
					continue
				}
				onTime(t, time.Since(time.UnixMilli(e.Expires)))
				if !want[e.Key] {
					t.Errorf("%v came twice", e)
				}
				delete(want, e.Key)
			}
			if len(events) > 0 {
				continue
			}
			select {
			case <-ready:
			case <-time.After(time.Hour):
				t.Fatalf("%d never expire", len(want))
			}
		}
		if n := len(w.expiries.queue); n > 17 {
			t.Errorf("%d are kept", n)
		}
		w.close()
	})
}

// TestExpiredWhileAway: from any place, after any time, with the node up or off
// meanwhile, whoever resumes is told of all values that it believes in and that
// expired.
func TestExpiredWhileAway(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { expiredWhileAway(t, seed) }) })
	}
}

func expiredWhileAway(t *testing.T, seed uint64) {
	dir := t.TempDir()
	w := open(t, worldOptions{Options: storage.Options{Dir: dir}})
	all := w.subscribe(SubOptions{})
	start := all.Place()
	r := rand.New(rand.NewPCG(7, seed))
	places := map[int]Place{} // behind so many events, from what Place says in idle times
	for i := range 40 {
		key := types.Key(fmt.Sprintf("k%d", r.IntN(12)))
		switch r.IntN(6) {
		case 0:
			w.put(key, "stays")
		case 1:
			w.store.Write(t.Context(), []storage.Op{{Kind: storage.OpDelete, Ref: types.DataRef(key)}}, false)
		default:
			w.putFor(key, time.Duration(1+r.IntN(60_000))*time.Millisecond)
		}
		time.Sleep(time.Duration(r.IntN(8_000)) * time.Millisecond)
		synctest.Wait()
		if _, err := all.read(); err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 {
			places[len(all.told)] = all.Place()
		}
	}
	check := func(what string) {
		t.Helper()
		synctest.Wait()
		want := w.current("")
		try := func(n int, from Place) {
			have := state{}
			have.believe(all.told[:n])
			got, err := w.resume(from).read()
			if err != nil {
				t.Fatal(err)
			}
			inOrder(t, got)
			if have.believe(got); fmt.Sprint(have) != fmt.Sprint(want) {
				t.Fatalf("%s: after %d events, from %v, %v lead to\n%v, want\n%v", what, n, from, got, have, want)
			}
		}
		try(0, start)
		for i, e := range all.told {
			try(i+1, e.Place)
		}
		for n, p := range places {
			try(n, p)
		}
	}
	if !slices.ContainsFunc(all.told, func(e told) bool { return e.Kind == "expire" }) {
		t.Fatal("nothing expired")
	}
	check("at once")
	time.Sleep(7 * time.Second)
	check("soon")
	w.close()
	time.Sleep(9 * time.Second)
	w = open(t, worldOptions{Options: storage.Options{Dir: dir}})
	check("after a restart")
	time.Sleep(2 * time.Minute)
	check("when all has expired")
	w.close()
}

// TestFewRepeats: who comes back soon with a place that says a time, or after
// marks were made, is not told of everything that ever expired.
func TestFewRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := open(t, worldOptions{Options: storage.Options{Dir: dir}})
		r := w.subscribe(SubOptions{})
		for i := range 50 {
			w.putFor(types.Key(fmt.Sprint(i)), time.Second)
			time.Sleep(2 * time.Second)
		}
		w.put("end", "x")
		r.untilKey("end")
		synctest.Wait()
		behindEnd := r.told[len(r.told)-1].Place
		for name, from := range map[string]Place{"an event": behindEnd, "a time": r.Place(), "a range": Behind(w.store.Seq())} {
			got, err := w.resume(from).read()
			if err != nil || len(got) > 4 {
				t.Errorf("after %s: %v %v", name, got, err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		idle := w.subscribe(SubOptions{}).Place()
		w.close()
		time.Sleep(time.Minute)
		w = open(t, worldOptions{Options: storage.Options{Dir: dir}})
		for name, from := range map[string]Place{"an event": behindEnd, "a time": idle} {
			got, err := w.resume(from).read()
			if err != nil || len(got) > 4 {
				t.Errorf("after %s and a restart: %v %v", name, got, err)
			}
		}
		w.close()
	})
}

// TestExpiredOnArrival: what another node sends too late to be seen.
func TestExpiredOnArrival(t *testing.T) {
	w := open(t, worldOptions{})
	r := w.subscribe(SubOptions{})
	now := time.Now().UnixMilli()
	rec := types.Record{Ref: types.DataRef("late"), ExpiresAt: now - 1000, PurgeAt: now + 3_600_000, Value: []byte(`1`)}
	rec.Timestamp, rec.Origin, rec.UUID = types.TimestampOf(now-2000), types.NodeID{1}, types.VersionID{1}
	storagetest.Merge(t, w.store, rec)
	w.put("end", "x")
	r.want("expire late", "put end")
}
