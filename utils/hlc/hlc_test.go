package hlc

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// wallClock is a wall clock that tests set, backwards too.
type wallClock struct{ ms int64 }

func (w *wallClock) now() time.Time { return time.UnixMilli(w.ms) }

func TestReadings(t *testing.T) {
	w := &wallClock{ms: 1000}
	c := New(w.now, 0)
	step := func(what string, got, want uint64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d.%d, want %d.%d", what, got>>16, got&0xffff, want>>16, want&0xffff)
		}
	}
	step("first reading", c.Now(), 1000<<16)
	step("same millisecond", c.Now(), 1000<<16+1)
	w.ms = 1001
	step("next millisecond", c.Now(), 1001<<16)
	w.ms = 500
	step("wall clock set back", c.Now(), 1001<<16+1)
	c.Observe(1005<<16 + 7)
	step("last after Observe", c.Last(), 1005<<16+7)
	step("after an observed reading", c.Now(), 1005<<16+8)
	c.Observe(3)
	step("after an old observed reading", c.Now(), 1005<<16+9)
	c.Observe(1006<<16 - 1)
	step("the counter carries", c.Now(), 1006<<16)
	w.ms = 1005
	if got := c.Ahead(); got != time.Millisecond {
		t.Errorf("Ahead gives %v, want 1ms", got)
	}
	w.ms = 2000
	if got := c.Ahead(); got != 0 {
		t.Errorf("Ahead gives %v behind the wall clock, want 0", got)
	}
	step("wall clock ahead again", c.Now(), 2000<<16)
}

func TestFloor(t *testing.T) {
	w := &wallClock{ms: 1000}
	c := New(w.now, 2000<<16)
	if got := c.Now(); got != 2000<<16+1 {
		t.Errorf("first reading %d, want one above the floor", got)
	}
	if got := c.Ahead(); got != time.Second {
		t.Errorf("Ahead gives %v, want 1s", got)
	}
}

func TestAheadDoesNotOverflow(t *testing.T) {
	w := &wallClock{}
	c := New(w.now, math.MaxUint64)
	if got := c.Ahead(); got < 290*365*24*time.Hour {
		t.Errorf("Ahead gives %v", got)
	}
}

func TestExhaustedClockPanics(t *testing.T) {
	c := New((&wallClock{}).now, math.MaxUint64)
	defer func() {
		if recover() == nil {
			t.Error("Now wrapped round to old readings")
		}
	}()
	c.Now()
}

// Every reading is above all that were given or observed, while the wall clock
// does what it wants; and it is never further ahead of it than it has to be.
func TestMonotonic(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := &wallClock{ms: 1_000_000}
	c := New(w.now, 0)
	var greatest uint64
	for range 20_000 {
		w.ms = max(0, w.ms+r.Int64N(21)-10)
		if r.IntN(4) == 0 {
			ts := uint64(max(0, w.ms+r.Int64N(41)-20))<<16 | uint64(r.IntN(1<<16))
			c.Observe(ts)
			greatest = max(greatest, ts)
			continue
		}
		got := c.Now()
		if want := max(greatest+1, uint64(w.ms)<<16); got != want {
			t.Fatalf("reading %d, want %d", got, want)
		}
		greatest = got
	}
}

func TestConcurrentReadingsAreUnique(t *testing.T) {
	c := New(time.Now, 0)
	const workers, each = 4, 5000
	readings := make([][]uint64, workers)
	var wg sync.WaitGroup
	for i := range readings {
		wg.Go(func() {
			for range each {
				readings[i] = append(readings[i], c.Now())
			}
		})
	}
	wg.Wait()
	for _, r := range readings {
		if !slices.IsSorted(r) {
			t.Fatal("one goroutine's readings went backwards")
		}
	}
	all := slices.Concat(readings...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != workers*each {
		t.Fatalf("%d readings of %d are distinct", n, workers*each)
	}
}
