package storage

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kvs/types"
)

// logFiles counts the files of the value log.
func logFiles(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// Large values that are overwritten give their space back, while others read
// and write, and nothing else changes.
func TestValueLogIsCollected(t *testing.T) {
	dir := t.TempDir()
	const size, file = 1 << 20, 16 << 20
	s, err := Open(Options{Dir: dir, ScrubEvery: -1, CheckpointEvery: time.Hour, valueLogFile: file})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(key string, value []byte) {
		res, err := s.Write(t.Context(), []Op{{Kind: OpPut, Ref: types.DataRef(types.Key(key)), Value: value, Raw: true}}, false)
		if err != nil || res[0].Err != nil {
			t.Error(err, res)
		}
	}
	value := make([]byte, size)
	rand.Read(value)
	for i := range 4 * file / size {
		value[0] = byte(i)
		put(fmt.Sprint(i%4), append([]byte(nil), value...))
	}
	before := logFiles(t, dir)
	root, _ := s.Tree().Root()
	if err := s.checkpoint(); err != nil { // what is older may go
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			put("busy", fmt.Append(nil, i))
			if got, err := s.Get(types.DataRef("busy")); err != nil || string(got.Value) != fmt.Sprint(i) {
				t.Errorf("read %s, %v after %d", got.Value, err, i)
				return
			}
		}
	})
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	close(stop)
	wg.Wait()
	if err := s.collectValueLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := logFiles(t, dir); after >= before-1 {
		entries, _ := os.ReadDir(dir)
		t.Errorf("%d files of the value log before, %d after: %v", before, after, entries)
	}
	s.cache.drop()
	for i := range 4 {
		if got, err := s.Get(types.DataRef(types.Key(fmt.Sprint(i)))); err != nil || len(got.Value) != len(value) {
			t.Errorf("key %d: %d bytes, %v", i, len(got.Value), err)
		}
	}
	if found, err := s.Scrub(t.Context()); err != nil || found > 0 {
		t.Errorf("the scrub found %d buckets, %v", found, err)
	}
	if now, _ := s.Tree().Root(); now == root {
		t.Error("the busy key is not in the tree")
	}
}
