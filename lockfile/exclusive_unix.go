//go:build unix

package lockfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// exclusive waits until no other mirrorctl updates a lock in this folder. The
// folder is what is locked, because the lock itself is replaced by each update.
func exclusive(folder string) (release func(), err error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil && err != unix.ENOTSUP && err != unix.EOPNOTSUPP && err != unix.EBADF {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: folder, Err: err}
	}
	// Some network file systems cannot lock folders; they are no worse off
	// than without this.
	return func() { f.Close() }, nil
}
