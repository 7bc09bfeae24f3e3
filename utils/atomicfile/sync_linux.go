package atomicfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncData flushes a file's contents and not its times, which spares the file
// system's journal.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
