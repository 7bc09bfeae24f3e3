package tamperlog

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// discard is a transaction that counts what is set.
type discard struct{ bytes int }

func (d *discard) Seq() uint64           { return 1 << 30 }
func (d *discard) Now() int64            { return 1_700_000_000_000 }
func (d *discard) Set(key, value []byte) { d.bytes += 1 + len(key) + len(value) }

// BenchmarkStage is what the log costs the committer for commits of several
// sizes: overwrites of keys of 22 bytes, by one user, or by one for each change.
func BenchmarkStage(b *testing.B) {
	for _, c := range []struct{ size, users int }{{1, 1}, {30, 1}, {30, 30}, {1000, 1}, {1000, 30}} {
		b.Run(fmt.Sprintf("changes=%d/users=%d", c.size, c.users), func(b *testing.B) {
			changes := make([]storage.Staged, c.size)
			actors := make([]storage.Actor, c.users)
			for i := range actors {
				actors[i] = storage.Actor{Subject: uuid.NewString(), Token: "b2Zmc2V0IG9mIDE2IGJ5dGVzIQ0123456", Address: "10.20.30.40"}
			}
			for i := range changes {
				rec := types.Record{Ref: types.DataRef(types.Key(fmt.Sprintf("shop/till/%012d", i))), Value: make([]byte, 200)}
				rec.UUID = types.VersionID(uuid.New())
				old := rec
				old.UUID, old.Value = types.VersionID(uuid.New()), make([]byte, 200)
				by := actors[i%c.users] // requests do not share an Actor, even of one user
				changes[i] = storage.Staged{Old: &old, New: rec, By: &by}
			}
			l := New(Options{})
			l.store, l.durable = &storage.Store{}, head{n: 1_000_000, count: 30, hash: Hash{1}}
			var tx discard
			b.ReportAllocs()
			for b.Loop() {
				l.stage(&tx, changes)
				l.Committed(0, changes)
			}
			b.ReportMetric(float64(tx.bytes)/float64(b.N*c.size), "bytes/change")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.size), "ns/change")
		})
	}
}

// BenchmarkDecodeBlock is what Verify does for each block.
func BenchmarkDecodeBlock(b *testing.B) {
	block := Block{First: 1_000_000, Previous: 30, Seq: 1 << 30, Time: 1_700_000_000_000, Entries: make([]Entry, 30)}
	for i := range block.Entries {
		block.Entries[i] = Entry{Action: ActionPut, NS: types.NSData, Key: fmt.Sprintf("shop/till/%012d", i), Before: version(1), After: version(2),
			By: storage.Actor{Subject: uuid.NewString()}}
	}
	value := block.Encode()
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeBlock(value); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut is what the log costs a write as a whole, its bytes in the store
// included: 200-byte documents from 64 goroutines, to new keys.
func BenchmarkPut(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("log=%v", on), func(b *testing.B) {
			dir := b.TempDir()
			l := New(Options{Dir: dir})
			o := storage.Options{Dir: dir, SyncWrites: true, Compression: true}
			if on {
				o.Hooks = []storage.Hook{l}
			}
			s := storagetest.Open(b, o)
			if on {
				if err := l.Start(b.Context(), s); err != nil {
					b.Fatal(err)
				}
			}
			value := fmt.Appendf(nil, `{"text":"%0188d"}`, 0)
			by := &storage.Actor{Subject: uuid.NewString(), Token: "b2Zmc2V0IG9mIDE2IGJ5dGVzIQ0123456", Address: "10.20.30.40"}
			var n atomic.Int64
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := types.Key(fmt.Sprintf("bench/%d", n.Add(1)))
					res, err := s.Write(b.Context(), []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef(key), Value: value, By: by}}, false)
					if err != nil || res[0].Err != nil {
						b.Error(err, res)
						return
					}
				}
			})
		})
	}
}
