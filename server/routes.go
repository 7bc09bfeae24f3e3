package server

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"kvs/types"
)

// handler answers a request, or gives the error to answer with; then it has
// written nothing.
type handler func(w http.ResponseWriter, r *request) error

// call is a handler and what the router has to know about it.
type call struct {
	access
	handle handler
	// elsewhere says that another node's answer is as good: while this node is
	// being filled it is asked instead.
	elsewhere bool
}

// routes builds the mux. No pattern names a method: the mux would answer a
// wrong one by itself, and not with a problem document.
func (a *api) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, calls := range a.calls() {
		res := a.resource(pattern, calls)
		mux.Handle(pattern, res)
		// Without this the mux would redirect to the pattern with the slash.
		if bare, _, ok := strings.Cut(pattern, "/{"); ok && strings.HasSuffix(pattern, "...}") || strings.HasSuffix(pattern, "/{$}") {
			mux.Handle(bare, res)
		}
	}
	mux.Handle("/sync/", a.betweenNodes(a.port.nodesOnly(a.peers.Handler())))
	nothing := a.resource("/", map[string]call{"": {withToken, func(http.ResponseWriter, *request) error {
		return notFound.refuse("nothing is at this path; keys are under /kv/")
	}, false}})
	mux.Handle("/", nothing)
	mux.Handle("/sync", nothing) // or the mux would redirect it
	return mux
}

// betweenNodes serves what the cluster answers, which checks its callers by
// itself, and puts around that what goes with every refusal.
func (a *api) betweenNodes(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&nodeAnswer{w, a, r}, r)
	})
}

// nodeAnswer watches for the status of an answer.
type nodeAnswer struct {
	http.ResponseWriter
	api *api
	r   *http.Request
}

// Unwrap is for http.ResponseController.
func (w *nodeAnswer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *nodeAnswer) WriteHeader(status int) {
	why := forbidden
	if status == http.StatusUnauthorized {
		why = unauthorized
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="kvs nodes"`}
	}
	if status == why.status {
		w.api.note(&request{Request: w.r, gate: &w.api.gate}, why.refuse("a call between nodes"))
	}
	w.ResponseWriter.WriteHeader(status)
}

// calls are all that clients can call, by pattern and method. A GET answers HEAD
// too.
func (a *api) calls() map[string]map[string]call {
	calls := map[string]map[string]call{
		"/kv/{path...}": {
			"GET":    {readsKeys, a.get, true},
			"PUT":    {writesKeys, a.put, false},
			"POST":   {writesKeys, a.put, false},
			"DELETE": {writesKeys, a.delete, false},
		},
		"/kv/_range":            {"GET": {readsKeys, a.getRange, true}, "DELETE": {writesKeys, a.deleteRange, false}},
		"/kv/_watch":            {"GET": {readsKeys, a.watches.serve, false}},
		"/kv/_batch":            {"POST": {usesKeys, a.batch, false}},
		"/kv/_conflicts":        {"GET": {readsKeys, a.conflicts, true}},
		"/kv/_conflicts/{uuid}": {"DELETE": {writesKeys, a.settle, false}},

		"/members/{$}":   {"GET": {withToken, a.members, false}},
		"/members/join":  {"POST": {withAdmin, a.clusterOnly(a.join), false}},
		"/members/leave": {"POST": {withAdmin, a.clusterOnly(a.leaveCluster), false}},
		"/members/{id}":  {"DELETE": {withAdmin, a.clusterOnly(a.remove), false}},

		"/health":           {"GET": {open, a.health, false}},
		"/ready":            {"GET": {open, a.ready, false}},
		"/metrics":          {"GET": {withToken, a.serveMetrics, false}},
		"/sync/merkle/root": {"GET": {withAdmin, a.merkleRoot, false}},
	}
	maps.Copy(calls, a.authCalls())
	maps.Copy(calls, a.auditCalls())
	maps.Copy(calls, a.backups.calls())
	return calls
}

// clusterOnly refuses a call on a node without a cluster.
func (a *api) clusterOnly(h handler) handler {
	if a.clustered {
		return h
	}
	return func(http.ResponseWriter, *request) error { return errClusteringOff() }
}

func errClusteringOff() error {
	return featureDisabled.refuse("clustering is off on this node (clustering_enabled)")
}

// resource is what answers under one pattern.
type resource struct {
	api   *api
	calls map[string]endpoint // by method; "": any
	// strangers says that whoever calls with a wrong method need not say who
	// they are.
	strangers bool
	limited   bool     // it counts against the client's rate
	allow     []string // the Allow header
}

type endpoint struct {
	call
	meter *meter
}

// unlimited are what keeps a cluster and its monitoring alive.
var unlimited = []string{"/health", "/ready", "/metrics"}

func (a *api) resource(pattern string, calls map[string]call) *resource {
	res := &resource{api: a, calls: make(map[string]endpoint), strangers: true, limited: !slices.Contains(unlimited, pattern)}
	name := routeName(pattern)
	for method, c := range calls {
		if c.access == 0 {
			panic("server: " + method + " " + pattern + " does not say who may call it")
		}
		res.strangers = res.strangers && c.access == open
		res.calls[method] = endpoint{c, a.metrics.meter(name, method)}
		if method == "GET" {
			res.calls["HEAD"] = endpoint{c, a.metrics.meter(name, "HEAD")}
		}
	}
	methods := slices.Sorted(maps.Keys(res.calls))
	res.allow = []string{strings.Join(methods, ", ")}
	return res
}

// routeName is a pattern as the metrics name it.
func routeName(pattern string) string {
	return strings.NewReplacer("...", "", "{$}", "").Replace(pattern)
}

func (res *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := res.api
	e, ok := res.calls[r.Method]
	if !ok {
		e, ok = res.calls[""]
	}
	need := e.access
	if !ok {
		if need = withToken; res.strangers {
			need = open
		}
	}
	start := time.Now()
	req := request{Request: r}
	var err error
	if need != open {
		req, err = a.gate.enter(w, r, need, res.limited)
	}
	switch {
	case err != nil:
	case !ok:
		w.Header()["Allow"] = res.allow
		err = methodNotAllowed.refuse("this path takes %s", res.allow[0])
	case e.elsewhere && a.peers.Mode() == types.ModeSyncing:
		err = a.forward.send(w, r, nil, a.peers)
	case need == withAdmin && a.gate.authenticator != nil && a.peers.Mode() == types.ModeSyncing:
		// A revocation may be among what it has not got yet.
		err = syncing.refuse("this node is being filled from a peer, and does not know yet which tokens were revoked; ask another one, or come back")
	default:
		err = req.conceal(e.handle(w, &req))
	}
	status := http.StatusOK
	if err != nil {
		a.note(&req, err)
		status = a.refuse(w, r, err).status
	}
	if ok {
		e.meter.observe(status, time.Since(start))
	}
}
