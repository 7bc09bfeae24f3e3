package storage

import (
	"context"

	"github.com/dgraph-io/badger/v4"

	"kvs/types"
)

// Actor is who asked for a change.
type Actor struct {
	Subject string // a user's UUID, or one of package auth's names
	Token   string // the id (jti) of the token; empty without one
	Address string // the host that the request came from
}

// Staged is one record that a commit makes current, in the order in which the
// commit decided.
type Staged struct {
	Old    *types.Record // what it replaces, perhaps from the same commit; nil if nothing
	New    types.Record
	Unit   int    // non-zero and equal for the changes of one atomic batch
	By     *Actor // nil: this node itself, or, where Merged is set, another one
	Merged bool   // it came from another node
}

// Hook takes part in every commit that changes records, in a keyspace of its
// own: the entries that it sets are durable exactly if the changes are.
//
// Both methods run in the committer, so all writes wait for them: they must not
// write to the store or wait for anything. What they read through tx is the
// state before the commit. Both are also called without changes, for a commit
// that CommitHooks asked for.
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

// Seq is the sequence number that the commit will have; without changes it is
// that of the latest commit that had some.
func (tx *HookTx) Seq() uint64 {
	if len(tx.c.changes) == 0 {
		return tx.c.seq - 1
	}
	return tx.c.seq
}

// Now is the time of the commit, in Unix ms.
func (tx *HookTx) Now() int64 { return tx.c.now }

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

// CommitHooks makes a commit for what hooks have to keep beside changes. It is
// durable when CommitHooks returns.
func (s *Store) CommitHooks(ctx context.Context) error {
	if err := s.disk.admitBytes(0); err != nil {
		return err
	}
	return s.submit(ctx, hookWork{})
}

type hookWork struct{}

func (hookWork) parts() int             { return 1 }
func (hookWork) size(int) int           { return 0 }
func (hookWork) stage(c *commit, _ int) { c.forHooks = true }

// HookWalk calls fn with the entries of a hook's keyspace at or after from, in
// order of key and from one snapshot. fn's error ends it. Both slices are fn's
// until it returns.
func (s *Store) HookWalk(space byte, from []byte, fn func(key, value []byte) error) error {
	txn := s.snapshot()
	defer txn.Discard()
	var failed error
	prefix := []byte{space}
	eachFrom(txn, badger.IteratorOptions{Prefix: prefix}, append(prefix[:1:1], from...), func(item *badger.Item) bool {
		failed = item.Value(func(value []byte) error { return fn(item.Key()[1:], value) })
		return failed == nil
	})
	return failed
}

// HookLast gives the entry of a hook's keyspace with the greatest key that
// begins with prefix.
func (s *Store) HookLast(space byte, prefix []byte) (key, value []byte, ok bool, err error) {
	txn := s.snapshot()
	defer txn.Discard()
	full := append([]byte{space}, prefix...)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{space}, Reverse: true})
	defer it.Close()
	it.Seek(append(full[:len(full):len(full)], maxKey...))
	if !it.ValidForPrefix(full) {
		return nil, nil, false, nil
	}
	value, err = it.Item().ValueCopy(nil)
	return it.Item().KeyCopy(nil)[1:], value, err == nil, err
}
