package storage_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// BenchmarkPut writes 200-byte documents from 64 goroutines, to new keys and
// over a few old ones.
func BenchmarkPut(b *testing.B) {
	value := []byte(fmt.Sprintf(`{"text":"%0188d"}`, 0))
	for _, sync := range []bool{true, false} {
		for _, keys := range []int64{1 << 40, 1000} {
			b.Run(fmt.Sprintf("sync=%v/keys=%d", sync, keys), func(b *testing.B) {
				s := storagetest.Open(b, storage.Options{SyncWrites: sync, Compression: true, RevisionLimit: 10})
				var n atomic.Int64
				b.SetParallelism(32)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						key := types.Key(fmt.Sprintf("bench/%d", n.Add(1)%keys))
						res, err := s.Write(b.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef(key), Value: value}}, false)
						if err != nil || res[0].Err != nil {
							b.Error(err, res)
							return
						}
					}
				})
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := storagetest.Open(b, storage.Options{Compression: true})
	for i := range 1000 {
		storagetest.Put(b, s, types.Key(fmt.Sprintf("bench/%d", i)), fmt.Sprintf(`{"text":"%0188d"}`, i))
	}
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Get(types.DataRef(types.Key(fmt.Sprintf("bench/%d", n.Add(1)%1000)))); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
