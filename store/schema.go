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
func (s *Store) create(ctx context.Context) error {
	lock, err := lockFile(ctx, filepath.Join(s.dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, sub := range []string{"blobs/sha256", "blobs/sha512", "ingest", "leases"} {
		if err := makeDirs(filepath.Join(s.dir, filepath.FromSlash(sub))); err != nil {
			return err
		}
	}
	return s.migrate(ctx)
}

func (s *Store) migrate(ctx context.Context) error {
	var version int
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return fmt.Errorf("%s: %w", indexFile, err)
		}
		steps := migrations()
		if version > len(steps) {
			return newerError(version)
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
	// refuseNewer of an older mirrorctl reads the header, not the WAL.
	_, err = s.writer.ExecContext(ctx, "PRAGMA wal_checkpoint")
	return err
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

// refuseNewer looks at the schema version in the header of the index without
// opening it as a database, because even that would write: SQLite keeps the
// user version in bytes 60 to 63 (https://sqlite.org/fileformat2.html#the_database_header).
func refuseNewer(dir string) error {
	f, err := os.Open(filepath.Join(dir, indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", dir, err)
	}
	defer f.Close()
	var header [64]byte
	n, err := io.ReadFull(f, header[:])
	if n == 0 && errors.Is(err, io.EOF) {
		return nil // created a moment ago by another process
	}
	if err != nil || !bytes.HasPrefix(header[:], []byte("SQLite format 3\x00")) {
		return fmt.Errorf("store %s: %s is not a mirrorctl index", dir, indexFile)
	}
	if v := int(binary.BigEndian.Uint32(header[60:])); v > schemaVersion() {
		return fmt.Errorf("store %s: %w", dir, newerError(v))
	}
	return nil
}
