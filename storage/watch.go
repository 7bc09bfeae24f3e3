package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"kvs/types"
)

// What watching reads of the store, beside the feed.

// Current gives the current record of ref and the commit that made it so.
// Errors as readRecord. It passes the cache by, which learns of a commit a moment
// after Seq does.
func (s *Store) Current(ref types.Ref) (types.Record, uint64, error) {
	txn := s.snapshot()
	defer txn.Discard()
	rec, seq, err := versioned(txn, ref)
	if errors.Is(err, types.ErrCorrupt) {
		s.reportCorrupt(err)
	}
	return rec, seq, err
}

// versioned is readRecord with the commit that wrote the record.
func versioned(txn *badger.Txn, ref types.Ref) (types.Record, uint64, error) {
	item, err := txn.Get(recordKey(ref))
	if err != nil {
		if errors.Is(err, badger.ErrKeyNotFound) {
			return types.Record{}, 0, types.ErrNotFound
		}
		return types.Record{}, 0, &CorruptError{ref, err}
	}
	rec, err := itemRecord(item, ref)
	return rec, item.Version(), err
}

// ChangedKeys calls fn with the keys of a namespace that begin with prefix and
// whose record was last changed in (from, to], and with the commit that did it,
// in order of keys, until fn gives false. It reads no record. The key is fn's
// until it returns. What changed again since to is left out.
func (s *Store) ChangedKeys(ctx context.Context, ns types.Namespace, prefix types.Key, from, to uint64, fn func(seq uint64, key []byte) bool) error {
	txn := s.snapshot()
	defer txn.Discard()
	space := recordKey(types.Ref{NS: ns, Key: prefix})
	looked := 0
	var failed error
	eachFrom(txn, badger.IteratorOptions{Prefix: space, SinceTs: from}, space, func(item *badger.Item) bool {
		if looked++; looked%scanStep == 0 {
			if failed = ctx.Err(); failed != nil {
				return false
			}
		}
		return item.Version() > to || fn(item.Version(), item.Key()[2:])
	})
	return failed
}

// PurgePlace is a place in the purge index, which is in order of purge times and
// then of refs. {At: t} lies before all entries of t.
type PurgePlace struct {
	At  int64 // Unix ms
	Ref types.Ref
}

// WalkPurge calls fn with the records of a namespace that have a purge time, that
// begin with prefix, and whose entry in the purge index lies behind after and has
// a purge time of to at most, in that order, until fn gives false. seq is the
// commit that made the record current. What cannot be read is left out.
func (s *Store) WalkPurge(ctx context.Context, ns types.Namespace, prefix types.Key, after PurgePlace, to int64, fn func(rec *types.Record, seq uint64) bool) error {
	txn := s.snapshot()
	defer txn.Discard()
	var from []byte
	if after.Ref == (types.Ref{}) {
		from = purgeKey(max(after.At, 0), types.Ref{})[:9]
	} else {
		from = append(purgeKey(after.At, after.Ref), 0)
	}
	looked, start := 0, []byte(prefix)
	var failed error
	eachFrom(txn, badger.IteratorOptions{Prefix: []byte{spacePurge}}, from, func(item *badger.Item) bool {
		if looked++; looked%scanStep == 0 {
			if failed = ctx.Err(); failed != nil {
				return false
			}
		}
		at, entry := int64(binary.BigEndian.Uint64(item.Key()[1:])), item.Key()[9:]
		if at > to {
			return false
		}
		if types.Namespace(entry[0]) != ns || !bytes.HasPrefix(entry[1:], start) {
			return true
		}
		ref := types.Ref{NS: ns, Key: types.Key(entry[1:])}
		rec, seq, err := versioned(txn, ref)
		switch {
		case errors.Is(err, types.ErrCorrupt):
			s.reportCorrupt(err)
			return true
		case err != nil || rec.PurgeAt != at:
			return true // an entry that a damaged record left behind
		}
		return fn(&rec, seq)
	})
	return failed
}
