package store

import (
	"context"
	_ "crypto/sha256" // go-digest finds its algorithms by their registration
	_ "crypto/sha512"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	dir    string
	reader readPool
	writer *sql.DB // nil when the store was opened read-only
	hasty  *sql.DB // writes that a power loss may undo: see updateSoon
	turn   chan struct{}

	commits commitQueue
	version versioned
	bad     badFiles

	mu     sync.Mutex
	leases map[int64]*Lease
}

// Open opens the store in dir for reading and writing and creates it if there
// is none. It migrates an older store; one that was made by a newer mirrorctl is
// refused with ErrNewer and not touched, and a folder of blobs without an index
// with ErrIndexLost.
func Open(ctx context.Context, dir string) (*Store, error) {
	return openStore(ctx, dir, false)
}

// Recreate is Open, but makes an empty index where it was lost. What is pinned is
// then forgotten, and the blobs are not: they are hashed and taken into the index
// when they are wanted, and neither rm nor gc looks at them before.
func Recreate(ctx context.Context, dir string) (*Store, error) {
	return openStore(ctx, dir, true)
}

func openStore(ctx context.Context, dir string, recreate bool) (*Store, error) {
	version, err := headerVersion(dir)
	if err != nil {
		return nil, err
	}
	if err := makeDirs(dir); err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	const params = "_txlock=immediate&_journal_mode=WAL&_foreign_keys=1&_busy_timeout=30000&_synchronous="
	writer, err := openDB(dir, params+"FULL", 1)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	hasty, err := openDB(dir, params+"NORMAL", 1)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", dir, err), writer.Close())
	}
	s := &Store{dir: dir, writer: writer, hasty: hasty, turn: make(chan struct{}, 1), leases: map[int64]*Lease{}}
	s.commits.store = s
	if version == schemaVersion() {
		// Nothing to do, and so nobody to wait for: another process may have the
		// lock of the index for as long as it likes.
		if err = s.makeFolders(); err == nil {
			err = explained(writer.PingContext(ctx))
		}
	} else {
		err = s.create(ctx, recreate)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", dir, s.cannotOpen(err)), s.Close())
	}
	if err := s.openReader(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenExisting is Open, but returns ErrNoStore where there is none.
func OpenExisting(ctx context.Context, dir string) (*Store, error) {
	if err := mustExist(dir); err != nil {
		return nil, err
	}
	return Open(ctx, dir)
}

func mustExist(dir string) error {
	_, err := os.Stat(filepath.Join(dir, indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = noIndex(dir)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", dir, err)
	}
	return nil
}

// OpenReadOnly opens the store in dir for reading. It returns ErrNoStore where
// there is none, ErrIndexLost where only its blobs are left, and ErrNewer for one that a newer mirrorctl made. Pins and
// removals by other processes are seen at once.
func OpenReadOnly(ctx context.Context, dir string) (*Store, error) {
	if err := mustExist(dir); err != nil {
		return nil, err
	}
	if _, err := headerVersion(dir); err != nil {
		return nil, err
	}
	s := &Store{dir: dir}
	if err := s.openReader(); err != nil {
		return nil, err
	}
	var version int
	if err := s.reader.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, errors.Join(s.explainUnreadable(err), s.Close())
	}
	if version == 0 { // another process is about to create it, or died doing so
		return nil, errors.Join(fmt.Errorf("store %s: %w", dir, noIndex(dir)), s.Close())
	}
	if version != schemaVersion() {
		err := fmt.Errorf("store %s: its index has schema %d, this mirrorctl needs %d: run a command that writes to it, for instance mirrorctl gc", dir, version, schemaVersion())
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) openReader() error {
	reader, err := openDB(s.dir, "mode=ro&_query_only=1&_busy_timeout=30000", 1+max(4, 2*runtime.NumCPU())) // one stays with Version
	if err != nil {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	s.reader = readPool{reader}
	return nil
}

// explainUnreadable adds what SQLite does not say: a process that may not write
// to the folder needs the files beside the index, which it cannot create.
func (s *Store) explainUnreadable(err error) error {
	if full := s.cannotOpen(err); IsFull(full) {
		return fmt.Errorf("store %s: %w", s.dir, full)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, statErr := os.Stat(filepath.Join(s.dir, indexFile+suffix)); errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("store %s: %w: %s is missing and cannot be created: run mirrorctl gc as a user who may write to the store", s.dir, err, indexFile+suffix)
		}
	}
	return fmt.Errorf("store %s: %w", s.dir, err)
}

// Close releases the store. Leases that are still open are closed.
func (s *Store) Close() error {
	s.mu.Lock()
	open := make([]*Lease, 0, len(s.leases))
	for _, l := range s.leases {
		open = append(open, l)
	}
	s.mu.Unlock()
	var errs []error
	for _, l := range open {
		errs = append(errs, l.Close())
	}
	s.version.mu.Lock()
	s.version.close()
	s.version.mu.Unlock()
	for _, db := range []*sql.DB{s.reader.DB, s.hasty, s.writer} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Dir returns the folder of the store.
func (s *Store) Dir() string { return s.dir }

// update runs fn in one write transaction, which is durable when it returns. The
// transaction is immediate: it waits its turn at the start and can then not fail
// with "database is locked".
func (s *Store) update(ctx context.Context, fn func(*sql.Tx) error) error {
	return s.transact(ctx, s.writer, fn)
}

// updateSoon is update without an fsync: visible at once, also to other
// processes, and durable with the next update. It is for what may be lost with
// the power and nothing is wrong: that a blob is there (its file is, and will be
// adopted), and who holds what.
func (s *Store) updateSoon(ctx context.Context, fn func(*sql.Tx) error) error {
	return s.transact(ctx, s.hasty, fn)
}

func (s *Store) transact(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) (err error) {
	if db == nil {
		return errReadOnly
	}
	// SQLite has one writer. A queue inside the process is fairer than its
	// busy handler, which is for other processes.
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if IsReadOnly(err) {
			// A connection that was made while the file system was read-only stays
			// so. It is closed, and the next transaction has a new one.
			db.SetMaxIdleConns(0)
			db.SetMaxIdleConns(1)
		}
	}()
	began := time.Now()
	tx, err := begin(ctx, db)
	if err != nil {
		return s.locked(explained(err), began)
	}
	if err := fn(tx); err != nil {
		return errors.Join(explained(err), ignoreDone(tx.Rollback()))
	}
	return explained(tx.Commit())
}

// errReadOnly is what changing a store that was opened read-only ends in.
var errReadOnly = errors.New("store is open read-only")

// begin starts a write transaction. Waiting for another process's transaction
// happens inside SQLite, which does not hear of contexts; so that an interrupt
// need not wait too, it is left to itself. The transaction ends with ctx also
// when nobody takes it.
func begin(ctx context.Context, db *sql.DB) (*sql.Tx, error) {
	type begun struct {
		tx  *sql.Tx
		err error
	}
	done := make(chan begun, 1)
	go func() {
		tx, err := db.BeginTx(ctx, nil)
		done <- begun{tx, err}
	}()
	select {
	case b := <-done:
		return b.tx, b.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ignoreDone drops the error of rolling back a transaction that has ended by
// itself, as it does when its context ends.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// checkDigest accepts the algorithms that the image specification registers.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", string(d), err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("digest %s: %w", d, digest.ErrDigestUnsupported)
	}
	return nil
}

// blobPath is where the content of d is, or would be. d must be valid: it is
// what keeps a digest from outside from becoming any other path.
func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func (s *Store) ingestPath(d digest.Digest) string {
	return filepath.Join(s.dir, "ingest", d.Algorithm().String()+"-"+d.Encoded())
}
