package server

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"kvs/types"
)

// handler answers a request, or gives the error to answer with; then it has
// written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// call is a handler and what the router has to know about it.
type call struct {
	handle handler
	// reads says that another node's answer is as good: while this node is
	// being filled it is asked instead.
	reads bool
}

// routes builds the mux. No pattern names a method: the mux would answer a
// wrong one by itself, and not with a problem document.
func (a *api) routes() *http.ServeMux {
	mux := http.NewServeMux()
	on := func(pattern, name string, calls map[string]call) {
		mux.Handle(pattern, a.resource(name, calls))
	}
	key := map[string]call{
		"GET":    {a.get, true},
		"PUT":    {a.put, false},
		"POST":   {a.put, false},
		"DELETE": {a.delete, false},
	}
	on("/kv/{path...}", "/kv/{path}", key)
	// Without this one the mux would redirect to /kv/.
	on("/kv", "/kv/{path}", key)
	on("/kv/_range", "/kv/_range", map[string]call{"GET": {a.getRange, true}, "DELETE": {a.deleteRange, false}})
	on("/kv/_batch", "/kv/_batch", map[string]call{"POST": {a.batch, false}})
	on("/kv/_conflicts", "/kv/_conflicts", map[string]call{"GET": {a.conflicts, true}})
	on("/kv/_conflicts/{uuid}", "/kv/_conflicts/{uuid}", map[string]call{"DELETE": {a.settle, false}})

	members := map[string]call{"GET": {a.members, false}}
	on("/members/{$}", "/members/", members)
	on("/members", "/members/", members)
	on("/members/join", "/members/join", map[string]call{"POST": {a.clusterOnly(a.join), false}})
	on("/members/leave", "/members/leave", map[string]call{"POST": {a.clusterOnly(a.leaveCluster), false}})
	on("/members/{id}", "/members/{id}", map[string]call{"DELETE": {a.clusterOnly(a.remove), false}})

	on("/health", "/health", map[string]call{"GET": {a.health, false}})
	on("/ready", "/ready", map[string]call{"GET": {a.ready, false}})
	on("/metrics", "/metrics", map[string]call{"GET": {a.serveMetrics, false}})
	on("/sync/merkle/root", "/sync/merkle/root", map[string]call{"GET": {a.merkleRoot, false}})
	mux.Handle("/sync/", a.peers.Handler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, notFound.refuse("nothing is at this path; keys are under /kv/"))
	})
	return mux
}

// clusterOnly refuses a call on a node without a cluster.
func (a *api) clusterOnly(h handler) handler {
	if a.clustered {
		return h
	}
	return func(http.ResponseWriter, *http.Request) error { return errClusteringOff() }
}

func errClusteringOff() error {
	return featureDisabled.refuse("clustering is off on this node (clustering_enabled)")
}

// resource is what answers under one pattern.
type resource struct {
	api   *api
	calls map[string]endpoint // by method
	allow []string            // the Allow header
}

type endpoint struct {
	call
	meter *meter
}

func (a *api) resource(name string, calls map[string]call) *resource {
	res := &resource{api: a, calls: make(map[string]endpoint)}
	for method, c := range calls {
		res.calls[method] = endpoint{c, a.metrics.meter(name, method)}
		if method == "GET" {
			res.calls["HEAD"] = endpoint{c, a.metrics.meter(name, "HEAD")}
		}
	}
	var methods []string
	for method := range res.calls {
		methods = append(methods, method)
	}
	slices.Sort(methods)
	res.allow = []string{strings.Join(methods, ", ")}
	return res
}

func (res *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := res.api
	e, ok := res.calls[r.Method]
	if !ok {
		w.Header()["Allow"] = res.allow
		a.refuse(w, r, methodNotAllowed.refuse("this path takes %s", res.allow[0]))
		return
	}
	start := time.Now()
	var err error
	if e.reads && a.peers.Mode() == types.ModeSyncing {
		err = a.forward.send(w, r, nil, a.peers)
	} else {
		err = e.handle(w, r)
	}
	status := http.StatusOK
	if err != nil {
		status = a.refuse(w, r, err).status
	}
	e.meter.observe(status, time.Since(start))
}
