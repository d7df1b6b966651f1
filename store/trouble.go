package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// The troubles of an index.
var (
	// ErrIndexLost says that the folder has blobs, but no index that tells what
	// they are. Recreate makes an empty one, and blobs are taken into it as they
	// are wanted.
	ErrIndexLost = errors.New(indexFile + " is gone, but the blobs are here")
	// ErrIndexDamaged says that the index is not, or not everywhere, what SQLite
	// wrote.
	ErrIndexDamaged = errors.New(indexFile + " is damaged")
	// ErrLocked says that another process has not let go of the store for long.
	ErrLocked = errors.New("locked by another process")
)

// explained adds to an error of SQLite what it means for a store. It goes by the
// text: the driver has no types for its errors when it is built without cgo.
func explained(err error) error {
	if err == nil || errors.Is(err, ErrIndexDamaged) || errors.Is(err, syscall.ENOSPC) {
		return err
	}
	text := err.Error()
	for _, known := range []struct {
		text string
		is   error
	}{
		{"database disk image is malformed", ErrIndexDamaged},
		{"file is not a database", ErrIndexDamaged},
		{"malformed database schema", ErrIndexDamaged},
		{"no such column: ", ErrIndexDamaged}, // which the schema has
		{"no such table: ", ErrIndexDamaged},
		{"foreign key mismatch", ErrIndexDamaged},
		{"database or disk is full", syscall.ENOSPC},
		{syscall.ENOSPC.Error(), syscall.ENOSPC},
	} {
		if strings.Contains(text, known.text) {
			return fmt.Errorf("%w (%w)", known.is, err)
		}
	}
	return err
}

// checkIndex returns ErrIndexDamaged if the parts of the index contradict each
// other.
func (s *Store) checkIndex(ctx context.Context) error {
	text := func(rows *sql.Rows) (found string, err error) { return found, rows.Scan(&found) }
	found, err := list(ctx, s.reader, text, "PRAGMA integrity_check(1)")
	if err == nil && len(found) == 1 && found[0] == "ok" {
		found, err = list(ctx, s.reader, text, `SELECT "table" || ' leads to nothing in ' || parent FROM pragma_foreign_key_check LIMIT 1`)
	}
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%w (%s)", ErrIndexDamaged, found[0])
	}
	return err
}

// cannotOpen finds out why SQLite could not open the index or a file beside it.
// SQLite does not tell: where it cannot create a file it tries to read it, and
// says that there is none.
func (s *Store) cannotOpen(err error) error {
	if !strings.Contains(err.Error(), "unable to open database file") {
		return err
	}
	probe, createErr := os.CreateTemp(s.dir, ".probe-")
	if createErr != nil {
		return fmt.Errorf("%s: %w", indexFile, createErr)
	}
	return errors.Join(err, probe.Close(), os.Remove(probe.Name()))
}

// IsFull reports whether an error means that the disk has no room: for bytes,
// for files, or for a user's share of it.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		err != nil && strings.Contains(err.Error(), "database or disk is full")
}

// IsReadOnly reports whether an error means that the store's file system takes no
// writes, or none of this user.
func IsReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) ||
		err != nil && strings.Contains(err.Error(), "attempt to write a readonly database")
}

// locked names the process that kept others from writing to the index.
func (s *Store) locked(err error, since time.Time) error {
	if err == nil || !strings.Contains(err.Error(), "database is locked") {
		return err
	}
	// In WAL mode the lock of writers is byte 120 of the WAL's index
	// (https://sqlite.org/walformat.html#locks).
	who := holder(filepath.Join(s.dir, indexFile+"-shm"), 120)
	return fmt.Errorf("%s has been %w for %v: %s", indexFile, ErrLocked, time.Since(since).Round(time.Second), who)
}

// hasBlobs reports whether there is content in a store's folder.
func hasBlobs(dir string) (bool, error) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		f, err := os.Open(filepath.Join(dir, "blobs", algorithm.String()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		names, _ := f.Readdirnames(1) // an error is the end of the folder
		f.Close()
		if len(names) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// noIndex is ErrNoStore, or ErrIndexLost where there are blobs.
func noIndex(dir string) error {
	there, err := hasBlobs(dir)
	if err == nil && there {
		err = ErrIndexLost
	} else if err == nil {
		err = ErrNoStore
	}
	return err
}
