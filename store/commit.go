package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
)

// commit is one blob whose file is verified and durable but not yet visible.
type commit struct {
	digest digest.Digest
	size   int64
	from   string // to be renamed from here; "" if it is in place
}

// commitQueue makes blobs visible in groups. While one group waits for the
// disk (one fsync per folder, one for the index), the next one gathers, so many
// small blobs cost few fsyncs and a single blob never waits for company.
type commitQueue struct {
	store *Store

	mu      sync.Mutex
	pending []*waiting
	busy    bool
}

type waiting struct {
	commit
	err  error
	done chan error
}

// commit returns when the blob is visible, or with the error that kept it from it.
func (q *commitQueue) commit(ctx context.Context, c commit) error {
	w := &waiting{commit: c, done: make(chan error, 1)}
	q.mu.Lock()
	q.pending = append(q.pending, w)
	lead := !q.busy
	q.busy = true
	q.mu.Unlock()
	if lead {
		go q.run(context.WithoutCancel(ctx)) // others wait for this too
	}
	return <-w.done
}

// run commits group after group until nobody waits.
func (q *commitQueue) run(ctx context.Context) {
	for {
		q.mu.Lock()
		group := q.pending
		q.pending = nil
		if len(group) == 0 {
			q.busy = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		q.store.commitGroup(ctx, group)
		for _, w := range group {
			w.done <- w.err
		}
	}
}

// commitGroup renames the files, makes the names durable, then inserts the
// rows, and leaves in each member what became of it.
func (s *Store) commitGroup(ctx context.Context, group []*waiting) {
	folders := map[string]error{}
	for _, w := range group {
		path := s.blobPath(w.digest)
		folders[filepath.Dir(path)] = nil
		if w.from != "" {
			w.err = os.Rename(w.from, path)
		}
		// Not before the rename: a partial download that cannot be written to
		// any more could not be resumed after a crash.
		if w.err == nil {
			w.err = os.Chmod(path, 0o444)
		}
	}
	for dir := range folders {
		folders[dir] = syncDir(dir)
	}
	for _, w := range group {
		w.err = errors.Join(w.err, folders[filepath.Dir(s.blobPath(w.digest))])
	}
	err := s.updateSoon(ctx, func(tx *sql.Tx) error {
		for _, w := range group {
			if w.err != nil {
				continue
			}
			if err := s.insertBlob(ctx, tx, w); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, w := range group {
			w.err = errors.Join(w.err, err)
		}
	}
}

// insertBlob adds the row of a blob whose file is in its place. What is held by
// nobody any more, because the arrival that it is for was removed, may have been
// collected since the rename; the collector moves files in transactions, so one
// that is there now stays. Otherwise it is left to the next collection.
func (s *Store) insertBlob(ctx context.Context, tx *sql.Tx, w *waiting) error {
	if _, err := os.Stat(s.blobPath(w.digest)); errors.Is(err, fs.ErrNotExist) {
		w.err = fmt.Errorf("it was removed as it arrived: %w", ErrLeaseEnded)
		return nil
	} else if err != nil {
		return err
	}
	for _, query := range []string{
		"INSERT OR IGNORE INTO blob (digest, size) VALUES (?1, ?2)",
		`INSERT OR IGNORE INTO hold (digest, lease) SELECT ?1, 0
			WHERE NOT EXISTS (SELECT 1 FROM hold WHERE digest = ?1)
			AND NOT EXISTS (SELECT 1 FROM manifest WHERE digest = ?1)
			AND NOT EXISTS (SELECT 1 FROM edge WHERE child = ?1)`,
	} {
		if _, err := tx.ExecContext(ctx, query, w.digest.String(), w.size); err != nil {
			return err
		}
	}
	return nil
}
