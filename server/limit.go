package server

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"kvs/features/ratelimit"
)

// spend takes one request from a client's allowance, and says when there will
// be another where none is left.
func (g *gate) spend(w http.ResponseWriter, client ratelimit.Key) error {
	d := g.limiter.Allow(client)
	if d.OK {
		return nil
	}
	h := w.Header()
	h["Ratelimit-Limit"] = []string{strconv.Itoa(d.Limit)}
	h["Ratelimit-Remaining"] = []string{strconv.Itoa(d.Remaining)}
	h["Ratelimit-Reset"] = []string{wholeSeconds(d.Reset)}
	h["Retry-After"] = []string{wholeSeconds(d.RetryAfter)}
	return rateLimited.refuse("this client may make %d requests at once, and then as many evenly over rate_limit_window; the next one in %s",
		d.Limit, d.RetryAfter.Round(time.Millisecond))
}

// wholeSeconds is rounded up: who comes back then is not too early.
func wholeSeconds(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(d.Seconds())))
}
