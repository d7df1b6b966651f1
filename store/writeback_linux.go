package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// writeBack asks the kernel to start writing a part of a file to the disk, and
// does not wait for it: an fsync at the end then finds most of it written.
// What goes wrong, that fsync will tell.
func writeBack(f *os.File, from, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, n, unix.SYNC_FILE_RANGE_WRITE)
}
