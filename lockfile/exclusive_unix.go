//go:build unix

package lockfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// exclusive waits until no other mirrorctl updates a lock in this folder. The
// folder is what is locked, because the lock itself is replaced by each update.
// Some network file systems cannot lock folders; alone is false then, and they
// are no worse off than without this.
func exclusive(folder string) (release func(), alone bool, err error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, false, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil && err != unix.ENOTSUP && err != unix.EOPNOTSUPP && err != unix.EBADF {
		f.Close()
		return nil, false, &os.PathError{Op: "lock", Path: folder, Err: err}
	}
	return func() { f.Close() }, err == nil, nil
}
