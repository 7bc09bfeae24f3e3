// Package privatefile reads files that others must not read: secrets and keys.
//
// Invariant: nothing of a file is given that others may read or change.
package privatefile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// Read gives a file of most bytes. It refuses one with any of the forbidden
// permissions. In errors what says which file it is, and holds what is in it.
func Read(what, path, holds string, forbidden fs.FileMode, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	// Windows has no such permissions and shows 0666 for any file.
	if mode := info.Mode().Perm(); mode&forbidden != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s %s has mode %04o, so that others may read or change the %s: run `chmod %o %s`",
			what, path, mode, holds, mode&^forbidden&^0o111, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s %s is larger than %d bytes: it must hold the %s alone", what, path, most, holds)
	}
	return b, nil
}
