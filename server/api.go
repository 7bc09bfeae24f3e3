package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kvs/auth"
	"kvs/cluster"
	"kvs/storage"
	"kvs/types"
)

// api answers requests. But for stopping and bodies its fields are set before
// the first one and not changed after.
type api struct {
	store   *storage.Store
	peers   peers
	log     *slog.Logger
	metrics *metrics
	watches *watches
	mux     *http.ServeMux
	forward forwarder
	gate    gate
	port    *tlsPort // nil: plain HTTP
	tokens  *auth.ClientTokens
	people  *auth.Directory
	audit   *auditor
	backups *backups

	nodeID    string
	version   string
	started   time.Time
	clustered bool // clustering_enabled
	// revisionLimit is how many overwritten versions are listed, 0 if none is
	// kept.
	revisionLimit int

	maxValue   int64 // max_json_size
	defaultTTL time.Duration
	bodyGrace  time.Duration
	bodies     budget

	searching chan struct{} // a slot for each scan that passes over what is hidden
	deciding  sync.Mutex    // held while a change of users, groups or tokens is decided and written
	stopping  atomic.Bool   // no new request of a client is taken
	inFlight  atomic.Int64  // requests of clients that are being answered
	leave     func()        // asks the node to stop
}

// peers is what requests ask of the cluster. It is wider than an interface
// should be, since a node without a cluster (see alone) replaces all of it.
type peers interface {
	Handler() http.Handler
	Members() []cluster.Member
	LiveCount() int
	RosterCount() int
	Mode() types.Mode
	Progress() (done, total uint64)
	Skewed() (ahead time.Duration, skewed bool)
	NormalPeer() (addr string, ok bool)
	Await(ctx context.Context, rec types.Record, seq uint64, n int) (int, error)
	Heal(ctx context.Context, ref types.Ref) (bool, error)
	Join(ctx context.Context, addr string) error
	Remove(ctx context.Context, id string) error
	Depart(ctx context.Context) error
	Status() cluster.Status
}

// ServeHTTP checks what holds for every request, before anything looks at its
// path: package http's mux would answer an odd path with a redirect.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer a.recovered(w, r)
	toNode := strings.HasPrefix(r.URL.Path, "/sync/") && r.URL.Path != "/sync/merkle/root"
	a.boundBody(w, r, toNode)
	if c := connOf(r.Context()); c != nil {
		c.begin(r)
		if c.overCap && !toNode {
			w.Header().Set("Connection", "close")
			a.refuse(w, r, c.limit.refusal())
			return
		}
	}
	if !toNode {
		// Counted before it is looked whether to stop, so that none slips through.
		a.inFlight.Add(1)
		defer a.inFlight.Add(-1)
		if a.stopping.Load() {
			w.Header().Set("Connection", "close")
			a.refuse(w, r, shuttingDown.refuse("this node is stopping; ask another one"))
			return
		}
	}
	if err := checkPath(r.URL.EscapedPath(), r.URL.Path); err != nil {
		req, entry := a.gate.enter(w, r, withToken, true)
		if entry != nil {
			err = entry
			a.note(&req, err)
		}
		a.refuse(w, r, err)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// checkPath refuses what is not a clean path. A key's rules are checked where
// keys are; this is about what the mux would redirect.
func checkPath(escaped, decoded string) error {
	if strings.HasPrefix(escaped, "/") && !strings.Contains(escaped, "//") &&
		(!strings.Contains(escaped, "/.") || path.Clean(escaped) == strings.TrimSuffix(escaped, "/")) {
		return nil
	}
	const under = "/kv/"
	if key, ok := strings.CutPrefix(decoded, under); ok {
		if _, err := types.ParseKey(key); err != nil {
			return err
		}
	}
	if strings.HasPrefix(escaped, under) || strings.HasPrefix(path.Clean("/"+escaped)+"/", under) {
		return invalidKey.refuse("the path has an empty, \".\" or \"..\" segment")
	}
	return notFound.refuse("nothing is at this path; it has an empty, \".\" or \"..\" segment")
}

// recovered makes a panic of a handler an answer and a line in the log.
func (a *api) recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p) // meant for net/http: the answer was begun and cannot be ended
	}
	a.log.Error("a request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	w.Header().Set("Connection", "close")
	a.refuse(w, r, internalError.refuse("the node's log says more"))
}

// refuse answers with what err is in the table.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) *refusal {
	p := refusalOf(err)
	a.metrics.problems[p.code].Inc()
	if p.status == http.StatusInternalServerError && r.Context().Err() == nil {
		a.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	writeProblem(w, p)
	return p
}

// writable tells whether this node takes clients' writes now.
func (a *api) writable() error {
	switch a.peers.Mode() {
	case types.ModeReadOnly:
		return readOnly.refuse("this node takes no writes (read_only); ask another one")
	case types.ModeSyncing:
		return syncing.refuse("this node is being filled from a peer and takes no writes yet; ask another one, or come back")
	}
	if ahead, skewed := a.peers.Skewed(); skewed {
		return clockSkew.refuse("this machine's clock is %s ahead of the other nodes'; set it right (see max_clock_skew)", ahead.Round(time.Millisecond))
	}
	return nil
}

// write runs one operation and gives its own error.
func (a *api) write(ctx context.Context, op storage.Op) (storage.Result, error) {
	results, err := a.store.Write(ctx, []storage.Op{op}, false)
	if err != nil {
		return storage.Result{}, err
	}
	return results[0], results[0].Err
}

// read gives the live record of a key. One that this node's disk has damaged is
// fetched from a peer and stored again first.
func (a *api) read(ctx context.Context, ref types.Ref) (types.Record, error) {
	rec, err := a.store.Get(ref)
	if err == nil || !errors.Is(err, types.ErrCorrupt) {
		return rec, err
	}
	if err := a.heal(ctx, ref, err); err != nil {
		return rec, err
	}
	return a.store.Get(ref)
}

// heal gets a damaged record from a peer. It gives cause where none has it.
func (a *api) heal(ctx context.Context, ref types.Ref, cause error) error {
	ok, err := a.peers.Heal(ctx, ref)
	if err != nil {
		return fmt.Errorf("%w; and no peer could be asked: %w", cause, err)
	}
	if !ok {
		return fmt.Errorf("%w; and no live peer has it", cause)
	}
	a.log.Info("a damaged record was restored from a peer", "key", ref.String())
	return nil
}
