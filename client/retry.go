package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// maxRetryAfter is the longest pause a node may ask for and get. One that asks
// for more is told about by its *Problem, with RetryAfter set.
const maxRetryAfter = 5 * time.Second

// retryDelay tells whether a failed attempt may be repeated without being asked
// to, and after what pause. Only these failures promise that nothing happened: a
// refused connection, and a 503 or 429 that names a time to come back.
func retryDelay(err error, attempt int) (time.Duration, bool) {
	if p := (*Problem)(nil); errors.As(err, &p) {
		// A node is read-only until somebody changes that: waiting is no remedy.
		away := p.Status == http.StatusServiceUnavailable && p.Code != "read_only" || p.Status == http.StatusTooManyRequests
		return p.RetryAfter, away && p.RetryAfter >= 0 && p.RetryAfter <= maxRetryAfter
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		base := 100 * time.Millisecond << min(attempt, 5)
		return base/2 + rand.N(base), true
	}
	return 0, false
}

// retryAfter reads the header in both of its forms (RFC 9110, 10.2.3). It gives
// -1 where there is none, which differs from "at once".
func retryAfter(header http.Header) time.Duration {
	v := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return -1
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
