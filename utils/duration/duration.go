// Package duration reads durations as people configure them: Go's syntax, plus d
// for days of 24 hours ("30s", "1h30m", "7d", "1d12h").
package duration

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// Parse reads a duration. Days come first and are a whole number; "0" needs no
// unit. A negative duration, and one of more than 106751 days, is refused.
func Parse(s string) (time.Duration, error) {
	d, ok := parse(s)
	if !ok {
		return 0, fmt.Errorf(`%q is not a duration: write it like "30s", "1h30m" or "7d", not negative and at most %d days`,
			s, math.MaxInt64/day)
	}
	return d, nil
}

func parse(s string) (time.Duration, bool) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		d, err := time.ParseDuration(s)
		return d, err == nil && d >= 0
	}
	n, err := strconv.ParseUint(days, 10, 63)
	if err != nil || n > uint64(math.MaxInt64/day) {
		return 0, false
	}
	total := time.Duration(n) * day
	if rest == "" {
		return total, true
	}
	// The rest continues one number: it has no sign, and a unit even if it is 0.
	if rest[0] == '-' || rest[0] == '+' || rest == "0" {
		return 0, false
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d > math.MaxInt64-total {
		return 0, false
	}
	return total + d, true
}
