package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Idle is a pin, and since when nobody has asked for it by name: since it was
// pinned if nobody ever did.
type Idle struct {
	Repository
	Reference string
	Digest    digest.Digest
	Size      int64
	Since     time.Time
}

// Name returns the fully qualified name.
func (i Idle) Name() string { return i.pin().Name() }

func (i Idle) pin() Pin {
	return Pin{Repository: i.Repository, Reference: i.Reference, Digest: i.Digest, Size: i.Size}
}

const selectIdle = `SELECT registry, repository, reference, digest, size, max(pinned_at, coalesce(last_at, 0)) AS since
	FROM pin LEFT JOIN usage USING (registry, repository, reference)`

// Idle lists all pins, what was not asked for longest first.
func (s *Store) Idle(ctx context.Context) ([]Idle, error) {
	all, err := scanIdle(ctx, s.reader, selectIdle+" ORDER BY since, registry, repository, reference")
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	return all, nil
}

func scanIdle(ctx context.Context, q querier, query string, args ...any) ([]Idle, error) {
	return list(ctx, q, func(rows *sql.Rows) (i Idle, err error) {
		var since int64
		err = rows.Scan(&i.Registry, &i.Path, &i.Reference, &i.Digest, &i.Size, &since)
		i.Since = time.Unix(since, 0).UTC()
		return i, err
	}, query, args...)
}

// errUndo ends a transaction that was only to see what would happen.
var errUndo = errors.New("undo")

// Prune removes pins one after the other, as Remove does, as long as next wants
// it, which is told what all before have freed. Pins that have moved or were
// asked for since they were listed stay. It returns what was removed.
//
// With dry it changes nothing and returns what would happen. That holds off
// those who write to the store meanwhile.
func (s *Store) Prune(ctx context.Context, pins []Idle, next func(Idle, Freed) bool, dry bool) (removed []Idle, freed Freed, err error) {
	one := func(tx *sql.Tx, i Idle) ([]digest.Digest, error) {
		now, err := scanIdle(ctx, tx, selectIdle+" WHERE registry = ? AND repository = ? AND reference = ?", i.Registry, i.Path, i.Reference)
		if err != nil || len(now) == 0 || now[0].Digest != i.Digest || now[0].Since.After(i.Since) {
			return nil, err
		}
		removed = append(removed, i)
		return removePin(ctx, tx, i.pin())
	}
	if dry {
		err := s.update(ctx, func(tx *sql.Tx) error {
			for _, i := range pins {
				if !next(i, freed) {
					break
				}
				dropped, err := one(tx, i)
				if err != nil {
					return err
				}
				n, err := wouldFree(ctx, tx, dropped)
				if err != nil {
					return err
				}
				freed.add(n)
			}
			return errUndo
		})
		if !errors.Is(err, errUndo) {
			return nil, Freed{}, err
		}
		return removed, freed, nil
	}
	for _, i := range pins {
		if !next(i, freed) {
			break
		}
		var dropped []digest.Digest
		err := s.update(ctx, func(tx *sql.Tx) (err error) {
			dropped, err = one(tx, i)
			return err
		})
		if err == nil {
			var n Freed
			n, err = s.collectAll(ctx, dropped)
			freed.add(n)
		}
		if err != nil {
			return removed, freed, fmt.Errorf("%s: %w", i.Name(), err)
		}
	}
	return removed, freed, nil
}

// wouldFree drops rows as collect does, in a transaction that will be undone.
func wouldFree(ctx context.Context, tx *sql.Tx, dropped []digest.Digest) (Freed, error) {
	var freed Freed
	for _, d := range dropped {
		var size int64
		err := tx.QueryRowContext(ctx, deleteUnneeded+" RETURNING size", d.String()).Scan(&size)
		switch {
		case err == nil:
			freed.add(Freed{Blobs: 1, Bytes: size})
		case !errors.Is(err, sql.ErrNoRows):
			return freed, err
		}
	}
	return freed, nil
}
