package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// onlyFile fails if a temporary file was left beside path.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v", entries)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, c := range []struct {
		data string
		perm fs.FileMode
	}{{"first", 0o600}, {"", 0o644}, {"third, longer", 0o600}} {
		if err := Write(path, []byte(c.data), c.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.data {
			t.Fatalf("read %q, %v; want %q", got, err, c.data)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != c.perm {
			t.Fatalf("mode %v, %v; want %v", info.Mode(), err, c.perm)
		}
		onlyFile(t, path)
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write into a missing directory: %v", err)
	}
	target := filepath.Join(dir, "target")
	if err := os.MkdirAll(filepath.Join(target, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(target, []byte("x"), 0o600); err == nil {
		t.Error("Write replaced a directory")
	}
	onlyFile(t, target)
	if err := Create(target, []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a directory: %v", err)
	}
	onlyFile(t, target)
}

func TestConcurrentCreateHasOneWinner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var wins atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			want := fmt.Appendf(nil, "written by %d", i)
			err := Create(path, want, 0o600)
			if err == nil {
				wins.Add(1)
				if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
					t.Errorf("the winner reads %q, %v", got, err)
				}
				return
			}
			if !errors.Is(err, fs.ErrExist) {
				t.Errorf("error %v", err)
			}
			if got, err := os.ReadFile(path); err != nil || len(got) == 0 {
				t.Errorf("a loser reads %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d created the file", wins.Load())
	}
	onlyFile(t, path)
}
