package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache makes reading f go to the disk: what memory holds of it proves
// nothing. It is advice, and no failure where it is not followed.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
