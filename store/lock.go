package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// lockPoll is how often a lock that another process has is tried again. Polling
// lets a wait end with its context, which a blocking flock cannot.
const lockPoll = 20 * time.Millisecond

// lockFile opens the file at path, creating it if needed, and waits for its
// lock. The lock is on the file that stands at path when it returns: the holder
// before may have renamed or removed the one that was opened. Closing the file
// releases the lock.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	return lockFileAfter(ctx, path, nil)
}

// lockFileAfter is lockFile. It calls busy, once, if somebody else has the lock.
func lockFileAfter(ctx context.Context, path string, busy func()) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if err == nil && ok {
			if ok, err = stillAt(f, path); err == nil && ok {
				return f, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		if busy != nil {
			busy()
			busy = nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func stillAt(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, there), err
}

// ifUnlocked calls fn with the file at path if nobody has its lock, and holds
// the lock meanwhile; with nil if there is no file.
func ifUnlocked(path string, fn func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fn(nil)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	ok, err := tryLock(f)
	if err == nil && ok {
		ok, err = stillAt(f, path)
	}
	if err != nil || !ok {
		return err
	}
	return fn(f)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
