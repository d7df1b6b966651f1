package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Lease protects content that is being fetched from rm and gc in any process:
// between the moment a blob arrives and the moment an image that needs it is
// published, nothing else refers to it. A lease ends with Close, or with the
// process. It is safe for concurrent use.
type Lease struct {
	store *Store
	id    int64
	name  string
	file  *os.File // locked as long as the lease lives

	mu   sync.Mutex
	held map[digest.Digest]bool
}

// NewLease starts a lease.
func (s *Store) NewLease(ctx context.Context) (*Lease, error) {
	if s.writer == nil {
		return nil, fmt.Errorf("lease: %w", errReadOnly)
	}
	l := &Lease{store: s, name: rand.Text(), held: map[digest.Digest]bool{}}
	file, err := lockFile(ctx, s.leasePath(l.name))
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	l.file = file
	err = s.updateSoon(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "INSERT INTO lease (name) VALUES (?)", l.name)
		if err != nil {
			return err
		}
		l.id, err = res.LastInsertId()
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lease: %w", err), l.release())
	}
	s.mu.Lock()
	s.leases[l.id] = l
	s.mu.Unlock()
	return l, nil
}

func (s *Store) leasePath(name string) string { return filepath.Join(s.dir, "leases", name) }

// Hold protects the digests from now on, whether they are in the store or not.
// Ask what is missing after it, never before: what is there when Hold returns,
// stays.
func (l *Lease) Hold(ctx context.Context, digests ...digest.Digest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var fresh []digest.Digest
	for _, d := range digests {
		if err := checkDigest(d); err != nil {
			return err
		}
		if !l.held[d] {
			fresh = append(fresh, d)
		}
	}
	if len(fresh) == 0 {
		if l.id >= 0 {
			return nil
		}
		return checkLease(ctx, l.store.reader, l.id) // anybody may have removed the arrival
	}
	err := l.store.updateSoon(ctx, func(tx *sql.Tx) error {
		if err := checkLease(ctx, tx, l.id); err != nil {
			return err
		}
		stmt, err := tx.PrepareContext(ctx, "INSERT OR IGNORE INTO hold (digest, lease) VALUES (?, ?)")
		if err != nil {
			return err
		}
		defer stmt.Close()
		for _, d := range fresh {
			if _, err := stmt.ExecContext(ctx, d.String(), l.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	for _, d := range fresh {
		l.held[d] = true
	}
	return nil
}

// ErrLeaseEnded is returned when a lease protects nothing any more, for instance
// because the arrival that it is for was removed.
var ErrLeaseEnded = errors.New("the lease has ended")

// checkLease makes sure that a lease, or the arrival that has it, is there.
func checkLease(ctx context.Context, q querier, id int64) error {
	var alive bool
	err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM lease WHERE id = ?1)
		OR EXISTS (SELECT 1 FROM arrival WHERE id = -?1)`, id).Scan(&alive)
	if err == nil && !alive {
		err = ErrLeaseEnded
	}
	return err
}

// Close ends the lease. What it held and no published image needs is left to
// the collector: the next run may want it.
func (l *Lease) Close() error {
	l.store.mu.Lock()
	_, open := l.store.leases[l.id]
	delete(l.store.leases, l.id)
	l.store.mu.Unlock()
	if !open {
		return nil
	}
	// A lease must end also when the command was interrupted, but not make it
	// wait for long: the collector ends what is left.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := l.store.updateSoon(ctx, func(tx *sql.Tx) error { return dropLease(ctx, tx, l.id) })
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, l.release())
}

func (l *Lease) release() error {
	return errors.Join(ignoreMissing(os.Remove(l.file.Name())), l.file.Close())
}

// dropLease hands what the lease held to the collector, except what published
// images have come to need.
func dropLease(ctx context.Context, tx *sql.Tx, id int64) error {
	for _, query := range []string{handOver, "DELETE FROM hold WHERE lease = ?", "DELETE FROM lease WHERE id = ?"} {
		if _, err := tx.ExecContext(ctx, query, id); err != nil {
			return err
		}
	}
	return nil
}

// handOver puts what a lease holds on the collector's list, lease 0. Manifests
// exist only as long as a pin reaches them, so one reference from them is enough
// to be needed.
const handOver = `INSERT OR IGNORE INTO hold (digest, lease)
	SELECT digest, 0 FROM hold AS h WHERE lease = ?
	AND NOT EXISTS (SELECT 1 FROM manifest WHERE digest = h.digest)
	AND NOT EXISTS (SELECT 1 FROM edge WHERE child = h.digest)`

// reapLeases ends the leases of processes that are gone, and removes the files
// of those that died before their lease began.
func (s *Store) reapLeases(ctx context.Context) error {
	type lease struct {
		id   int64
		name string
	}
	all, err := list(ctx, s.reader, func(rows *sql.Rows) (l lease, err error) { return l, rows.Scan(&l.id, &l.name) },
		"SELECT id, name FROM lease")
	if err != nil {
		return err
	}
	for _, l := range all {
		err := ifUnlocked(s.leasePath(l.name), func(*os.File) error {
			return s.updateSoon(ctx, func(tx *sql.Tx) error { return dropLease(ctx, tx, l.id) })
		})
		if err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "leases"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		err := ifUnlocked(s.leasePath(entry.Name()), func(f *os.File) error {
			if f == nil {
				return nil
			}
			var alive bool
			err := s.reader.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM lease WHERE name = ?)", entry.Name()).Scan(&alive)
			if err != nil || alive {
				return err
			}
			return ignoreMissing(os.Remove(f.Name()))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
