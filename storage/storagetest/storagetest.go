// Package storagetest opens stores for tests.
package storagetest

import (
	"log/slog"
	"testing"

	"kvs/storage"
	"kvs/types"
)

// Open opens a store in o.Dir, a temporary directory if empty, and closes it
// when the test ends. It does not scrub in the background, and logs to the
// test's output.
func Open(t testing.TB, o storage.Options) *storage.Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.ScrubEvery == 0 {
		o.ScrubEvery = -1
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := storage.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Put writes one JSON value and gives the record.
func Put(t testing.TB, s *storage.Store, key types.Key, value string) types.Record {
	t.Helper()
	return One(t, s, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(value)}).Record
}

// Delete deletes a key and gives the tombstone.
func Delete(t testing.TB, s *storage.Store, key types.Key) types.Record {
	t.Helper()
	return One(t, s, storage.Op{Kind: storage.OpDelete, Ref: types.DataRef(key)}).Record
}

// One does one operation, which must succeed.
func One(t testing.TB, s *storage.Store, op storage.Op) storage.Result {
	t.Helper()
	res, err := s.Write(t.Context(), []storage.Op{op}, false)
	if err == nil {
		err = res[0].Err
	}
	if err != nil {
		t.Fatalf("operation on %s: %v", op.Ref, err)
	}
	return res[0]
}

// Merge takes one record of another node in, which must not be refused.
func Merge(t testing.TB, s *storage.Store, records ...types.Record) {
	t.Helper()
	refused, err := s.Merge(t.Context(), [][]types.Record{records})
	if err == nil && len(refused) > 0 {
		err = refused[0].Err
	}
	if err != nil {
		t.Fatalf("merge: %v", err)
	}
}
