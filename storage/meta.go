package storage

import (
	"context"
	"errors"
	"math"

	"github.com/dgraph-io/badger/v4"
)

// GetMeta gives a small value that PutMeta kept; nil if there is none.
func (s *Store) GetMeta(name string) ([]byte, error) {
	txn := s.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	item, err := txn.Get(metaKey(name))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

// PutMeta keeps small values of this node, such as peers' cursors, durably. They
// are no records: they do not move the sequence, and no other node sees them.
func (s *Store) PutMeta(ctx context.Context, values map[string][]byte) error {
	if err := s.disk.admitBytes(0); err != nil {
		return err
	}
	return s.submit(ctx, metaWork(values))
}

type metaWork map[string][]byte

func (metaWork) parts() int { return 1 }

func (w metaWork) size(int) (n int) {
	for name, v := range w {
		n += entrySize(1+len(name), len(v))
	}
	return n
}

func (w metaWork) stage(c *commit, _ int) {
	for name, v := range w {
		c.set(metaKey(name), v)
	}
}
