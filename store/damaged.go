package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrDamaged says that the store should have something and has it no more: its
// file is gone, or is not what its digest says. Errors that wrap it wrap
// ErrNotFound too, because damaged content is never handed out.
var ErrDamaged = errors.New("damaged in the store")

// DamagedError is ErrDamaged for a digest. Digest and size are those of the right
// content.
type DamagedError struct {
	v1.Descriptor
	Problem string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is %v: %s", e.Digest, ErrDamaged, e.Problem)
}

// Unwrap makes errors.Is see both errors that it is.
func (e *DamagedError) Unwrap() []error { return []error{ErrNotFound, ErrDamaged} }

// damagedPath is where the file of d is moved when it turns out to be damaged.
func (s *Store) damagedPath(d digest.Digest) string {
	return filepath.Join(s.dir, "damaged", d.Algorithm().String()+"-"+d.Encoded())
}

// setAside takes a file in blobs/ that is not what its name says out of service,
// for all processes: what is missing nobody sends, and sync and verify --repair
// bring it back. The file is kept, because it may be the only copy there is. Only
// the file that was looked at is moved: another process may have repaired it.
//
// A process that may not write to the store remembers the file instead.
func (s *Store) setAside(d digest.Digest, looked fs.FileInfo) error {
	path, aside := s.blobPath(d), s.damagedPath(d)
	err := os.Mkdir(filepath.Dir(aside), 0o755)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = os.Rename(path, aside)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // by somebody else
	}
	if err != nil {
		s.bad.add(d, looked)
		return err
	}
	moved, err := os.Stat(aside)
	if err != nil || os.SameFile(moved, looked) {
		return ignoreMissing(err)
	}
	// A repaired one, unless there is yet another.
	if err := os.Link(aside, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return ignoreMissing(os.Remove(aside))
}

// Forget drops what the index says of damaged content that no published image
// needs: whoever needs it yet, an image that is arriving, fetches it again. It
// returns false and changes nothing if one needs it.
func (s *Store) Forget(ctx context.Context, d digest.Digest) (bool, error) {
	var dropped bool
	err := s.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM blob WHERE digest = ?1
			AND NOT EXISTS (SELECT 1 FROM manifest WHERE digest = ?1)
			AND NOT EXISTS (SELECT 1 FROM edge WHERE child = ?1)`, d.String())
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		dropped = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", d, err)
	}
	return dropped, nil
}

// clearPlace moves away what is where the file of d belongs and is no file, so
// that a file can be put there.
func (s *Store) clearPlace(d digest.Digest) error {
	info, err := os.Stat(s.blobPath(d))
	if err != nil || info.Mode().IsRegular() {
		return ignoreMissing(err)
	}
	return s.setAside(d, info)
}

// dropDamaged removes the damaged files of content that is in the store no more.
func (s *Store) dropDamaged(ctx context.Context) (Freed, error) {
	var freed Freed
	dir := filepath.Join(s.dir, "damaged")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return freed, ignoreMissing(err)
	}
	for _, entry := range entries {
		algorithm, encoded, _ := strings.Cut(entry.Name(), "-")
		d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
		if checkDigest(d) != nil {
			continue // not ours
		}
		if needed, err := s.Has(ctx, d); err != nil {
			return freed, err
		} else if needed {
			continue
		}
		info, err := entry.Info()
		if err == nil {
			err = os.RemoveAll(s.damagedPath(d))
		}
		if err != nil {
			return freed, ignoreMissing(err)
		}
		freed.add(Freed{Blobs: 1, Bytes: info.Size()})
	}
	return freed, nil
}

// badFiles are files that are known to be damaged and could not be moved away.
type badFiles struct {
	mu  sync.Mutex
	all map[digest.Digest]fs.FileInfo
}

func (b *badFiles) add(d digest.Digest, file fs.FileInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[digest.Digest]fs.FileInfo{}
	}
	b.all[d] = file
}

// has reports whether that file of a digest is damaged: one that was put in its
// place, or changed, since is another.
func (b *badFiles) has(d digest.Digest, file fs.FileInfo) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bad, ok := b.all[d]
	return ok && os.SameFile(bad, file) && bad.ModTime().Equal(file.ModTime())
}
