package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kvs/auth"
	"kvs/features/watch"
	"kvs/storage"
	"kvs/types"
)

// watches answers GET /kv/_watch: server-sent events (the HTML standard, 9.2)
// over the hub of package watch. Its fields are set before the first request.
type watches struct {
	api   *api
	hub   *watch.Hub
	node  types.NodeID
	every time.Duration // between two comments

	stop  context.Context // ends when the watches are to end
	end   context.CancelFunc
	stuck atomic.Uint64 // watches that ended because nothing could be written
}

// commentEvery is how often a watch is written to at least: so that what is in
// between does not take it for dead, and the client knows when it is.
const commentEvery = 15 * time.Second

func newWatches(log *slog.Logger) *watches {
	e := &watches{every: commentEvery}
	e.stop, e.end = context.WithCancel(context.Background())
	e.hub = watch.New(watch.Options{Encode: e.encode, Log: log})
	return e
}

// start is called when the store is open, and before anything is written.
func (e *watches) start(ctx context.Context, store *storage.Store) error {
	e.node = store.Identity().UUID
	return e.hub.Start(ctx, store)
}

// encode writes an event as clients get it, data on one line.
func (e *watches) encode(b []byte, ev *watch.Event) []byte {
	b = append(b, "id: "...)
	b = ev.Place.AppendID(b, e.node)
	b = append(b, "\nevent: "...)
	b = append(b, ev.Kind.String()...)
	b = append(b, "\ndata: {\"key\":"...)
	b = appendString(b, string(ev.Record.Key))
	b = append(b, ',')
	data := len(b)
	b = appendRecord(b, ev.Record, ev.Kind == watch.Put)
	// JSON is kept as it was written. Line breaks in it are white space: within a
	// string they are escaped.
	for i, c := range b[data:] {
		if c == '\n' || c == '\r' {
			b[data+i] = ' '
		}
	}
	return append(b, "}\n\n"...)
}

// howToWatchAgain is the remedy where a watch cannot be resumed.
const howToWatchAgain = "list the keys again (GET /kv/_range), and watch from the \"sequence\" of that list"

// serve answers GET and HEAD of /kv/_watch. A node that is being filled refuses:
// what it would tell of are not changes, and another node's ids would be of no
// use here afterwards.
func (e *watches) serve(w http.ResponseWriter, r *request) error {
	p, err := parseParams(r, "prefix", "since")
	if err != nil {
		return err
	}
	prefix, err := p.text("prefix", types.MaxKeyLen)
	if err != nil {
		return err
	}
	from, err := e.since(r, p)
	if err != nil {
		return err
	}
	if e.api.peers.Mode() == types.ModeSyncing {
		return syncing.refuse("this node is being filled from a peer, and nothing can be watched yet; watch another one, or come back")
	}
	v := &watcher{gate: &e.api.gate, r: r}
	sub, err := e.hub.Subscribe(watch.SubOptions{Prefix: narrowed(r.who, prefix), From: from, Visible: v.sees})
	switch {
	case errors.Is(err, watch.ErrGone):
		return sequenceGone.refuse("%s; %s", err, howToWatchAgain)
	case err != nil:
		return shuttingDown.refuse("this node is stopping; ask another one")
	}
	defer sub.Close()
	h := w.Header()
	h["Content-Type"] = []string{"text/event-stream"}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"} // nginx would keep events back
	// Else net/http would wait for the body of a request that has one.
	h["Connection"] = []string{"close"}
	h["Kvs-Sequence"] = []string{e.id(sub)}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		e.stream(w, v, sub)
	}
	return nil
}

// since finds the place to resume from; nil if none is named. The header counts
// more: it is what a browser sends when it comes back with the URL that it began
// with.
func (e *watches) since(r *request, p params) (*watch.Place, error) {
	what, id := "header Last-Event-ID", r.Header.Get("Last-Event-Id")
	if id == "" {
		if !p.has("since") {
			return nil, nil
		}
		what, id = `parameter "since"`, p["since"]
	}
	place, node, err := watch.ParseID(id)
	if err != nil {
		return nil, invalidParameter.refuse("%s: %s", what, err)
	}
	if node != e.node {
		return nil, sequenceGone.refuse("%s: the id is of node %s, and this is node %s: an id is good on the node that gave it; %s", what, node, e.node, howToWatchAgain)
	}
	return &place, nil
}

// watcher is who watches.
type watcher struct {
	gate *gate
	r    *request
}

// renew asks again who it is: tokens expire and are revoked, and groups change.
func (v *watcher) renew() error {
	if v.gate.authenticator == nil {
		return nil
	}
	who, err := v.gate.authenticator.Identify(v.r.Request)
	if err == nil {
		v.r.who = who
	}
	return err
}

func (v *watcher) sees(rec *types.Record) bool {
	return v.r.unlimited() || v.r.mayRead(rec) == nil
}

// narrowed gives the longest prefix that all keys have which begin with prefix
// and may be read: events of others need not wake the watcher.
func narrowed(who *auth.Principal, prefix string) types.Key {
	prefixes, all := who.Scopes.Prefixes(auth.ScopeRead)
	if all || len(prefixes) == 0 {
		return types.Key(prefix)
	}
	common := prefixes[0]
	for _, p := range prefixes[1:] {
		for !strings.HasPrefix(p, common) {
			common = common[:len(common)-1]
		}
	}
	if strings.HasPrefix(common, prefix) {
		return types.Key(common)
	}
	return types.Key(prefix)
}

// stream writes events until the client goes, or the watch must end: then its
// last line says why, and from where to resume.
func (e *watches) stream(w http.ResponseWriter, v *watcher, sub *watch.Sub) {
	ctx, cancel := context.WithCancel(v.r.Context())
	defer cancel()
	defer context.AfterFunc(e.stop, cancel)()
	if v.r.ContentLength != 0 {
		setReadDeadline(w, time.Time{}) // a body's (see boundBody), which would end the watch
	}
	// Every write has a deadline of its own, see conn.
	out := http.NewResponseController(w)
	say := func(parts ...string) error {
		for _, s := range parts {
			if _, err := w.Write([]byte(s)); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	tick := time.NewTicker(e.every)
	defer tick.Stop()

	err := say(": watching from ", e.id(sub), "\n\n")
	for err == nil {
		ready := sub.Ready()
		if err = v.renew(); err != nil {
			_ = say(": the token is not good any more; watch again with another one from ", e.id(sub), "\nid: ", e.id(sub), "\n\n")
			return
		}
		var batch watch.Batch
		if batch, err = sub.Take(ctx); err != nil {
			e.farewell(err, say, e.id(sub))
			return
		}
		for _, event := range batch.Events {
			if _, err = w.Write(event); err != nil {
				break
			}
		}
		if err == nil && len(batch.Events) > 0 {
			ready, err = always, out.Flush()
		}
		if err == nil {
			select {
			case <-tick.C:
				err = say(": alive\nid: ", e.id(sub), "\n\n")
				continue
			default:
			}
			select {
			case <-ready:
			case <-tick.C:
				err = say(": alive\nid: ", e.id(sub), "\n\n")
			case <-ctx.Done(): // Take says so
			}
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.stuck.Add(1)
	}
}

// always is ready.
var always = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// farewell tells the client why its watch ends; one that has gone is not told.
func (e *watches) farewell(err error, say func(...string) error, id string) {
	why := ""
	switch {
	case errors.Is(err, watch.ErrSlow):
		why = "the events were not read in time; resume from "
	case errors.Is(err, watch.ErrGone):
		why = "what happened since is not known any more; list the keys again, for nothing resumes from "
	case e.stop.Err() != nil, errors.Is(err, watch.ErrClosed):
		why = "this node is stopping; resume here later from "
	default:
		return
	}
	_ = say(": ", why, id, "\nid: ", id, "\n\n") // an error means that the client is gone
}

// id is from where to resume behind what was taken.
func (e *watches) id(sub *watch.Sub) string { return string(sub.Place().AppendID(nil, e.node)) }

var (
	descWatchers     = desc("watchers", "Clients that watch keys.")
	descWatchDropped = desc("watch_dropped_total", "Watches that were ended because the client read too slowly.")
)

// collect gives the metrics of watching.
func (e *watches) collect(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64)) {
	st := e.hub.Stats()
	gauge(descWatchers, float64(st.Watchers))
	count(descWatchDropped, st.Dropped+e.stuck.Load())
}
