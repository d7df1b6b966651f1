package store

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const indexFile = "index.db"

//go:embed schema/*.sql
var schemaFiles embed.FS

// migrations returns the schema steps in order; the n-th brings the index to
// user_version n+1.
func migrations() []string {
	names, err := fs.Glob(schemaFiles, "schema/*.sql") // sorted by name
	if err != nil {
		panic(err) // the pattern is constant
	}
	steps := make([]string, len(names))
	for i, name := range names {
		text, err := schemaFiles.ReadFile(name)
		if err != nil {
			panic(err) // embedded
		}
		steps[i] = string(text)
	}
	return steps
}

func schemaVersion() int { return len(migrations()) }

// create makes the folders and the index, or brings the index up to date. The
// lock file makes one process do it while others wait: switching a new database
// to WAL is not covered by SQLite's busy handler, and nobody may put a file into
// a folder that is not durable.
func (s *Store) create(ctx context.Context, recreate bool) error {
	path := filepath.Join(s.dir, "lock")
	limited, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	lock, err := lockFile(limited, path)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%s has been %w for %v: %s", path, ErrLocked, createTimeout, holder(path, 0))
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if !recreate {
		// Looked at before SQLite makes a file of its own.
		info, err := os.Stat(filepath.Join(s.dir, indexFile))
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
			if err = noIndex(s.dir); errors.Is(err, ErrNoStore) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	if err := s.makeFolders(); err != nil {
		return err
	}
	return s.migrate(ctx, recreate)
}

// createTimeout is how long to wait for another process that creates or migrates
// the index.
const createTimeout = time.Minute

func (s *Store) makeFolders() error {
	for _, sub := range []string{"blobs/sha256", "blobs/sha512", "ingest", "leases"} {
		if err := makeDirs(filepath.Join(s.dir, filepath.FromSlash(sub))); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) migrate(ctx context.Context, recreate bool) error {
	var version int
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return fmt.Errorf("%s: %w", indexFile, err)
		}
		steps := migrations()
		if version > len(steps) {
			return newerError(version)
		}
		if version == 0 && !recreate {
			if err := noIndex(s.dir); !errors.Is(err, ErrNoStore) {
				return err
			}
		}
		for i, step := range steps[version:] {
			if _, err := tx.ExecContext(ctx, step); err != nil {
				return fmt.Errorf("schema step %d: %w", version+i+1, err)
			}
		}
		if version == len(steps) {
			return nil
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(steps)))
		return err
	})
	if err != nil || version == schemaVersion() {
		return err
	}
	// headerVersion of an older mirrorctl reads the header, not the WAL.
	_, err = s.writer.ExecContext(ctx, "PRAGMA wal_checkpoint")
	return explained(err)
}

// makeDirs creates a folder and those above it that are missing, durably.
func makeDirs(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func newerError(version int) error {
	return fmt.Errorf("%w (schema %d, this one knows %d): upgrade mirrorctl", ErrNewer, version, schemaVersion())
}

// headerVersion reads the schema version in the header of the index without
// opening it as a database, because even that would write: SQLite keeps the
// user version in bytes 60 to 63 (https://sqlite.org/fileformat2.html#the_database_header).
// It is 0 where there is no index yet, and ErrNewer for one of a newer mirrorctl.
func headerVersion(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("store %s: %w", dir, err)
	}
	defer f.Close()
	var header [64]byte
	n, err := io.ReadFull(f, header[:])
	if n == 0 && errors.Is(err, io.EOF) {
		return 0, nil // created a moment ago by another process, or lost
	}
	if err != nil || !bytes.HasPrefix(header[:], []byte("SQLite format 3\x00")) {
		return 0, fmt.Errorf("store %s: %w: it is not a mirrorctl index", dir, ErrIndexDamaged)
	}
	version := int(binary.BigEndian.Uint32(header[60:]))
	if version > schemaVersion() {
		return 0, fmt.Errorf("store %s: %w", dir, newerError(version))
	}
	return version, nil
}
