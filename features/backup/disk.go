package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"kvs/types"
)

const (
	// slack is what a backup leaves free beyond the node's own watermark: one
	// that grows must not be what makes the node refuse writes.
	slack = 32 << 20
	// roomEvery is how many bytes are written between two looks at the disk.
	roomEvery = 8 << 20
)

// freeDisk asks the file system how much an unprivileged process may still use.
func freeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// sameFileSystem reports whether two directories share their space. What is not
// known counts as shared.
func sameFileSystem(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) != nil || unix.Stat(b, &y) != nil || x.Dev == y.Dev
}

// usedBytes is what the files of a directory take on disk. Badger's are mapped
// and longer than that.
func usedBytes(dir string) (sum int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
	}
	return sum
}

// room refuses where fewer than need bytes would be free for a file in the
// directory, beside what the node itself is to have.
func (m *Manager) room(need int64) error {
	free, err := m.opts.FreeDisk(m.opts.Dir)
	if err != nil {
		return err
	}
	reserve := int64(slack)
	if sameFileSystem(m.opts.Dir, m.opts.DataDir) {
		reserve += m.opts.MinFree
	}
	if free-need >= reserve {
		return nil
	}
	return fmt.Errorf("%w: %s (backup_path) has %d MiB free; about %d are needed, and %d stay free; free some space, or set backup_path to another disk",
		types.ErrDiskFull, m.opts.Dir, free>>20, (need>>20)+1, reserve>>20)
}

// asDiskFull tells a full disk by name.
func asDiskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", types.ErrDiskFull, err)
	}
	return err
}

// watched looks at the disk while much is written.
type watched struct {
	to   io.Writer
	m    *Manager
	seen int64 // bytes since the last look
}

func (w *watched) Write(b []byte) (int, error) {
	if w.seen += int64(len(b)); w.seen >= roomEvery {
		w.seen = 0
		if err := w.m.room(int64(len(b))); err != nil {
			return 0, err
		}
	}
	n, err := w.to.Write(b)
	return n, asDiskFull(err)
}
