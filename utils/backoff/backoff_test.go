package backoff

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestPausesDoubleUpToMax(t *testing.T) {
	const ms = time.Millisecond
	b := Backoff{Min: 100 * ms, Max: 500 * ms}
	for range 3 { // each round begins at Min again
		for i, want := range []time.Duration{100 * ms, 200 * ms, 400 * ms, 500 * ms, 500 * ms} {
			if got := b.Next(); got < want/2 || got > want {
				t.Fatalf("pause %d is %v, want %v to %v", i, got, want/2, want)
			}
		}
		b.Reset()
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name        string
		b           Backoff
		first, last time.Duration
	}{
		{"zero value", Backoff{}, 100 * time.Millisecond, 30 * time.Second},
		{"Max below Min", Backoff{Min: time.Second, Max: 1}, time.Second, time.Second},
		{"greatest Max", Backoff{Min: 1, Max: math.MaxInt64 - 1}, 1, math.MaxInt64 - 1},
	} {
		if got := c.b.Next(); got < c.first/2 || got > c.first {
			t.Errorf("%s: first pause %v, want about %v", c.name, got, c.first)
		}
		var got time.Duration
		for range 100 {
			got = c.b.Next()
		}
		if got < c.last/2 || got > c.last {
			t.Errorf("%s: last pause %v, want about %v", c.name, got, c.last)
		}
	}
}

func TestPausesHaveJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		b := Backoff{Min: time.Second}
		seen[b.Next()] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d different pauses of 20", len(seen))
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !Sleep(t.Context(), time.Hour) || time.Since(start) != time.Hour {
			t.Errorf("slept %v of an hour", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if Sleep(ctx, time.Hour) || time.Since(start) != time.Second {
			t.Errorf("ended %v after its context's second began", time.Since(start))
		}
		if Sleep(ctx, 0) {
			t.Error("slept in a context that had ended")
		}
	})
}
