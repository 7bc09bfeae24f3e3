package duration

import (
	"math"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const d = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"0":                     0,
		"0s":                    0,
		"0d":                    0,
		"30s":                   30 * time.Second,
		"1h":                    time.Hour,
		"1h30m":                 90 * time.Minute,
		"1.5h":                  90 * time.Minute,
		"250ms":                 250 * time.Millisecond,
		"7d":                    7 * d,
		"1d12h":                 36 * time.Hour,
		"1d0s":                  d,
		"007d":                  7 * d,
		"106751d":               106751 * d,
		"106751d23h47m16s":      106751*d + 23*time.Hour + 47*time.Minute + 16*time.Second,
		"9223372036854775807ns": math.MaxInt64,
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "5", "d", "s", "x", "1x", "1d ", " 1d", "1d5", "1d0", "1dd", "1d1d", "1h1d", "1.5d", "+1d",
		"-1s", "-1d", "1d-1h", "1d+1h", "-0.5h", "1_0s", "0x1d", "1D",
		"106752d", "106751d24h", "99999999999999999999d", "9223372036854775808ns", "1d9223372036854775807ns",
	} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "7d", "1d12h", "1h30m", "-1s", "106751d24h", "1d-1h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err == nil && got < 0 {
			t.Fatalf("Parse(%q) = %v", s, got)
		}
		// Without days the syntax is Go's.
		if want, goErr := time.ParseDuration(s); goErr == nil && want >= 0 && (err != nil || got != want) {
			t.Fatalf("Parse(%q) = %v, %v; Go gives %v", s, got, err, want)
		}
	})
}
