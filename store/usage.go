package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Usage is how often a reference was asked for by name.
type Usage struct {
	Repository
	Reference string
	Hits      int64
	Last      time.Time
}

// RecordUsage adds hits to what is known of references, and moves their last
// time on. What is neither pinned nor arriving is left out. It is visible at
// once and durable with the next change of a pin: a power loss may forget some.
func (s *Store) RecordUsage(ctx context.Context, used []Usage) error {
	if len(used) == 0 {
		return nil
	}
	err := s.updateSoon(ctx, func(tx *sql.Tx) error {
		record, err := tx.PrepareContext(ctx, `INSERT INTO usage (registry, repository, reference, hits, last_at)
			SELECT ?1, ?2, ?3, ?4, ?5
			WHERE EXISTS (SELECT 1 FROM pin WHERE registry = ?1 AND repository = ?2 AND reference = ?3)
			OR EXISTS (SELECT 1 FROM arrival WHERE registry = ?1 AND repository = ?2 AND reference = ?3)
			ON CONFLICT (registry, repository, reference) DO UPDATE
			SET hits = hits + excluded.hits, last_at = max(last_at, excluded.last_at)`)
		if err != nil {
			return err
		}
		defer record.Close()
		for _, u := range used {
			if _, err := record.ExecContext(ctx, u.Registry, u.Path, u.Reference, u.Hits, u.Last.Unix()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	return nil
}

// StartRecording notes that usage is recorded from now on, if it was not
// already: what has no usage was then not asked for.
func (s *Store) StartRecording(ctx context.Context) error {
	since, err := s.RecordingSince(ctx)
	if err != nil || !since.IsZero() {
		return err
	}
	return s.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO recording (since) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM recording)", time.Now().Unix())
		return err
	})
}

// RecordingSince returns since when usage is recorded; zero if nobody did.
func (s *Store) RecordingSince(ctx context.Context) (time.Time, error) {
	var since int64
	err := s.reader.QueryRowContext(ctx, "SELECT since FROM recording").Scan(&since)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("usage: %w", err)
	}
	return time.Unix(since, 0).UTC(), nil
}

// Standing is what an upstream said of a pinned reference when it was asked.
type Standing struct {
	Repository
	Reference string
	At        time.Time     // zero if nobody has asked
	State     string        // a word of whoever asked
	Now       digest.Digest // what the reference means upstream; "" for nothing
}

// RecordStandings replaces what is known of references. What is not pinned is
// left out.
func (s *Store) RecordStandings(ctx context.Context, all []Standing) error {
	if len(all) == 0 {
		return nil
	}
	err := s.updateSoon(ctx, func(tx *sql.Tx) error {
		for _, one := range all {
			_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO standing (registry, repository, reference, at, state, now)
				SELECT ?1, ?2, ?3, ?4, ?5, ?6
				WHERE EXISTS (SELECT 1 FROM pin WHERE registry = ?1 AND repository = ?2 AND reference = ?3)`,
				one.Registry, one.Path, one.Reference, one.At.Unix(), one.State, one.Now.String())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("standings: %w", err)
	}
	return nil
}

// forgetPin drops what is known of a reference beside its pin. What an upstream
// said of it is about the digest that it had.
func forgetPin(ctx context.Context, tx *sql.Tx, repo Repository, reference string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM usage WHERE registry = ? AND repository = ? AND reference = ?`, repo.Registry, repo.Path, reference)
	return errors.Join(err, forgetStanding(ctx, tx, repo, reference))
}

func forgetStanding(ctx context.Context, tx *sql.Tx, repo Repository, reference string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM standing WHERE registry = ? AND repository = ? AND reference = ?`, repo.Registry, repo.Path, reference)
	return err
}
