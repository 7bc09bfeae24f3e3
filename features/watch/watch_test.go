package watch

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

func TestLive(t *testing.T) {
	w := open(t, worldOptions{})
	w.put("before", "x")
	all, some := w.subscribe(SubOptions{}), w.subscribe(SubOptions{Prefix: "a/"})
	a := w.put("a/1", "one")
	w.put("b/1", "two")
	w.delete("a/1")
	w.put("a", "not below")
	storagetest.One(t, w.store, storage.Op{Kind: storage.OpPut, Ref: types.Ref{NS: types.NSAuth, Key: "a/secret"}, Value: []byte(`1`)})
	w.put("a/2", "three")
	all.want("put a/1", "put b/1", "delete a/1", "put a", "put a/2")
	some.want("put a/1", "delete a/1", "put a/2")
	first := some.told[0]
	if first.UUID != a.UUID.String() || first.Value != `"one"` || some.told[1].Value != "" {
		t.Errorf("%v", some.told)
	}
	if first.Place != all.told[0].Place {
		t.Errorf("one event at two places: %v and %v", first, all.told[0])
	}
	if st := w.Stats(); st.Watchers != 2 || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
	all.Close()
	all.Close()
	if st := w.Stats(); st.Watchers != 1 {
		t.Errorf("%+v", st)
	}
	w.stop()
	_, err := some.Take(t.Context())
	wantErr(t, err, ErrClosed)
	_, err = w.Subscribe(SubOptions{})
	wantErr(t, err, ErrClosed)
}

// TestBytesAreShared: an event is encoded once, however many watch.
func TestBytesAreShared(t *testing.T) {
	var encoded atomic.Int64
	w := open(t, worldOptions{watch: Options{Encode: func(b []byte, e *Event) []byte {
		encoded.Add(1)
		return encode(b, e)
	}}})
	var subs []*reader
	for i := range 20 {
		subs = append(subs, w.subscribe(SubOptions{Prefix: []types.Key{"k", "ke"}[i%2]}))
	}
	w.put("nobody", "hears of it")
	w.put("key", "v")
	var data []*byte
	for _, s := range subs {
		for {
			ready := s.Ready()
			b, err := s.Take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(b.Events) == 1 {
				data = append(data, &b.Events[0][0])
				break
			}
			<-ready
		}
	}
	if n := encoded.Load(); n != 1 || len(slices.Compact(data)) != 1 {
		t.Errorf("encoded %d times, copied %d times", n, len(slices.Compact(data)))
	}
}

func TestVisible(t *testing.T) {
	w := open(t, worldOptions{})
	w.put("hidden/0", "x")
	from := Behind(w.store.Seq() - 1)
	see := func(rec *types.Record) bool { return !strings.HasPrefix(string(rec.Key), "hidden") }
	live, late := w.subscribe(SubOptions{Visible: see}), w.subscribe(SubOptions{Visible: see, From: &from})
	w.put("hidden/1", "x")
	w.delete("hidden/1")
	w.put("seen", "x")
	live.want("put seen")
	late.want("put seen")
	if p := live.Place(); p.before() != w.store.Seq() {
		t.Errorf("what is hidden holds the place back: %v", p)
	}
}

// history makes changes of every kind and gives how many commits at least they
// were.
func history(w *world, r *rand.Rand, n int) {
	w.t.Helper()
	key := func() types.Key { return types.Key(fmt.Sprintf("%c/%d", 'a'+r.IntN(3), r.IntN(8))) }
	for i := range n {
		switch r.IntN(4) {
		case 0: // several changes in one commit, some of one key
			var ops []storage.Op
			for j := range 1 + r.IntN(5) {
				ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key()), Value: fmt.Appendf(nil, "%d", 100*i+j)})
			}
			if _, err := w.store.Write(w.t.Context(), ops, true); err != nil {
				w.t.Fatal(err)
			}
		case 1:
			_, err := w.store.Write(w.t.Context(), []storage.Op{{Kind: storage.OpDelete, Ref: types.DataRef(key())}}, false)
			if err != nil {
				w.t.Fatal(err)
			}
		default:
			w.put(key(), fmt.Sprint(i))
		}
	}
}

// TestResumeEverywhere: from the place of any event on, the store's ring gives
// exactly the events that followed it, and the records alone, after a restart,
// bring whoever knows what came before to the present.
func TestResumeEverywhere(t *testing.T) {
	dir := t.TempDir()
	w := open(t, worldOptions{Options: storage.Options{Dir: dir}})
	all := w.subscribe(SubOptions{})
	start := all.Place()
	history(w, rand.New(rand.NewPCG(1, 2)), 120)
	w.put("end", "x")
	events := all.untilKey("end")
	inOrder(t, events)
	for i := -1; i+1 < len(events); i++ {
		from := start
		if i >= 0 {
			from = events[i].Place
		}
		r := w.resume(from)
		got := r.untilKey("end")
		if want := events[i+1:]; !slices.Equal(got, want) {
			t.Fatalf("after %v came\n%v, want\n%v", from, got, want)
		}
	}
	killed := t.TempDir()
	if out, err := exec.Command("cp", "-a", "--sparse=auto", dir+"/.", killed).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.close()
	for name, dir := range map[string]string{"stopped": dir, "killed": killed} {
		t.Run(name, func(t *testing.T) { resumeFromRecords(t, dir, start, events) })
	}
}

func resumeFromRecords(t *testing.T, dir string, start Place, events []told) {
	w := open(t, worldOptions{Options: storage.Options{Dir: dir}})
	want := w.current("")
	var scanned []told
	for i := -1; i < len(events); i++ {
		from, have := start, state{}
		if i >= 0 {
			from = events[i].Place
			have.believe(events[:i+1])
		}
		r := w.resume(from)
		got, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		inOrder(t, got)
		if have.believe(got); !maps.Equal(have, want) {
			t.Fatalf("after %v, %v lead to\n%v, want\n%v", from, got, have, want)
		}
		if i < 0 {
			scanned = got
		}
		latest := map[types.Key]bool{}
		for _, e := range got {
			if latest[e.Key] {
				t.Errorf("after %v: %v came twice", from, e)
			}
			latest[e.Key] = true
			if e.Place.Seq < from.before() {
				t.Errorf("after %v: %v", from, e)
			}
		}
	}
	// The places that a scan gives are as good.
	ids := map[Place]bool{}
	for i, e := range scanned {
		if ids[e.Place] {
			t.Errorf("two events have the place %v", e.Place)
		}
		ids[e.Place] = true
		have := state{}
		have.believe(scanned[:i+1])
		got, err := w.resume(e.Place).read()
		if err != nil {
			t.Fatal(err)
		}
		if have.believe(got); !maps.Equal(have, want) {
			t.Fatalf("after %v: %v, want %v", e, have, want)
		}
	}
}

// TestScanInPieces: with room for a few keys only, a scan gives the same in the
// same order, and memory is given back.
func TestScanInPieces(t *testing.T) {
	dir := t.TempDir()
	w := open(t, worldOptions{Options: storage.Options{Dir: dir}})
	from := Behind(w.store.Seq())
	history(w, rand.New(rand.NewPCG(3, 4)), 300)
	w.close()
	w = open(t, worldOptions{Options: storage.Options{Dir: dir}})
	for _, prefix := range []types.Key{"", "a/", "a/1", "none"} {
		w.room.most, w.room.least, w.room.total = 1<<20, 1<<20, 1<<20
		want, err := w.subscribe(SubOptions{Prefix: prefix, From: &from}).read()
		if err != nil || (len(want) == 0) != (prefix == "none") {
			t.Fatal(len(want), err)
		}
		for _, room := range []int64{1, 100, 300, 700} {
			w.room.most, w.room.least, w.room.total = room, room, 0
			r := w.subscribe(SubOptions{Prefix: prefix, From: &from})
			got, err := r.read()
			if err != nil || len(got) != len(want) {
				t.Fatalf("%d events, want %d: %v", len(got), len(want), err)
			}
			for i := range got {
				// Where the room ended within a commit, it is not known that its
				// end was reached.
				if got[i].UUID != want[i].UUID || got[i].Place.Seq > want[i].Place.Seq {
					t.Errorf("with room for %d bytes: %v, want %v", room, got[i], want[i])
				}
			}
			if n := w.room.lent.Load(); n != 0 {
				t.Errorf("%d bytes are not given back", n)
			}
		}
	}
}

// TestConcurrent: under many writers, subscribers that read at once and some that
// hardly read all learn the latest state of every key, in order. The rings are so
// small that every way of catching up is taken.
func TestConcurrent(t *testing.T) {
	const writers, writes = 4, 150
	w := open(t, worldOptions{
		Options: storage.Options{RingBytes: 64 << 10},
		watch:   Options{RingBytes: 32 << 10},
	})
	start := Behind(w.store.Seq())
	var written atomic.Bool
	// follow reads until it has seen the end, and resumes whenever it is dropped.
	follow := func(prefix types.Key, every int) (have state, drops int) {
		have = state{}
		var all []told
		for from := start; ; drops++ {
			s, err := w.Subscribe(SubOptions{Prefix: prefix, From: &from})
			if err != nil {
				t.Error(err)
				return have, drops
			}
			r := &reader{Sub: s, t: t}
			for turn := 1; err == nil; turn++ {
				ready := r.Ready()
				if turn%every == 0 || written.Load() {
					var events []told
					events, err = r.read()
					have.believe(events)
					all = append(all, events...)
				}
				if have[prefix+"end"] != "" {
					s.Close()
					inOrder(t, all)
					return have, drops
				}
				if err == nil {
					<-ready
				}
			}
			wantErr(t, err, ErrSlow)
			from = s.Place()
			s.Close()
		}
	}
	type result struct {
		prefix types.Key
		state
		drops int
	}
	results := make(chan result, 12)
	for i := range cap(results) {
		prefix, every := []types.Key{"", "w0/", "w1/"}[i%3], []int{1, 40}[i%2]
		go func() {
			have, drops := follow(prefix, every)
			results <- result{prefix, have, drops}
		}()
	}
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 9))
			for n := range writes {
				ref := types.DataRef(types.Key(fmt.Sprintf("w%d/%d", r.IntN(3), r.IntN(20))))
				op := storage.Op{Kind: storage.OpPut, Ref: ref, Value: fmt.Appendf(nil, `"%d-%0500d"`, i, n)}
				if r.IntN(5) == 0 {
					op = storage.Op{Kind: storage.OpDelete, Ref: ref}
				}
				if _, err := w.store.Write(t.Context(), []storage.Op{op}, false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	written.Store(true)
	for _, key := range []types.Key{"w0/end", "w1/end", "end"} {
		w.put(key, "x")
	}
	drops := 0
	for range cap(results) {
		r := <-results
		if want := w.current(r.prefix); !maps.Equal(r.state, want) {
			t.Errorf("a reader of %q believes in %v, and there is %v", r.prefix, r.state, want)
		}
		drops += r.drops
	}
	t.Logf("%d subscriptions were dropped", drops)
}

// TestSlow: who does not read is dropped, holds nothing, and holds up nobody.
func TestSlow(t *testing.T) {
	w := open(t, worldOptions{watch: Options{RingBytes: 16 << 10}})
	slow, elsewhere, fast := w.subscribe(SubOptions{}), w.subscribe(SubOptions{Prefix: "other/"}), w.subscribe(SubOptions{})
	w.put("k/first", "x")
	slow.want("put k/first")
	for i := range 200 {
		w.put(types.Key(fmt.Sprintf("k/%d", i)), strings.Repeat("x", 200))
		fast.untilKey(types.Key(fmt.Sprintf("k/%d", i)))
	}
	w.fan.mu.RLock()
	size, events := w.fan.bytes, len(w.fan.ring)
	w.fan.mu.RUnlock()
	if size > 16<<10 || events > 100 {
		t.Errorf("%d events of %d bytes are kept", events, size)
	}
	got, err := slow.read()
	wantErr(t, err, ErrSlow)
	if len(got) != 0 || w.Stats().Dropped != 1 {
		t.Errorf("told %v; %+v", got, w.Stats())
	}
	// Nothing was missed by who watches what did not change.
	w.put("other/1", "x")
	elsewhere.want("put other/1")
	again := w.resume(slow.Place())
	again.until("everything", func(all []told) bool { return len(all) >= 201 })
	have := state{"k/first": slow.told[0].UUID}
	if have.believe(again.told); !maps.Equal(have, w.current("")) || len(again.told) != 201 {
		t.Errorf("%d events, and %d keys", len(again.told), len(have))
	}
}

// TestOvertaken: where more is written than the hub can follow, its subscribers
// read the store, and go on.
func TestOvertaken(t *testing.T) {
	var stall atomic.Pointer[chan struct{}]
	w := open(t, worldOptions{
		Options: storage.Options{RingBytes: 8 << 10},
		watch: Options{Encode: func(b []byte, e *Event) []byte {
			if c := stall.Load(); c != nil && e.Record.Key == "stall" {
				<-*c
			}
			return encode(b, e)
		}},
	})
	r := w.subscribe(SubOptions{})
	w.put("a", "1")
	r.untilKey("a")
	c := make(chan struct{})
	stall.Store(&c)
	w.put("stall", "1")
	w.putFor("soon", 100*time.Millisecond)
	for i := range 100 {
		w.put(types.Key(fmt.Sprint(i%10)), strings.Repeat("x", 500))
	}
	w.delete("a")
	close(c)
	r.until("the expiry", func(all []told) bool {
		return slices.ContainsFunc(all, func(e told) bool { return e.Key == "soon" && e.Kind == "expire" })
	})
	w.put("end", "1")
	have := state{}
	have.believe(r.untilKey("end"))
	if !maps.Equal(have, w.current("")) {
		t.Errorf("%v, want %v", have, w.current(""))
	}
	if len(r.told) > 60 {
		t.Errorf("%d events: the hub was not overtaken", len(r.told))
	}
	inOrder(t, r.told)
}

// TestAheadOfTheHub: a place may name a commit that the hub has not seen yet.
func TestAheadOfTheHub(t *testing.T) {
	w := open(t, worldOptions{stalled: true})
	w.put("a", "1")
	w.put("b", "1")
	seq := w.store.Seq()
	now, behind, within := w.subscribe(SubOptions{}), w.resume(Behind(seq)), w.resume(Place{seq, 0})
	last := w.resume(Place{seq - 1, 0})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	w.put("c", "1")
	for _, r := range []*reader{now, behind, within} {
		r.want("put c")
	}
	last.want("put b", "put c")
}
