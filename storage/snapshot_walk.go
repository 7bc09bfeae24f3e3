package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/merkle"
	"kvs/types"
)

// KeyState is what a snapshot holds of one key.
type KeyState struct {
	Ref     types.Ref
	Current types.Record // a tombstone and what has expired included
	// Older are the versions that were current before, each once, ascending:
	// the newest of those that are kept, as many as the store is to keep.
	Older []types.Record
	// Absent says that there is no record (any longer): nothing else is set then.
	Absent bool
	// Err is a *CorruptError where the current record cannot be read.
	Err error
}

// Walk calls fn with the keys of all namespaces, in order of their refs, that
// changed after a sequence number; 0 is all there are. Of their older versions
// too it gives those after that number. An error of fn ends the walk and is
// returned. What fn is given is its own.
//
// through are keys, ascending, that a walk passed over though they are there; see
// Suspects. The walk then goes by them, and so comes behind damaged blocks.
func (p *Snapshot) Walk(ctx context.Context, since uint64, through []types.Ref, fn func(*KeyState) error) error {
	inner, err := p.innerVersions(ctx, since)
	if err != nil {
		return err
	}
	o := badger.IteratorOptions{Prefix: []byte{spaceRecords}, AllVersions: true, SinceTs: since}
	for from := o.Prefix; ; {
		left := len(through)
		err := p.pieces(ctx, o, from, func(txn *badger.Txn, it *badger.Iterator) ([]byte, error) {
			here := it.Item().KeyCopy(nil)
			if err := p.goThrough(ctx, it, &through, fn); err != nil || !it.Valid() {
				return here, err
			}
			state := p.state(it)
			if !state.Absent && inner.has(state.Ref) {
				p.addInner(txn, since, &state)
			}
			state.settle(p.store.opts.RevisionLimit)
			return recordKey(state.Ref), fn(&state)
		})
		if err != nil || len(through) == 0 {
			return err
		}
		// The iterator ended before these.
		if from = recordKey(through[0]); len(through) == left {
			if err := p.alone(ctx, through[0], fn); err != nil {
				return err
			}
			through = through[1:]
		}
	}
}

// Key reads one key as Walk would.
func (p *Snapshot) Key(ctx context.Context, ref types.Ref) (state KeyState, err error) {
	txn := p.store.db.NewTransactionAt(p.seq, false)
	defer txn.Discard()
	it := txn.NewKeyIterator(recordKey(ref), badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	if p.over() {
		return state, ErrSnapshotOver
	}
	if it.Rewind(); !it.Valid() {
		return KeyState{Ref: ref, Absent: true}, ctx.Err()
	}
	state = p.state(it)
	p.addInner(txn, 0, &state)
	state.settle(p.store.opts.RevisionLimit)
	return state, ctx.Err()
}

// state reads the versions of one key, newest first.
func (p *Snapshot) state(it *badger.Iterator) KeyState {
	key := it.Item().KeyCopy(nil)
	s := KeyState{Ref: refOfRecordKey(key)}
	for first, ended := true, false; it.Valid() && bytes.Equal(it.Item().Key(), key); it.Next() {
		switch {
		case ended || len(s.Older) >= p.store.opts.RevisionLimit && !first:
		case it.Item().IsDeletedOrExpired():
			// What is older belongs to an earlier life of the key.
			s.Absent, ended = first, true
		default:
			rec, err := itemRecord(it.Item(), s.Ref)
			switch {
			case err != nil:
				p.store.reportCorrupt(err)
				if first {
					s.Err = err
				}
			case first:
				s.Current = rec
			default:
				s.Older = append(s.Older, rec)
			}
		}
		first = false
	}
	return s
}

// settle puts the older versions in order, and leaves out what is none. A copy
// of a version that is kept longer is the same version.
func (s *KeyState) settle(limit int) {
	slices.SortStableFunc(s.Older, func(a, b types.Record) int { return a.Version.Compare(b.Version) })
	s.Older = slices.CompactFunc(s.Older, func(a, b types.Record) bool { return a.UUID == b.UUID })
	s.Older = slices.DeleteFunc(s.Older, func(r types.Record) bool { return r.Version.Compare(s.Current.Version) >= 0 })
	s.Older = s.Older[max(0, len(s.Older)-limit):]
}

// innerVersions finds out which keys have versions that were overwritten within
// their own commit; nil if none has. Those are elsewhere, in another order, and
// looking for them costs more than the key itself.
func (p *Snapshot) innerVersions(ctx context.Context, since uint64) (f *keyFilter, err error) {
	if p.store.opts.RevisionLimit == 0 {
		return nil, nil
	}
	o := badger.IteratorOptions{Prefix: []byte{SpaceRevisions}, SinceTs: since}
	err = p.pieces(ctx, o, o.Prefix, func(_ *badger.Txn, it *badger.Iterator) ([]byte, error) {
		key := it.Item().KeyCopy(nil)
		if len(key) > 4+16 {
			if f == nil {
				f = new(keyFilter)
			}
			f.add(types.Ref{NS: types.Namespace(key[1]), Key: types.Key(key[4 : len(key)-16])})
		}
		it.Next()
		return key, nil
	})
	return f, err
}

// addInner adds the versions that were overwritten within their own commit.
func (p *Snapshot) addInner(txn *badger.Txn, since uint64, s *KeyState) {
	prefix := binary.BigEndian.AppendUint16([]byte{SpaceRevisions, byte(s.Ref.NS)}, uint16(len(s.Ref.Key)))
	prefix = append(prefix, s.Ref.Key...)
	eachFrom(txn, badger.IteratorOptions{Prefix: prefix, SinceTs: since}, prefix, func(item *badger.Item) bool {
		rec, err := itemRecord(item, s.Ref)
		if err != nil {
			p.store.reportCorrupt(err)
			return true
		}
		s.Older = append(s.Older, rec)
		return true
	})
}

// keyFilter holds keys, and perhaps others too.
type keyFilter [1 << 14]uint64

func (f *keyFilter) place(ref types.Ref) (word *uint64, bit uint64) {
	h := merkle.KeyHash(ref)
	return &f[h>>(64-14)], 1 << (h & 63)
}

func (f *keyFilter) add(ref types.Ref) {
	word, bit := f.place(ref)
	*word |= bit
}

func (f *keyFilter) has(ref types.Ref) bool {
	if f == nil {
		return false
	}
	word, bit := f.place(ref)
	return *word&bit != 0
}
