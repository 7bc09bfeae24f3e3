package privatefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if _, err := Read("the file", path, "key", 0o077, 10); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "the file") {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Read("the file", path, "key", 0o077, 10); err != nil || string(b) != "0123456789" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Read("the file", path, "key", 0o077, 9); err == nil || !strings.Contains(err.Error(), "9 bytes") {
		t.Errorf("a file that is too large: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o660: false, 0o604: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Read("the file", path, "key", 0o027, 10)
		if (err == nil) != ok || err != nil && (!strings.Contains(err.Error(), "chmod") || !strings.Contains(err.Error(), path)) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
