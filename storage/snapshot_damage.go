package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/merkle"
	"kvs/types"
)

// Suspect is a bucket of the Merkle tree in which a walk did not find what should
// be there.
type Suspect struct {
	Walked, Want uint64      // records
	Readable     []types.Ref // keys that are listed and can be read, walked or not
	Purged       uint64      // such keys that the horizon has passed
	Damaged      []*CorruptError
}

// Suspects calls fn with the buckets that differ from those of a walk of all keys
// that a horizon has not passed. Badger passes over a damaged block in silence, and
// in a walk over what comes behind it in the same table too.
func (p *Snapshot) Suspects(ctx context.Context, walked *merkle.Tree, horizon int64, fn func(*Suspect) error) error {
	for _, bucket := range p.tree.Diff(walked) {
		s := Suspect{Walked: walked.Leaf(bucket).Count, Want: p.tree.Leaf(bucket).Count}
		o := badger.IteratorOptions{Prefix: binary.BigEndian.AppendUint16([]byte{spaceHash}, uint16(bucket))}
		err := p.pieces(ctx, o, o.Prefix, func(txn *badger.Txn, it *badger.Iterator) ([]byte, error) {
			key := it.Item().KeyCopy(nil)
			_, ref := refOfHashKey(key)
			it.Next()
			rec, err := readRecord(txn, ref)
			damaged := (*CorruptError)(nil)
			switch {
			case err == nil && rec.Purged(horizon):
				s.Purged++
			case err == nil:
				s.Readable = append(s.Readable, ref)
			case errors.As(err, &damaged):
				s.Damaged = append(s.Damaged, damaged)
			default:
				s.Damaged = append(s.Damaged, &CorruptError{ref, errors.New("it is listed but not there")})
			}
			return key, nil
		})
		if err == nil {
			err = fn(&s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// goThrough moves an iterator back to the first key that it passed over, if any.
func (p *Snapshot) goThrough(ctx context.Context, it *badger.Iterator, through *[]types.Ref, fn func(*KeyState) error) error {
	here := it.Item().KeyCopy(nil)
	for len(*through) > 0 {
		ref := (*through)[0]
		key := recordKey(ref)
		order := bytes.Compare(key, here)
		if order > 0 {
			return nil
		}
		*through = (*through)[1:]
		if order == 0 {
			return nil
		}
		if it.Seek(key); it.Valid() && bytes.Equal(it.Item().Key(), key) {
			return nil
		}
		if err := p.alone(ctx, ref, fn); err != nil {
			return err
		}
		it.Seek(here)
	}
	return nil
}

// alone gives fn a key that no iterator reaches.
func (p *Snapshot) alone(ctx context.Context, ref types.Ref, fn func(*KeyState) error) error {
	state, err := p.Key(ctx, ref)
	if err != nil {
		return err
	}
	return fn(&state)
}
