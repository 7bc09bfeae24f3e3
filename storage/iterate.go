package storage

import "github.com/dgraph-io/badger/v4"

// each calls fn with the newest version of every entry under prefix, in key
// order, until fn gives false. Values are not prefetched: most live beside
// their keys, where prefetching would only start goroutines.
func each(txn *badger.Txn, prefix []byte, fn func(*badger.Item) bool) {
	eachFrom(txn, badger.IteratorOptions{Prefix: prefix}, prefix, fn)
}

// eachFrom is each with Badger's options, starting at or after from.
func eachFrom(txn *badger.Txn, o badger.IteratorOptions, from []byte, fn func(*badger.Item) bool) {
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(from); it.ValidForPrefix(o.Prefix); it.Next() {
		if !fn(it.Item()) {
			return
		}
	}
}
