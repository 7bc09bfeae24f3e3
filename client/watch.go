package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// ErrSequenceGone is about a watch that cannot be resumed: the id is another
// node's, or what happened since is not known any more. List the keys again, and
// watch from Page.Sequence.
var ErrSequenceGone = errors.New("the watch cannot be resumed from there")

// Event is something that happened to a key.
type Event struct {
	Type string `json:"event"` // "put", "delete" or "expire"
	ID   string `json:"id"`    // for WatchOptions.Since, to go on behind the event
	// Item is the version that was written, or that expired; it has data if the
	// event is a put.
	Item
}

// WatchOptions choose what to watch. The zero value watches all keys from now on.
type WatchOptions struct {
	Prefix string
	// Since is an Event.ID or a Page.Sequence of the same node: what happened
	// behind it comes first.
	Since string
	// Lost, if any, is told why a connection ended, before it is made anew after
	// a pause.
	Lost func(err error, pause time.Duration)
}

// Watch gives what happens to keys, from the node that the client speaks to, until
// ctx ends. A connection that breaks is resumed without a gap; events around the
// break may then come twice. An error is the last thing that it yields: the
// context's, ErrSequenceGone, another refusal, or, if the first connection cannot
// be made, why. After that one Watch goes on trying for as long as ctx lasts.
//
// The versions of one key come in their order, and its latest state always does;
// ones that were overwritten while the connection was broken may be left out.
func (c *Client) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := watch{c: c, prefix: o.Prefix, last: o.Since}
		for attempt := 0; ; attempt++ {
			err := w.connect(ctx, func(e Event) bool { return yield(e, nil) })
			if errors.Is(err, errStopped) {
				return
			}
			if w.heard {
				attempt, w.heard = 0, false
			}
			pause, again := w.again(ctx, err, attempt)
			if again && o.Lost != nil {
				o.Lost(err, pause)
			}
			if !again || !sleep(ctx, pause) {
				if ctx.Err() != nil {
					err = ctx.Err()
				}
				yield(Event{}, err)
				return
			}
		}
	}
}

// watch is a Watch over several connections.
type watch struct {
	c       *Client
	prefix  string
	last    string // id from which to go on
	everMet bool   // there was a connection
	heard   bool   // the latest connection gave an event, or lasted
}

// errStopped says that whoever watches wants no more.
var errStopped = errors.New("enough")

// Nodes say something every 15 seconds; after silence the connection is dead.
const silence = 45 * time.Second

var errSilent = errors.New("the node says nothing")

// Pauses between connections double from watchPause to maxWatchPause.
const (
	watchPause    = 100 * time.Millisecond
	maxWatchPause = 5 * time.Second
)

// again tells whether, and after what pause, to connect again.
func (w *watch) again(ctx context.Context, err error, attempt int) (time.Duration, bool) {
	if ctx.Err() != nil || errors.As(err, new(notEvents)) {
		return 0, false
	}
	if !w.everMet {
		pause, safe := retryDelay(err, attempt)
		return pause, safe && attempt < w.c.retries
	}
	pause := min(watchPause<<min(attempt, 10), maxWatchPause)
	pause = pause/2 + rand.N(pause/2)
	if p := (*Problem)(nil); errors.As(err, &p) {
		if p.Status < 500 && p.Status != http.StatusTooManyRequests && p.Status != http.StatusRequestTimeout {
			return 0, false
		}
		pause = max(pause, min(p.RetryAfter, time.Minute))
	}
	return pause, !errors.Is(err, errNoToken)
}

// notEvents is an answer that no node gives.
type notEvents struct{ error }

// errNoToken is about a token that could not be had.
var errNoToken = errors.New("no token")

// connect makes one connection, and hands on its events until it ends.
func (w *watch) connect(ctx context.Context, yield func(Event) bool) error {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	dead := time.AfterFunc(w.c.timeout, func() { cancel(errSilent) })
	defer dead.Stop()

	q := url.Values{}
	for name, value := range map[string]string{"prefix": w.prefix, "since": w.last} {
		if value != "" {
			q.Set(name, value)
		}
	}
	target := w.c.base + "/kv/_watch"
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(bounded, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kvs-client")
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Accept-Encoding", "identity") // what packs events keeps them back
	if err := w.c.authorize(req); err != nil {
		return fmt.Errorf("%w: %w", errNoToken, err)
	}
	resp, err := w.c.http.Do(req)
	if err != nil {
		return w.c.unreachable(ctx, bounded, err)
	}
	defer resp.Body.Close()
	lines := newEventLines(resp.Body, w.c.maxResponse)
	if resp.StatusCode != http.StatusOK {
		return parseProblem(resp.StatusCode, resp.Header, lines.rest())
	}
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "text/event-stream" {
		return notEvents{fmt.Errorf("the answer of %s is %q, not events (is it a node?)", w.c.base, media)}
	}
	w.everMet = true
	if w.last == "" {
		w.last = resp.Header.Get("Kvs-Sequence")
	}
	for {
		dead.Reset(silence)
		block, err := lines.next(func() { dead.Reset(silence) })
		if err != nil {
			if errors.As(err, new(notEvents)) {
				return err
			}
			return w.c.unreachable(ctx, bounded, err)
		}
		dead.Stop() // whoever watches may take long
		w.heard = w.heard || len(block.data) > 0 || time.Since(begun) > maxWatchPause
		if block.id != "" {
			w.last = block.id
		}
		if len(block.data) == 0 {
			continue
		}
		e := Event{Type: block.event, ID: w.last}
		if err := json.Unmarshal(block.data, &e.Item); err != nil {
			return notEvents{fmt.Errorf("an event of %s is not that of a node: %w", w.c.base, err)}
		}
		if !yield(e) {
			return errStopped
		}
	}
}
