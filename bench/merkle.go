package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"kvs/cluster/replication"
	"kvs/cluster/rpc"
	"kvs/storage"
	"kvs/types"
)

// runMerkle compares two stores that hold the same many records but for a few,
// over HTTP on loopback, and counts what a comparison sends beside the records
// that it moves.
func runMerkle(ctx context.Context, b *bench) error {
	master := filepath.Join(b.dir, "master")
	if err := b.fillMaster(ctx); err != nil {
		return err
	}
	open := func(dir string) (*storage.Store, error) {
		return storage.Open(storage.Options{Dir: dir, Compression: true, ScrubEvery: -1})
	}
	first, err := open(master)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := open(filepath.Join(b.dir, "twin"))
	if err != nil {
		return err
	}
	defer second.Close()
	if err := copyRecords(ctx, first, second); err != nil {
		return err
	}

	for _, c := range []struct {
		differ int
		aim    string
	}{{0, "one request"}, {1, "1 kB"}, {10, "5 kB"}, {1000, "300 kB"}} {
		for i := range c.differ {
			op := storage.Op{Kind: storage.OpPut, Ref: manyKey(i * (b.keys / c.differ)), Value: document}
			if _, err := first.Write(ctx, []storage.Op{op}, false); err != nil {
				return err
			}
		}
		bytes, calls, err := compareOnce(ctx, first, second)
		if err != nil {
			return err
		}
		b.report(row{fmt.Sprintf("Merkle comparison of %d keys, %d differ", b.keys, c.differ), fmt.Sprintf("%d bytes in %d requests (aim %s)", bytes, calls, c.aim),
			"both ways, beside the records", "go run ./bench -run merkle"})
	}
	return nil
}

// copyRecords merges all that from holds into to.
func copyRecords(ctx context.Context, from, to *storage.Store) error {
	var units [][]types.Record
	var failed error
	flush := func() bool {
		_, failed = to.Merge(ctx, units)
		units = nil
		return failed == nil
	}
	err := from.Walk(ctx, types.Ref{}, func(rec *types.Record) bool {
		units = append(units, []types.Record{*rec})
		return len(units) < 2000 || flush()
	})
	if err == nil && failed == nil {
		flush()
	}
	return errors.Join(err, failed)
}

// forgetful has no memory of peers, so that every comparison is a first one and
// nothing is pushed from a cursor.
type forgetful struct{ *storage.Store }

func (forgetful) GetMeta(string) ([]byte, error) { return nil, nil }

// counting counts calls.
type counting struct {
	replication.Caller
	calls atomic.Int64
}

func (c *counting) Call(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	if path != "/sync/push" { // the records themselves
		c.calls.Add(1)
	}
	return c.Caller.Call(ctx, addr, path, body)
}

// compareOnce lets a replicator of one store meet the other, which only
// answers, until it has completed a comparison.
func compareOnce(ctx context.Context, asks, answers *storage.Store) (bytes uint64, calls int64, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	never := make(chan struct{})
	options := func(s *storage.Store, caller replication.Caller, peers ...replication.Peer) replication.Options {
		return replication.Options{
			Self: s.Identity().UUID, Store: forgetful{s}, Caller: caller, RecheckDelay: 100 * time.Millisecond,
			Peers: func() []replication.Peer { return peers }, PeersChanged: func() <-chan struct{} { return never },
		}
	}
	client := rpc.New(rpc.Options{})
	defer client.Close()
	passive, err := replication.New(options(answers, client))
	if err != nil {
		return 0, 0, err
	}
	mux := http.NewServeMux()
	for path, h := range passive.Handlers() {
		mux.Handle(path, h)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	defer server.Close()

	caller := &counting{Caller: client}
	active, err := replication.New(options(asks, caller, replication.Peer{
		UUID: answers.Identity().UUID, NodeID: "twin", Address: listener.Addr().String(), Alive: true, Mode: types.ModeNormal,
	}))
	if err != nil {
		return 0, 0, err
	}
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- active.Run(run) }()
	for deadline := time.Now().Add(time.Minute); ; {
		status := active.Status()
		if len(status.Peers) == 1 && !status.Peers[0].LastSync.IsZero() {
			bytes, calls = status.SyncBytes, caller.calls.Load()
			break
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			err = errors.New("the comparison was not completed within a minute")
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	return bytes, calls, errors.Join(err, <-ended)
}
