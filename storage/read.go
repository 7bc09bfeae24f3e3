package storage

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/codec"
	"kvs/storage/merkle"
	"kvs/types"
)

// CorruptError names a record that is on disk and cannot be read as what was
// written. It is types.ErrCorrupt.
type CorruptError struct {
	Ref types.Ref
	Err error // what the decoder said, and at which offset
}

// Error names the record and what is wrong with it.
func (e *CorruptError) Error() string { return fmt.Sprintf("record %s is damaged: %v", e.Ref, e.Err) }

// Is makes it a types.ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == types.ErrCorrupt }

// Unwrap gives the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// snapshot is a read transaction at the newest commit. Whoever asks discards it,
// soon: it keeps old tables alive.
func (s *Store) snapshot() *badger.Txn { return s.db.NewTransactionAt(s.seq.Load(), false) }

// Get gives the live value of ref: types.ErrNotFound for a key that is absent,
// deleted or expired; a *CorruptError for one that is there and unreadable.
func (s *Store) Get(ref types.Ref) (types.Record, error) {
	rec, err := s.Lookup(ref)
	if err == nil && !rec.Live(s.clock.Wall().UnixMilli()) {
		return types.Record{}, types.ErrNotFound
	}
	return rec, err
}

// Lookup gives the current record of ref, be it a tombstone or expired. Errors
// as Get.
func (s *Store) Lookup(ref types.Ref) (types.Record, error) {
	rec, ok, ticket := s.cache.get(ref)
	if ok {
		return rec, nil
	}
	txn := s.snapshot()
	defer txn.Discard()
	rec, err := readRecord(txn, ref)
	if err == nil {
		s.cache.fill(rec, ticket)
	}
	if errors.Is(err, types.ErrNotFound) {
		err = missing(txn, ref)
	}
	if errors.Is(err, types.ErrCorrupt) {
		s.reportCorrupt(err)
	}
	return rec, err
}

// readRecord reads and checks a record. The error is types.ErrNotFound or a
// *CorruptError.
func readRecord(txn *badger.Txn, ref types.Ref) (types.Record, error) {
	item, err := txn.Get(recordKey(ref))
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		return types.Record{}, types.ErrNotFound
	case err != nil:
		return types.Record{}, &CorruptError{ref, err}
	}
	return itemRecord(item, ref)
}

// itemRecord decodes an entry of the records keyspace found under ref.
func itemRecord(item *badger.Item, ref types.Ref) (types.Record, error) {
	b, err := item.ValueCopy(nil)
	if err != nil {
		return types.Record{}, &CorruptError{ref, err}
	}
	rec, err := codec.DecodeOne(b)
	if err != nil {
		return types.Record{}, &CorruptError{ref, err}
	}
	if rec.Ref != ref {
		return types.Record{}, &CorruptError{ref, fmt.Errorf("it holds %s", rec.Ref)}
	}
	return rec, nil
}

// missing tells a key that was never there from one that is lost: Badger skips
// a damaged block as if its keys did not exist, but the by-hash index, which is
// elsewhere on disk, still names them.
func missing(txn *badger.Txn, ref types.Ref) error {
	_, err := txn.Get(hashKey(merkle.KeyHash(ref), ref))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return types.ErrNotFound
	}
	if err == nil {
		err = errors.New("it is listed but not there")
	}
	return &CorruptError{ref, err}
}

// reportCorrupt counts and logs a record that could not be read.
func (s *Store) reportCorrupt(err error) {
	s.counters.corrupt.Add(1)
	s.log.Error("damaged record; its disk may be failing", "error", err)
}

// ByHash gives the records, tombstones included, whose key hash is hash:
// nearly always one. What cannot be read is left out.
func (s *Store) ByHash(hash uint64) []types.Record {
	txn := s.snapshot()
	defer txn.Discard()
	var out []types.Record
	each(txn, hashKey(hash, types.Ref{})[:9], func(item *badger.Item) bool {
		_, ref := refOfHashKey(item.Key())
		rec, err := readRecord(txn, ref)
		if err != nil {
			s.reportCorrupt(&CorruptError{ref, err})
			return true
		}
		out = append(out, rec)
		return true
	})
	return out
}

// Versions calls fn with the versions of ref that were current at the end of
// some commit and are still kept, newest first.
func (s *Store) Versions(ref types.Ref, fn func(types.Record) bool) error {
	txn := s.snapshot()
	defer txn.Discard()
	key := recordKey(ref)
	it := txn.NewKeyIterator(key, badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if it.Item().IsDeletedOrExpired() {
			return nil // what is older belongs to an earlier life of the key
		}
		rec, err := itemRecord(it.Item(), ref)
		if err != nil {
			s.reportCorrupt(err)
			continue
		}
		if !fn(rec) {
			return nil
		}
	}
	return nil
}
