package backup

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"kvs/features/revisions"
	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// benchNode is a store of documents of about 200 bytes.
func benchNode(b *testing.B, records int) *Manager {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	dir := b.TempDir()
	s := storagetest.Open(b, storage.Options{Dir: dir, RevisionLimit: 10, Compression: true, Log: quiet, Hooks: []storage.Hook{revisions.NewHook(10), Hook{}}})
	r := rand.New(rand.NewPCG(1, 2))
	for at := 0; at < records; at += 1000 {
		ops := make([]storage.Op, min(1000, records-at))
		for i := range ops {
			ops[i] = storage.Op{
				Ref:   types.DataRef(types.Key(fmt.Sprintf("documents/%08d", at+i))),
				Value: fmt.Appendf(nil, `{"id":%d,"name":"somebody of some length","email":"somebody%d@example.org","score":%.8f,"tags":["one","two","three"],"token":"%016x%016x"}`, at+i, r.IntN(1e6), r.Float64(), r.Uint64(), r.Uint64()),
			}
		}
		if _, err := s.Write(b.Context(), ops, false); err != nil {
			b.Fatal(err)
		}
	}
	m, err := New(Options{Store: s, Dir: b.TempDir(), DataDir: dir, NodeID: "n", Retention: time.Hour, Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	return m
}

const benchRecords = 100_000

func perSecond(b *testing.B, records uint64) {
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkFull is a full backup, read back and verified.
func BenchmarkFull(b *testing.B) {
	m := benchNode(b, benchRecords)
	var info Info
	for b.Loop() {
		var err error
		if info, err = m.Backup(b.Context(), Full); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, info.Records)
	b.ReportMetric(float64(info.Size)/float64(info.Records), "B/record")
}

// BenchmarkIncremental is one of a hundred changes.
func BenchmarkIncremental(b *testing.B) {
	m := benchNode(b, benchRecords)
	if _, err := m.Backup(b.Context(), Full); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for i := range 100 {
			storagetest.Put(b, m.opts.Store, types.Key(fmt.Sprintf("documents/%08d", i*977)), `"changed"`)
		}
		if info, err := m.Backup(b.Context(), Incremental); err != nil || info.Records != 100 {
			b.Fatal(info, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	info, err := benchNode(b, benchRecords).Backup(b.Context(), Full)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Verify(b.Context(), info.Path()); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, info.Records)
}

// BenchmarkRestore verifies, plans and writes.
func BenchmarkRestore(b *testing.B) {
	info, err := benchNode(b, benchRecords).Backup(b.Context(), Full)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := Prepare(b.Context(), RestoreOptions{Chain: []Info{info}, Older: 10, Now: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		s := storagetest.Open(b, storage.Options{RevisionLimit: 10, Compression: true, Hooks: []storage.Hook{revisions.NewHook(10)}, Log: slog.New(slog.DiscardHandler)})
		if err := p.Write(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
	perSecond(b, info.Records)
}
