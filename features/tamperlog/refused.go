package tamperlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kvs/storage"
	"kvs/types"
)

const (
	// maxPerSecond bounds the refused attempts that are listed: different ones,
	// equal ones that wait for the same commit are one entry.
	maxPerSecond = 100
	// maxStrangers bounds, in a minute, those of them that come without a good
	// token: whoever reaches the port must not be able to fill the disk.
	maxStrangers = 100
	// maxWaiting bounds the entries that wait while the store takes no commits.
	maxWaiting = 1000
	// noteDelay is how long something waits for a commit before one is asked for.
	noteDelay = time.Second
	// retryDelay is the pause after a commit that failed.
	retryDelay = 10 * time.Second
	// lastCommit bounds the commit at the end of Run.
	lastCommit = 5 * time.Second
)

// refusals are the entries that wait for a commit: refused attempts, and what
// Start has to say. The Log's mutex guards them.
type refusals struct {
	waiting    []Entry
	index      map[attempt]int // of refused attempts, in waiting
	inflight   []Entry         // given to a commit that is not done
	second     time.Time       // start of the second that listed counts
	listed     int
	minute     time.Time // start of the minute that strangers counts
	strangers  int
	suppressed uint64 // attempts that the next gap entry will count
	since      time.Time
	final      bool // no later commit is likely: the gap entry does not wait
}

// attempt is what makes two refused attempts equal.
type attempt struct {
	by          storage.Actor
	key, reason string
}

// Refused notes an attempt that was refused. It goes into the log with the next
// commit, or with one that Run asks for within about a second. It never blocks.
// reason is a stable word, such as "forbidden"; key may be empty.
func (l *Log) Refused(by storage.Actor, key, reason string) {
	a := attempt{
		storage.Actor{Subject: clip(by.Subject, maxText), Token: clip(by.Token, maxText), Address: clip(by.Address, maxText)},
		clip(key, maxKey), clip(reason, maxText),
	}
	now := l.opts.Now()
	l.mu.Lock()
	l.stats.Refused++
	if !l.refused.add(a, now) {
		l.stats.Suppressed++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// add gives false if the attempt is only counted.
func (r *refusals) add(a attempt, now time.Time) bool {
	if i, ok := r.index[a]; ok {
		r.waiting[i].Count++
		return true
	}
	if d := now.Sub(r.second); d >= time.Second || d < 0 {
		r.second, r.listed = now, 0
	}
	if d := now.Sub(r.minute); d >= time.Minute || d < 0 {
		r.minute, r.strangers = now, 0
	}
	stranger := a.by.Subject == ""
	if r.listed >= maxPerSecond || len(r.waiting) >= maxWaiting || stranger && r.strangers >= maxStrangers {
		if r.suppressed == 0 {
			r.since = now
		}
		r.suppressed++
		return false
	}
	r.listed++
	if stranger {
		r.strangers++
	}
	// Copies, since the strings may share a request's header buffer.
	a = attempt{
		storage.Actor{Subject: strings.Clone(a.by.Subject), Token: strings.Clone(a.by.Token), Address: strings.Clone(a.by.Address)},
		strings.Clone(a.key), strings.Clone(a.reason),
	}
	if r.index == nil {
		r.index = make(map[attempt]int)
	}
	r.index[a] = len(r.waiting)
	e := Entry{Action: ActionRefused, Key: a.key, By: a.by, Count: 1, Detail: a.reason}
	if a.key != "" {
		e.NS = types.NSData
	}
	r.waiting = append(r.waiting, e)
	return true
}

// take gives what is to be written now. It is kept until committed, and given
// again if the commit failed.
func (r *refusals) take(now func() time.Time) []Entry {
	if len(r.waiting) > 0 || len(r.inflight) > 0 {
		r.inflight = append(r.inflight, r.waiting...)
		r.waiting = nil
		clear(r.index)
	}
	if r.suppressed > 0 && (r.final || now().Sub(r.since).Abs() >= noteDelay) {
		r.inflight = append(r.inflight, Entry{Action: ActionGap, Count: r.suppressed})
		r.suppressed = 0
	}
	return r.inflight
}

func (r *refusals) committed() { r.inflight = nil }

func (r *refusals) empty() bool {
	return len(r.waiting) == 0 && len(r.inflight) == 0 && r.suppressed == 0
}

// Run asks for a commit when something has waited for a second, until ctx ends.
// Then it writes what waits, if the store still lets it.
func (l *Log) Run(ctx context.Context) error {
	store := l.started()
	if store == nil {
		return errNotStarted
	}
	failing := false
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return l.finish(store)
		}
		for delay := noteDelay; l.somethingWaits(); {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return l.finish(store)
			}
			if !l.somethingWaits() {
				break
			}
			err := store.CommitHooks(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				l.log.Warn("refused attempts cannot be written to the tamper log; it is tried again, and more are only counted", "error", err)
			}
			if failing, delay = err != nil, noteDelay; failing {
				delay = retryDelay
			}
		}
	}
}

// finish writes what waits at the end of Run.
func (l *Log) finish(store *storage.Store) error {
	l.mu.Lock()
	l.refused.final = true
	empty := l.refused.empty()
	l.mu.Unlock()
	if empty {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastCommit)
	defer cancel()
	if err := store.CommitHooks(ctx); err != nil {
		return fmt.Errorf("refused attempts of the last moments are not in the tamper log: %w", err)
	}
	return nil
}

func (l *Log) somethingWaits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.refused.empty()
}

var errNotStarted = errors.New("the tamper log is not started")

func (l *Log) started() *storage.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store
}
