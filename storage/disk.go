package storage

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kvs/types"
)

// disk is the watermark on free space. Badger maps its files and dies by SIGBUS
// when the file system cannot back a page, so writes are refused well before.
type disk struct {
	dir  string
	min  int64 // bytes; 0 = no watermark
	ask  func(string) (int64, error)
	free atomic.Int64
	full atomic.Bool
	// unseen counts bytes taken since free was read; Badger writes each at
	// least twice, to its log and to a table.
	unseen atomic.Int64
}

const diskCheckEvery = time.Second

// freeDisk asks the file system how much an unprivileged process may still use.
func freeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// check reads the free space and reports a change of state.
func (d *disk) check() (free int64, changed bool, err error) {
	d.unseen.Store(0)
	free, err = d.ask(d.dir)
	if err != nil {
		return 0, false, err
	}
	d.free.Store(free)
	full := d.min > 0 && free < d.min
	return free, d.full.Swap(full) != full, nil
}

// admit decides whether client operations may be taken. Reads always are.
func (d *disk) admit(ops []Op) error {
	bytes, writes := 0, false
	for i := range ops {
		if ops[i].Kind != OpGet {
			writes = true
			bytes += opSize(&ops[i]) + len(ops[i].Value)
		}
	}
	if !writes {
		return nil
	}
	return d.admitBytes(bytes)
}

// admitBytes decides whether a write of about so many bytes may be taken.
func (d *disk) admitBytes(bytes int) error {
	if d.min == 0 {
		return nil
	}
	if d.full.Load() {
		return d.refusal()
	}
	// A burst between two looks must not eat the reserve: look again after a
	// quarter of what lies above the watermark.
	if unseen := d.unseen.Add(int64(bytes)); unseen > (d.free.Load()-d.min)/4 {
		if _, _, err := d.check(); err != nil {
			return err
		}
		if d.full.Load() {
			return d.refusal()
		}
	}
	return nil
}

func (d *disk) refusal() error {
	return fmt.Errorf("%w: %s has %d MiB free, less than min_free_disk_mb (%d); writes are taken again when space is freed",
		types.ErrDiskFull, d.dir, d.free.Load()>>20, d.min>>20)
}
