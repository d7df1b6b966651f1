package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Freed is what a removal or collection gave back.
type Freed struct {
	Blobs int   // files
	Bytes int64 // their sizes
}

func (f *Freed) add(more Freed) {
	f.Blobs += more.Blobs
	f.Bytes += more.Bytes
}

// Remove drops a pin and whatever only it needed, in one transaction, then the
// files. It costs what the image holds, not what the store holds. It returns
// ErrNotFound if the reference is neither pinned nor arriving. Content that a lease holds stays
// until the collector runs.
func (s *Store) Remove(ctx context.Context, repo Repository, reference string) (Pin, Freed, error) {
	var pin Pin
	var dropped []digest.Digest
	err := s.update(ctx, func(tx *sql.Tx) error {
		var err error
		pin, err = selectPin(ctx, tx, repo, reference)
		if errors.Is(err, ErrNotFound) {
			pin, dropped, err = removeArrival(ctx, tx, repo, reference)
			return errors.Join(err, forgetPin(ctx, tx, repo, reference))
		}
		if err != nil {
			return err
		}
		dropped, err = removePin(ctx, tx, pin)
		return err
	})
	if err != nil {
		return Pin{}, Freed{}, err
	}
	freed, err := s.collectAll(ctx, dropped)
	return pin, freed, err
}

// removePin takes a pin away and returns what was put on the collector's list.
func removePin(ctx context.Context, tx *sql.Tx, pin Pin) ([]digest.Digest, error) {
	if err := forgetPin(ctx, tx, pin.Repository, pin.Reference); err != nil {
		return nil, err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM pin WHERE registry = ? AND repository = ? AND reference = ?", pin.Registry, pin.Path, pin.Reference)
	if err != nil {
		return nil, err
	}
	if err := addHistory(ctx, tx, "remove", pin.Repository, pin.Reference, pin.Digest, time.Now().Unix()); err != nil {
		return nil, err
	}
	return unpublish(ctx, tx, pin.Repository, pin.Digest)
}

// collectAll drops those of the digests that nothing needs.
func (s *Store) collectAll(ctx context.Context, dropped []digest.Digest) (Freed, error) {
	var freed Freed
	for batch := range slices.Chunk(dropped, collectBatch) {
		n, err := s.collect(ctx, batch)
		freed.add(n)
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// unpublish drops the manifests that only d kept, puts their blobs on the
// collector's list and returns them. It must run in the transaction that took
// d's pin in repo away.
func unpublish(ctx context.Context, tx *sql.Tx, repo Repository, d digest.Digest) ([]digest.Digest, error) {
	reach, err := reachable(ctx, tx, d)
	if err != nil {
		return nil, err
	}
	for subject := range reach {
		if err := dropCompanions(ctx, tx, repo, subject); err != nil {
			return nil, err
		}
	}
	needed, err := neededBesides(ctx, tx, reach)
	if err != nil {
		return nil, err
	}
	var dropped []digest.Digest
	for d := range reach {
		if needed[d] {
			continue
		}
		if err := dropManifest(ctx, tx, d); err != nil {
			return nil, err
		}
		dropped = append(dropped, d)
	}
	return dropped, nil
}

// dropManifest takes away what the index knows of a digest, except that there
// is a blob, and puts it on the collector's list.
func dropManifest(ctx context.Context, tx *sql.Tx, d digest.Digest) error {
	for _, query := range []string{
		"DELETE FROM companion WHERE digest = ?", // its subject may stay
		"DELETE FROM manifest WHERE digest = ?",  // and its edges and companions with it
		"INSERT OR IGNORE INTO hold (digest, lease) VALUES (?, 0)",
	} {
		if _, err := tx.ExecContext(ctx, query, d.String()); err != nil {
			return err
		}
	}
	return nil
}

// dropCompanions drops the tags that a repository has for subject if no pin of
// the repository needs it any more; another repository may.
const staleCompanions = `SELECT EXISTS (SELECT 1 FROM companion WHERE subject = ?1 AND registry = ?2 AND repository = ?3)
	AND NOT EXISTS (` + needing + ` SELECT 1 FROM up CROSS JOIN pin ON pin.digest = up.digest WHERE registry = ?2 AND repository = ?3)`

func dropCompanions(ctx context.Context, tx *sql.Tx, repo Repository, subject digest.Digest) error {
	var stale bool
	err := tx.QueryRowContext(ctx, staleCompanions, subject.String(), repo.Registry, repo.Path).Scan(&stale)
	if err != nil || !stale {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM companion WHERE subject = ? AND registry = ? AND repository = ?", subject.String(), repo.Registry, repo.Path)
	return err
}

// neededBesides tells which of the digests something outside them needs, and
// what those need in turn. A manifest outside is needed by definition: only
// what a pin reaches has a row.
func neededBesides(ctx context.Context, tx *sql.Tx, among map[digest.Digest]int64) (map[digest.Digest]bool, error) {
	needed := map[digest.Digest]bool{}
	parents := map[digest.Digest][]digest.Digest{} // parent inside -> children inside
	for d := range among {
		var pinned bool
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pin WHERE digest = ?)", d.String()).Scan(&pinned); err != nil {
			return nil, err
		}
		if pinned {
			needed[d] = true
		}
		outside, err := eachParent(ctx, tx, d, func(parent digest.Digest) bool {
			if _, inside := among[parent]; inside {
				parents[parent] = append(parents[parent], d)
				return true
			}
			return false
		})
		if err != nil {
			return nil, err
		}
		if outside {
			needed[d] = true
		}
	}
	queue := make([]digest.Digest, 0, len(needed))
	for d := range needed {
		queue = append(queue, d)
	}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		for _, child := range parents[d] {
			if !needed[child] {
				needed[child] = true
				queue = append(queue, child)
			}
		}
	}
	return needed, nil
}

// eachParent calls fn with everything that keeps d alive until fn returns
// false, and tells whether it did: a layer that thousands of images share is
// not worth listing once one of them is known to stay.
func eachParent(ctx context.Context, q querier, d digest.Digest, fn func(digest.Digest) bool) (stopped bool, err error) {
	rows, err := q.QueryContext(ctx, `SELECT parent FROM edge WHERE child = ?1
		UNION ALL SELECT subject.digest FROM manifest CROSS JOIN manifest AS subject ON subject.digest = manifest.subject WHERE manifest.digest = ?1
		UNION ALL SELECT subject FROM companion WHERE digest = ?1`, d.String())
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var parent digest.Digest
		if err := rows.Scan(&parent); err != nil {
			return false, err
		}
		if !fn(parent) {
			return true, nil
		}
	}
	return false, rows.Err()
}

// PartialAge is how long an abandoned partial download is kept: long enough
// that tomorrow's sync resumes it.
const PartialAge = 24 * time.Hour

// Collect drops content that nothing needs: what interrupted runs left, what
// was replaced, and partial downloads that nobody has written to for
// partialAge. It is safe while other processes fetch and serve: what a lease
// holds stays, and a file that a client is reading is read to its end.
func (s *Store) Collect(ctx context.Context, partialAge time.Duration) (Freed, error) {
	if s.writer == nil {
		return Freed{}, fmt.Errorf("gc: %w", errReadOnly)
	}
	// First what needs no write to the index: on a full disk it makes the room
	// for the rest.
	freed, err := s.dropPartials(ctx, partialAge)
	if err != nil {
		return freed, fmt.Errorf("gc: %w", err)
	}
	if err := s.reapLeases(ctx); err != nil {
		return freed, fmt.Errorf("gc: %w", err)
	}
	for after := ""; ; {
		batch, err := s.waiting(ctx, after)
		if err != nil {
			return freed, fmt.Errorf("gc: %w", err)
		}
		if len(batch) == 0 {
			n, err := s.dropDamaged(ctx)
			freed.add(n)
			if err != nil {
				err = fmt.Errorf("gc: %w", err)
			}
			return freed, err
		}
		n, err := s.collect(ctx, batch)
		freed.add(n)
		if err != nil {
			return freed, fmt.Errorf("gc: %w", err)
		}
		after = batch[len(batch)-1].String()
	}
}

// collectBatch is how many files are dropped in one transaction.
const collectBatch = 256

// waiting lists what is on the collector's list, lease 0.
func (s *Store) waiting(ctx context.Context, after string) ([]digest.Digest, error) {
	return list(ctx, s.reader, func(rows *sql.Rows) (d digest.Digest, err error) { return d, rows.Scan(&d) },
		"SELECT digest FROM hold WHERE lease = 0 AND digest > ? ORDER BY digest LIMIT ?", after, collectBatch)
}

const deleteUnneeded = `DELETE FROM blob WHERE digest = ?1
	AND NOT EXISTS (SELECT 1 FROM hold WHERE digest = ?1 AND lease <> 0)
	AND NOT EXISTS (SELECT 1 FROM manifest WHERE digest = ?1)
	AND NOT EXISTS (SELECT 1 FROM edge WHERE child = ?1)`

// collect drops those digests on its list that nothing needs and nobody holds.
// Rows go first, then files: what is visible must be there. Both steps are
// write transactions, so nobody can bring a blob back between the look and the
// removal without holding it first. Removing a large file takes long; inside the
// transaction, which makes all others wait, it is only moved out of the way.
func (s *Store) collect(ctx context.Context, batch []digest.Digest) (Freed, error) {
	err := s.update(ctx, func(tx *sql.Tx) error {
		for _, d := range batch {
			if _, err := tx.ExecContext(ctx, deleteUnneeded, d.String()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Freed{}, err
	}
	var moved []string
	err = s.update(ctx, func(tx *sql.Tx) error {
		for _, d := range batch {
			path, err := s.moveOut(ctx, tx, d)
			if err != nil {
				return err
			}
			if path != "" {
				moved = append(moved, path)
			}
		}
		return nil
	})
	var freed Freed
	for _, path := range moved {
		info, statErr := os.Stat(path)
		if statErr == nil {
			statErr = os.Remove(path)
		}
		if statErr == nil {
			freed.add(Freed{Blobs: 1, Bytes: info.Size()})
		}
		err = errors.Join(err, ignoreMissing(statErr))
	}
	return freed, err
}

// removedSuffix marks files in ingest/ that are no partial downloads but on
// their way out.
const removedSuffix = ".removed"

// moveOut moves the file of a digest that has no row and that nobody holds out
// of blobs/, and takes it off the collector's list. A held one stays on the
// list. It returns where the file is now, or "" if none was moved.
func (s *Store) moveOut(ctx context.Context, tx *sql.Tx, d digest.Digest) (string, error) {
	var row, held bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM blob WHERE digest = ?1),
		EXISTS (SELECT 1 FROM hold WHERE digest = ?1 AND lease <> 0)`, d.String()).Scan(&row, &held)
	if err != nil || held {
		return "", err
	}
	var path string
	if !row {
		path = s.ingestPath(d) + removedSuffix
		if err := os.Rename(s.blobPath(d), path); errors.Is(err, fs.ErrNotExist) {
			path = ""
		} else if err != nil {
			return "", err
		}
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM hold WHERE digest = ? AND lease = 0", d.String())
	return path, err
}

// dropPartials removes what collect took out of blobs/, and partial downloads
// that nobody writes and that are older than age.
func (s *Store) dropPartials(ctx context.Context, age time.Duration) (Freed, error) {
	var freed Freed
	dir := filepath.Join(s.dir, "ingest")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return freed, err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		err := ifUnlocked(filepath.Join(dir, entry.Name()), func(f *os.File) error {
			if f == nil {
				return nil
			}
			// Only now: as long as it was not locked, somebody may have gone on with it.
			info, err := f.Stat()
			if err != nil || time.Since(info.ModTime()) < age && !strings.HasSuffix(f.Name(), removedSuffix) {
				return err
			}
			if err := os.Remove(f.Name()); err != nil {
				return ignoreMissing(err)
			}
			freed.add(Freed{Blobs: 1, Bytes: info.Size()})
			return nil
		})
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}
