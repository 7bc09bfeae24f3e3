package storage

import (
	"github.com/dgraph-io/badger/v4"

	"kvs/types"
)

// Staged is one record that a commit makes current, in the order in which the
// commit decided.
type Staged struct {
	Old  *types.Record // what it replaces, perhaps from the same commit; nil if nothing
	New  types.Record
	Unit int // non-zero and equal for the changes of one atomic batch
}

// Hook takes part in every commit that changes records, in a keyspace of its
// own: the entries that it sets are durable exactly if the changes are.
//
// Both methods run in the committer, so all writes wait for them: they must not
// write to the store or wait for anything. What they read through tx is the
// state before the commit.
type Hook interface {
	// Keyspace is the first byte of every entry of the hook.
	Keyspace() byte
	// Stage is called once per commit, when all its changes are known.
	Stage(tx *HookTx, changes []Staged)
	// Committed is called when the commit is durable and visible.
	Committed(seq uint64, changes []Staged)
}

// HookTx is a hook's access to the transaction of the commit.
type HookTx struct {
	space byte
	c     *commit
}

// Seq is the sequence number that the commit will have.
func (tx *HookTx) Seq() uint64 { return tx.c.seq }

// Set stages an entry under the hook's keyspace.
func (tx *HookTx) Set(key, value []byte) { tx.c.set(tx.key(key), value) }

// Delete stages the removal of an entry.
func (tx *HookTx) Delete(key []byte) { tx.c.delete(tx.key(key)) }

// Keys gives the hook's keys that begin with prefix, in order, as they were
// before the commit.
func (tx *HookTx) Keys(prefix []byte) [][]byte {
	var out [][]byte
	each(tx.c.read, tx.key(prefix), func(item *badger.Item) bool {
		out = append(out, item.KeyCopy(nil)[1:])
		return true
	})
	return out
}

func (tx *HookTx) key(suffix []byte) []byte {
	return append([]byte{tx.space}, suffix...)
}

// HookEntries gives the values under a hook's keyspace whose keys begin with
// prefix, in order of key.
func (s *Store) HookEntries(space byte, prefix []byte) ([][]byte, error) {
	txn := s.snapshot()
	defer txn.Discard()
	var out [][]byte
	var failed error
	each(txn, append([]byte{space}, prefix...), func(item *badger.Item) bool {
		v, err := item.ValueCopy(nil)
		if err != nil {
			failed = err
			return false
		}
		out = append(out, v)
		return true
	})
	return out, failed
}
