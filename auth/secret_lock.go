//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package auth

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lockSecretFile keeps other rotations of a file out until unlock is called or
// the process ends.
func lockSecretFile(path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := lockOpened(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// lockOpened locks the file that was opened as path. A rotation replaces it by
// another: so whoever had opened it before is refused, and not let in beside
// who locks the new one.
func lockOpened(f *os.File, path string) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errRotating
	}
	if err != nil {
		return err
	}
	locked, err1 := f.Stat()
	current, err2 := os.Stat(path)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if !os.SameFile(locked, current) {
		return errRotating
	}
	return nil
}

var errRotating = errors.New("another rotation of it is under way: look at what it did, and try again")

// keepOwner gives the file at path the owner and group of the one before it.
func keepOwner(path string, before fs.FileInfo) error {
	after, err := os.Stat(path)
	if err != nil {
		return err
	}
	b, ok1 := before.Sys().(*syscall.Stat_t)
	a, ok2 := after.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || a.Uid == b.Uid && a.Gid == b.Gid {
		return nil
	}
	return os.Chown(path, int(b.Uid), int(b.Gid))
}
