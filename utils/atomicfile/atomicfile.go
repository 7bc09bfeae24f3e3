// Package atomicfile writes small files so that a crash at any moment leaves
// either what was there before or what was written, never a mixture.
//
// Write replaces a whole file. Slots keeps one small value that changes often:
// it writes in place, which costs one disk flush and no change to the
// directory.
//
// Neither keeps two processes from writing at once; the last one wins.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes path hold data with exactly the permissions perm, durable on
// return. On an error before the rename the file is what it was; on one after
// it, which only a failing disk gives, it may be either.
func Write(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return SyncDir(filepath.Dir(path))
}

// Create is Write for a file that must not exist yet: of several that create it
// at once one succeeds, and the others get an error that wraps fs.ErrExist and
// find the file complete.
func Create(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	// A hard link, since a rename would replace what another made meanwhile.
	if err := os.Link(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", dir, err), d.Close())
	}
	return d.Close()
}

// writeTemp writes a file beside path, since a rename and a link stay within one
// file system. It leaves nothing behind on error; a crash may leave a file whose
// name begins with a dot and ends in .tmp, which nothing reads.
func writeTemp(path string, data []byte, perm fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return "", err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
