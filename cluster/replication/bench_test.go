package replication

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"kvs/cluster/replication/replicationtest"
	"kvs/cluster/rpc"
)

// BenchmarkBootstrap fills an empty node over real HTTP on loopback, sender and
// receiver in one process, stores in memory: what replication itself costs.
func BenchmarkBootstrap(b *testing.B) {
	const n = 100_000
	from := replicationtest.NewStore(nodeID(0), 1)
	value := make([]byte, 100)
	for i := range n {
		from.Put(key(i), append(value[:92:92], key(i)...), false)
	}
	ro := &roster{changed: make(chan struct{})}
	options := func(s *replicationtest.Store) Options {
		client := rpc.New(rpc.Options{})
		b.Cleanup(client.Close)
		return Options{Self: s.ID, Store: s, Caller: client, Peers: ro.without(s.ID), PeersChanged: ro.change}
	}
	source, err := New(options(from))
	if err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, h := range source.Handlers() {
		mux.Handle(path, h)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	ro.peers = []Peer{{UUID: from.ID, NodeID: "a", Address: server.Listener.Addr().String(), Alive: true}}
	for b.Loop() {
		to := replicationtest.NewStore(nodeID(1), 2)
		r, err := New(options(to))
		if err != nil {
			b.Fatal(err)
		}
		r.fill(context.Background())
		if r.done.Load() != n {
			b.Fatalf("%d records", r.done.Load())
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
