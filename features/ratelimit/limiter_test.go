package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// clock is a time that the test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_700_000_000, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func newTest(o Options) (*Limiter, *clock) {
	c := &clock{}
	o.Now = c.now
	return New(o), c
}

func TestBucket(t *testing.T) {
	const window = 10 * time.Second
	l, now := newTest(Options{Requests: 5, Window: window})
	key := SubjectKey("a")
	step := func(wait time.Duration, want Decision) {
		t.Helper()
		now.advance(wait)
		want.Limit = 5
		if got := l.Allow(key); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	const s = time.Second
	step(0, Decision{OK: true, Remaining: 4, Reset: 2 * s})
	step(0, Decision{OK: true, Remaining: 3, Reset: 4 * s})
	step(1*s, Decision{OK: true, Remaining: 2, Reset: 5 * s})
	step(0, Decision{OK: true, Remaining: 1, Reset: 7 * s})
	step(0, Decision{OK: true, Remaining: 0, Reset: 9 * s})
	step(0, Decision{RetryAfter: 1 * s, Reset: 9 * s})
	// A refused request costs nothing.
	step(0, Decision{RetryAfter: 1 * s, Reset: 9 * s})
	step(900*time.Millisecond, Decision{RetryAfter: 100 * time.Millisecond, Reset: 8100 * time.Millisecond})
	step(100*time.Millisecond, Decision{OK: true, Remaining: 0, Reset: window})
	step(window, Decision{OK: true, Remaining: 4, Reset: 2 * s})
	// However long the pause, no more than the limit at once.
	step(1000*window, Decision{OK: true, Remaining: 4, Reset: 2 * s})
	if l.Limited() != 3 || l.Overflowed() != 0 || l.Clients() != 1 {
		t.Errorf("%d limited, %d overflowed, %d clients", l.Limited(), l.Overflowed(), l.Clients())
	}
}

func TestDefaults(t *testing.T) {
	l := New(Options{})
	if d := l.Allow(Key{}); !d.OK || d.Limit != 100_000 || d.Remaining != 99_999 || d.Reset > time.Millisecond {
		t.Errorf("%+v", d)
	}
	total := 0
	for i := range l.shards {
		total += l.shards[i].most
	}
	if total != 1<<16 {
		t.Errorf("room for %d", total)
	}
}

// The real clock is what the server uses.
func TestRealClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{Requests: 1, Window: time.Hour})
		if d := l.Allow(Key{}); !d.OK {
			t.Errorf("%+v", d)
		}
		d := l.Allow(Key{})
		if d.OK || d.RetryAfter != time.Hour {
			t.Errorf("%+v", d)
		}
		time.Sleep(d.RetryAfter)
		if d := l.Allow(Key{}); !d.OK {
			t.Errorf("%+v", d)
		}
	})
}

// Whatever the figures, RetryAfter is the first moment at which a request is
// taken, and Reset the first at which all are.
func TestTimesAreExact(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		o := Options{Requests: 1 + r.IntN(1000), Window: time.Second + time.Duration(r.Int64N(int64(24*time.Hour)))}
		l, now := newTest(o)
		var last Decision
		for range o.Requests + 1 + r.IntN(5) {
			now.advance(time.Duration(r.Int64N(int64(o.Window)/int64(10*o.Requests) + 1)))
			last = l.Allow(Key{})
		}
		for range 2 * o.Requests { // the pauses may have given some back
			if !last.OK {
				break
			}
			last = l.Allow(Key{})
		}
		if last.OK {
			t.Fatalf("%+v: never refused: %+v", o, last)
		}
		now.advance(last.RetryAfter - time.Microsecond)
		if d := l.Allow(Key{}); d.OK {
			t.Fatalf("%+v: taken %v before the time", o, time.Microsecond)
		}
		now.advance(time.Microsecond)
		d := l.Allow(Key{})
		if !d.OK {
			t.Fatalf("%+v: refused after %v: %+v", o, last.RetryAfter, d)
		}
		now.advance(d.Reset)
		if d := l.Allow(Key{}); d.Remaining != o.Requests-1 {
			t.Fatalf("%+v: not full after the reset: %+v", o, d)
		}
	}
}

// A clock that is set back neither gives tokens nor takes them away.
func TestClockSetBack(t *testing.T) {
	l, now := newTest(Options{Requests: 2, Window: time.Minute})
	l.Allow(Key{})
	now.advance(-time.Hour)
	if d := l.Allow(Key{}); !d.OK {
		t.Errorf("%+v", d)
	}
	if d := l.Allow(Key{}); d.OK {
		t.Errorf("%+v", d)
	}
}

// model is a limiter that forgets nobody and has no bound.
type model struct {
	requests int
	window   time.Duration
	clients  map[Key]*struct {
		tokens float64
		at     time.Time
	}
}

func (m *model) allow(key Key, now time.Time) bool {
	c := m.clients[key]
	if c == nil {
		c = &struct {
			tokens float64
			at     time.Time
		}{float64(m.requests), now}
		m.clients[key] = c
	}
	c.tokens = min(float64(m.requests), c.tokens+now.Sub(c.at).Seconds()*float64(m.requests)/m.window.Seconds())
	c.at = now
	if c.tokens < 1-1e-9 {
		return false
	}
	c.tokens--
	return true
}

// Dropping entries is not to be seen: the table decides as one that forgets
// nobody, also while it drops all the time.
func TestForgettingChangesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l, now := newTest(Options{Requests: 4, Window: time.Second, MaxClients: 600})
	m := model{requests: 4, window: time.Second, clients: map[Key]*struct {
		tokens float64
		at     time.Time
	}{}}
	dropped, before := 0, 0
	for i := range 200_000 {
		now.advance(time.Duration(1 + r.Int64N(int64(4*time.Millisecond))))
		key := SubjectKey(fmt.Sprint(r.IntN(50))) // these come again and again
		if r.IntN(3) > 0 {
			key = SubjectKey(fmt.Sprint("new", i)) // these once
		}
		if got, want := l.Allow(key).OK, m.allow(key, now.now()); got != want {
			t.Fatalf("request %d of %+v: %v, want %v", i, key, got, want)
		}
		n := 0
		if i%100 == 0 {
			if n = l.Clients(); n < before {
				dropped += before - n
			}
			before = n
		}
	}
	if l.Overflowed() != 0 || l.Limited() == 0 || dropped == 0 {
		t.Errorf("the test tests nothing: %d overflowed, %d limited, %d dropped", l.Overflowed(), l.Limited(), dropped)
	}
}

// A flood of ever new clients neither takes memory nor changes what is decided
// about those who were there.
func TestFloodOfClients(t *testing.T) {
	const most = 1024
	l, now := newTest(Options{Requests: 10, Window: time.Minute, MaxClients: most})
	victim, spent := SubjectKey("victim"), SubjectKey("spent")
	for range 10 {
		l.Allow(spent)
	}
	l.Allow(victim)
	start := now.now()
	for i := range 100_000 {
		now.advance(20 * time.Microsecond) // 2 s in all: no bucket gets full again
		l.Allow(AddressKey(addr(t, fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff))))
	}
	if took := now.now().Sub(start); took != 2*time.Second {
		t.Fatal(took)
	}
	if n := l.Clients(); n > most || n < most*3/4 {
		t.Errorf("%d clients, want nearly %d", n, most)
	}
	if l.Overflowed() < 90_000 || l.Limited() < 90_000 {
		t.Errorf("%d overflowed, %d limited", l.Overflowed(), l.Limited())
	}
	if d := l.Allow(spent); d.OK {
		t.Error("what a client had used up was forgotten")
	}
	if d := l.Allow(victim); !d.OK || d.Remaining != 8 {
		t.Errorf("the flood took from another client: %+v", d)
	}
	// Newcomers are not shut out, but share.
	late := SubjectKey("late")
	for l.Allow(late).OK {
	}
	now.advance(6 * time.Second)
	if d := l.Allow(late); !d.OK {
		t.Errorf("%+v", d)
	}
	// The flood is over, its buckets are full: newcomers get their own at once,
	// and the table shrinks.
	now.advance(time.Minute)
	overflowed := l.Overflowed()
	for i := range 2 * most {
		now.advance(time.Minute / 10)
		if d := l.Allow(SubjectKey(fmt.Sprint("calm", i))); !d.OK || d.Remaining != 9 {
			t.Fatalf("%d: %+v", i, d)
		}
	}
	if l.Overflowed() != overflowed {
		t.Errorf("%d overflowed after the flood", l.Overflowed()-overflowed)
	}
	if n := l.Clients(); n > len(l.shards)*4 {
		t.Errorf("%d clients of long ago are remembered", n)
	}
}

// A full table has room again as soon as a bucket is full, however often drop had
// to look at it before.
func TestRoomComesBackAtOnce(t *testing.T) {
	const most = 4
	l, now := newTest(Options{Requests: 10, Window: 10 * time.Second, MaxClients: most})
	for i := range most {
		for range 2 + i { // full again 2, 3, 4 and 5 s later
			l.Allow(SubjectKey(fmt.Sprint(i)))
		}
	}
	step := time.Second / 2
	for at := step; at < 5*time.Second; at += step {
		now.advance(step)
		room := at >= 2*time.Second && at%time.Second == 0
		before := l.Overflowed()
		if l.Allow(SubjectKey(fmt.Sprint("new at ", at))); (l.Overflowed() == before) != room {
			t.Errorf("at %v there is room: %v, want %v", at, !room, room)
		}
		if room {
			// The newcomer stays for longer than the test.
			for range 9 {
				l.Allow(SubjectKey(fmt.Sprint("new at ", at)))
			}
		}
	}
}

// One client that floods changes no decision about another.
func TestFairness(t *testing.T) {
	decide := func(flood bool) (decisions []Decision) {
		l, now := newTest(Options{Requests: 20, Window: time.Second})
		for i := range 500 {
			now.advance(10 * time.Millisecond)
			if flood {
				for range 100 {
					l.Allow(SubjectKey("flood"))
				}
			}
			if i%3 > 0 { // more than it may
				decisions = append(decisions, l.Allow(SubjectKey("other")))
			}
		}
		return decisions
	}
	alone, beside := decide(false), decide(true)
	refused := 0
	for i := range alone {
		if alone[i] != beside[i] {
			t.Fatalf("request %d: %+v, alone %+v", i, beside[i], alone[i])
		}
		if !alone[i].OK {
			refused++
		}
	}
	if refused == 0 || refused == len(alone) {
		t.Errorf("the test tests nothing: %d of %d refused", refused, len(alone))
	}
}

// Many at once take exactly what there is.
func TestConcurrent(t *testing.T) {
	const clients, each, requests, most = 40, 8, 50, 32
	l, _ := newTest(Options{Requests: requests, Window: time.Hour, MaxClients: most})
	var taken, total atomic.Int64
	var wg sync.WaitGroup
	for c := range clients {
		for range each {
			wg.Go(func() {
				for range requests {
					total.Add(1)
					if l.Allow(SubjectKey(fmt.Sprint(c))).OK {
						taken.Add(1)
					}
				}
				l.Clients()
			})
		}
	}
	wg.Wait()
	// The clients in the table, and one bucket for all others.
	if want := int64((most + 1) * requests); taken.Load() != want {
		t.Errorf("%d requests were taken, want %d", taken.Load(), want)
	}
	if got := total.Load() - taken.Load(); uint64(got) != l.Limited() {
		t.Errorf("%d refused, %d counted", got, l.Limited())
	}
	if want := uint64((clients - most) * each * requests); l.Overflowed() != want || l.Clients() != most {
		t.Errorf("%d overflowed, want %d; %d clients", l.Overflowed(), want, l.Clients())
	}
}

func TestNoAllocation(t *testing.T) {
	l := New(Options{})
	subject := SubjectKey("0192f0c1-1111-7000-8000-000000000001")
	peer := "[2001:db8::1]:4711"
	forwarded := []string{"203.0.113.7, 192.0.2.1"}
	trusted, err := ParseNetworks([]string{"2001:db8::/32", "192.0.2.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	l.Allow(subject)
	l.Allow(AddressKey(ClientAddress(peer, forwarded, trusted)))
	if n := testing.AllocsPerRun(1000, func() {
		l.Allow(subject)
		l.Allow(AddressKey(ClientAddress(peer, forwarded, trusted)))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := New(Options{})
	keys := make([]Key, 1000)
	for i := range keys {
		keys[i] = SubjectKey(fmt.Sprint(i))
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			l.Allow(keys[i%len(keys)])
		}
	})
}
