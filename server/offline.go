package server

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"kvs/config"
	"kvs/storage"
	"kvs/types"
)

// OfflineWrite is one write into a new data directory, without a node running.
type OfflineWrite struct {
	Dir             string
	Joined, Written time.Time // what the node's clock shows at its first start and at the write
	Key             types.Key
	Value           []byte // JSON
}

// Do makes the directory and gives the record that is then in it.
func (w OfflineWrite) Do(ctx context.Context) (rec types.Record, err error) {
	cfg := config.Default()
	cfg.DataDir = w.Dir
	o := storeOptions(cfg, slog.New(slog.DiscardHandler))
	// The clock stands still: first when the node joined, which the identity
	// records, then when it wrote.
	var now atomic.Int64 // Unix ms; the store reads it in several goroutines
	now.Store(w.Joined.UnixMilli())
	o.Wall = func() time.Time { return time.UnixMilli(now.Load()) }
	store, err := storage.Open(o)
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	now.Store(w.Written.UnixMilli())
	results, err := store.Write(ctx, []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef(w.Key), Value: w.Value}}, false)
	if err != nil {
		return rec, err
	}
	return results[0].Record, results[0].Err
}
