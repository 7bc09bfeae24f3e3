package revisions_test

import (
	"bytes"
	"fmt"
	"testing"

	"kvs/features/revisions"
	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// Versions that are overwritten within their own commit count against the size
// of the transaction that keeps them.
func TestFullTransactions(t *testing.T) {
	const limit = 10
	for size, puts := range map[int]int{10: 30_000, 1800: 6_000} { // too many entries, and too many bytes
		s := storagetest.Open(t, storage.Options{RevisionLimit: limit, Hooks: []storage.Hook{revisions.NewHook(limit)}})
		value := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), size)...), '"')
		var ops []storage.Op
		for i := range puts {
			ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(types.Key(fmt.Sprint("k", i/4))), Value: value})
		}
		results, err := s.Write(t.Context(), ops, false)
		if err != nil {
			t.Fatalf("values of %d bytes: %v", size, err)
		}
		for i, res := range results {
			if res.Err != nil {
				t.Fatalf("values of %d bytes, operation %d: %v", size, i, res.Err)
			}
		}
		if history, err := revisions.List(t.Context(), s, "k0", limit); err != nil || len(history) != 4 {
			t.Errorf("values of %d bytes: %d versions are kept, %v", size, len(history), err)
		}
	}
}
