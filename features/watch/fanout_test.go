package watch

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// TestFanoutAgainstOracle: members come and go, and each reads exactly the events
// of its prefix that came after it, or is told that some are lost.
func TestFanoutAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	letters := func(n int) types.Key {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab/"[r.IntN(3)]
		}
		return types.Key(b)
	}
	type member struct {
		g      *group
		cursor uint64
		want   []string
		weight int // of all events since the oldest wanted one
	}
	f := newFanout(40 * (eventWeight + 20))
	var members []*member
	lost, read := 0, 0
	for i := range 20_000 {
		switch n := r.IntN(20); {
		case n == 0 && len(members) < 30:
			g := f.join(letters(r.IntN(4)))
			members = append(members, &member{g: g, cursor: f.first + uint64(len(f.ring)) - 1})
		case n == 1 && len(members) > 0:
			k := r.IntN(len(members))
			f.leave(members[k].g)
			members = slices.Delete(members, k, k+1)
		case n < 6 && len(members) > 0:
			k := r.IntN(len(members))
			m := members[k]
			ready := f.ready(m.g)
			most := 1 + r.IntN(60)
			v := f.after(m.g, m.cursor, most)
			if v.lost {
				if m.weight < f.limit {
					t.Fatalf("%d bytes are said to be lost of %d", m.weight, f.limit)
				}
				lost++
				f.leave(m.g)
				members = slices.Delete(members, k, k+1)
				continue
			}
			size := 0
			for j, e := range v.events {
				if j >= len(m.want) || string(e.data) != m.want[j] {
					t.Fatalf("%q reads %q, want %q", m.g.prefix, e.data, m.want)
				}
				if size += len(e.data); size > most && j > 0 {
					t.Fatalf("%d bytes, and %d were asked for", size, most)
				}
			}
			read += len(v.events)
			if v.all != (len(v.events) == len(m.want)) {
				t.Fatalf("%d of %d, all: %v", len(v.events), len(m.want), v.all)
			}
			m.want, m.cursor = m.want[len(v.events):], v.cursor
			if m.weight = 0; len(m.want) > 0 {
				m.weight = f.limit // not known, and of no interest
			}
			if v.all {
				f.add(&event{data: []byte(m.g.prefix + "!"), rec: types.Record{Ref: types.DataRef(m.g.prefix)}})
				for _, o := range members {
					if strings.HasPrefix(string(m.g.prefix), string(o.g.prefix)) {
						o.want = append(o.want, string(m.g.prefix+"!"))
					}
					o.weight += 2 * (eventWeight + 30)
				}
				f.wake()
				<-ready
			}
		default:
			key := letters(1 + r.IntN(5))
			data := fmt.Sprintf("%s=%d", key, i)
			any := false
			for _, m := range members {
				if strings.HasPrefix(string(key), string(m.g.prefix)) {
					m.want, any = append(m.want, data), true
				}
			}
			if f.wanted(key) != any {
				t.Fatalf("%q is wanted: %v", key, !any)
			}
			if any {
				for _, m := range members {
					m.weight += 2 * (eventWeight + 30)
				}
				f.add(&event{data: []byte(data), rec: types.Record{Ref: types.DataRef(key)}})
			}
		}
		size := 0
		for _, e := range f.ring {
			size += weightOf(e)
		}
		for _, g := range f.groups {
			size += groupWeight * len(g.numbers)
		}
		if size != f.bytes || size > f.limit && len(f.ring) > 1 {
			t.Fatalf("%d bytes are kept, %d are counted, %d are allowed", size, f.bytes, f.limit)
		}
	}
	if lost == 0 || read == 0 {
		t.Errorf("%d lost, %d read", lost, read)
	}
	for _, m := range members {
		f.leave(m.g)
	}
	if len(f.groups)+len(f.lengths)+len(f.byLen)+len(f.ring)+f.bytes != 0 {
		t.Errorf("left behind: %+v", f)
	}
}

// TestSelectionAgainstOracle: whatever the order and the room, all keys come, in
// the order of commits.
func TestSelectionAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	for range 300 {
		var all []changedKey
		for i := range r.IntN(60) {
			all = append(all, changedKey{uint64(1 + r.IntN(20)), types.Key(strings.Repeat("k", r.IntN(30)) + fmt.Sprint(i))})
		}
		want := slices.Clone(all)
		slices.SortFunc(want, changedKey.compare)
		var s selection
		room := int64(1 + r.IntN(600))
		var got []changedKey
		for scans := 0; ; scans++ {
			if scans > len(all) {
				t.Fatalf("no end after %d scans", scans)
			}
			s.begin(room)
			for _, i := range r.Perm(len(all)) {
				s.offer(all[i].seq, []byte(all[i].key))
			}
			s.sort()
			size := int64(0)
			for _, k := range s.sorted {
				size += k.weight()
			}
			if size > room && len(s.sorted) > 1 {
				t.Fatalf("%d bytes in a room of %d", size, room)
			}
			for len(s.sorted) > 0 {
				k := s.take()
				got = append(got, k)
				more := len(got) < len(want) && want[len(got)].seq == k.seq
				if s.ends(k.seq) && more {
					t.Fatalf("commit %d has not ended", k.seq)
				}
			}
			if s.complete {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	node, _ := types.ParseNodeID("0190a5c4-7b1e-7cc3-98c4-dc0c0c07398f")
	for _, p := range []Place{{1, 0}, {1 << 40, 7}, Behind(5), {5, firstFiller}, behindAt(5, 1_800_000_000_123)} {
		id := string(p.AppendID(nil, node))
		if got, n, err := ParseID(id); err != nil || got != p || n != node {
			t.Errorf("%s: %v %v %v", id, got, n, err)
		}
	}
	if id := string(Behind(12).AppendID(nil, node)); id != "12.2147483647-0190a5c4-7b1e-7cc3-98c4-dc0c0c07398f" {
		t.Error(id)
	}
	for _, bad := range []string{"", "1", "1.2", "1.2-", "1-2", "1.2-node", "-1.2-" + node.String(), "1.2147483648-" + node.String(), "1.-2-" + node.String(),
		"1.2-" + strings.ReplaceAll(node.String(), "-", ""), "+1.2-" + node.String(), "1.2-{" + node.String() + "}", "18446744073709551616.2-" + node.String(), "0.0-" + node.String(), " 1.2-" + node.String()} {
		if p, _, err := ParseID(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, p)
		}
	}
	for _, ms := range []int64{year2000 * 1000, 1_800_000_000_999, 3_000_000_000_000} {
		at, ok := behindAt(3, ms).until()
		if !ok || at > ms || ms-at >= 1000 {
			t.Errorf("%d is remembered as %d, %v", ms, at, ok)
		}
	}
	for _, ms := range []int64{-5, 0, 4_000_000_000_000} {
		if p := behindAt(3, ms); p != Behind(3) {
			t.Errorf("%d: %v", ms, p)
		}
	}
	for _, c := range []struct {
		p      Place
		seq    uint64
		index  int
		passed bool
	}{{Place{5, 3}, 4, 9, true}, {Place{5, 3}, 5, 3, true}, {Place{5, 3}, 5, 4, false}, {Place{5, 3}, 6, 0, false},
		{Behind(5), 5, 1000, true}, {Place{5, firstFiller + 1}, 5, 1000, true}, {Behind(5), 6, 0, false}} {
		if c.p.passed(c.seq, c.index) != c.passed {
			t.Errorf("%+v", c)
		}
	}
}

// FuzzParseID: what is taken is written again as it was, and nothing is made up.
func FuzzParseID(f *testing.F) {
	f.Add("12.2147483647-0190a5c4-7b1e-7cc3-98c4-dc0c0c07398f")
	f.Add("1.0-")
	f.Fuzz(func(t *testing.T, s string) {
		p, node, err := ParseID(s)
		if err != nil {
			return
		}
		again, sameNode, err := ParseID(string(p.AppendID(nil, node)))
		if err != nil || again != p || sameNode != node || p.Seq == 0 || p.Index < 0 {
			t.Fatalf("%q was taken as %v of %s, and that as %v of %s: %v", s, p, node, again, sameNode, err)
		}
	})
}

// TestThousandsHoldLittle: subscribers that read nothing hold no events.
func TestThousandsHoldLittle(t *testing.T) {
	w := open(t, worldOptions{watch: Options{RingBytes: 1 << 20}})
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 5000 {
		w.subscribe(SubOptions{Prefix: types.Key([]string{"", "a/", "a/b/", fmt.Sprint(i)}[i%4])})
	}
	fast := w.subscribe(SubOptions{})
	big := strings.Repeat("x", 100<<10)
	for i := range 200 {
		key := types.Key(fmt.Sprintf("a/b/%d", i))
		w.put(key, big)
		fast.untilKey(key)
		fast.told = nil
	}
	// The store's own ring and caches are some of it.
	if grown := heap() - before; grown > 40<<20 {
		t.Errorf("%d MB", grown>>20)
	} else {
		t.Logf("%d kB for 5000 subscribers", grown>>10)
	}
}

// BenchmarkFanout: one put, told to all.
func BenchmarkFanout(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := New(Options{Encode: func(b []byte, e *Event) []byte { return append(b, e.Record.Value...) }})
			h.marks.horizon = func() int64 { return 0 }
			value := []byte(strings.Repeat("x", 200))
			commit := storage.Commit{Changes: []storage.Change{{Record: types.Record{Ref: types.DataRef("users/42"), Value: value}}}}
			read := make(chan int, n)
			for range n {
				s := &Sub{hub: h, group: h.fan.join("users/")}
				go func() {
					seen := 0
					for {
						ready := s.Ready()
						batch, err := s.Take(b.Context())
						if err != nil {
							read <- seen
							return
						}
						if seen += len(batch.Events); len(batch.Events) == 0 {
							<-ready
						}
					}
				}()
			}
			b.ReportAllocs()
			for b.Loop() {
				commit.Seq++
				h.tellCommit(&commit)
			}
			b.StopTimer()
			h.fan.wakeAll(func() { h.fan.closed = true })
			told := 0
			for range n {
				told += <-read
			}
			b.ReportMetric(float64(told)/b.Elapsed().Seconds(), "told/s")
		})
	}
}

// BenchmarkWrite: what the hub costs those who write.
func BenchmarkWrite(b *testing.B) {
	for _, watchers := range []int{-1, 0, 1, 100} {
		name := fmt.Sprintf("%d watchers", watchers)
		if watchers < 0 {
			name = "no hub"
		}
		b.Run(name, func(b *testing.B) {
			o := storage.Options{Log: slog.New(slog.DiscardHandler)}
			h := New(Options{Encode: func(b []byte, e *Event) []byte { return append(b, e.Record.Value...) }})
			if watchers >= 0 {
				o.Hooks = []storage.Hook{h.Hook()}
			}
			s := storagetest.Open(b, o)
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			if watchers >= 0 {
				if err := h.Start(ctx, s); err != nil {
					b.Fatal(err)
				}
				wg.Go(func() { h.Run(ctx) })
			}
			for range watchers {
				sub, err := h.Subscribe(SubOptions{})
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					defer sub.Close()
					for {
						ready := sub.Ready()
						if batch, err := sub.Take(ctx); err != nil {
							return
						} else if len(batch.Events) == 0 {
							<-ready
						}
					}
				})
			}
			value := []byte(`"` + strings.Repeat("x", 200) + `"`)
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				r := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for p.Next() {
					ref := types.DataRef(types.Key(fmt.Sprintf("k/%d", r.IntN(10_000))))
					if _, err := s.Write(ctx, []storage.Op{{Kind: storage.OpPut, Ref: ref, Value: value}}, false); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
