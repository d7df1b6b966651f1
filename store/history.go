package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Event is something that happened to a reference.
type Event struct {
	At     time.Time
	Action string // pin, move or remove
	Digest digest.Digest
	Note   string // who did it, or why; see WithNote
}

// noteKey is the key of a note in a context.
type noteKey struct{}

// WithNote returns a context whose changes of pins are noted in the history as
// done by, or because of, note: "rm", "removed on the page by alice".
func WithNote(ctx context.Context, note string) context.Context {
	return context.WithValue(ctx, noteKey{}, note)
}

func addHistory(ctx context.Context, tx *sql.Tx, action string, repo Repository, reference string, d digest.Digest, at int64) error {
	note, _ := ctx.Value(noteKey{}).(string)
	_, err := tx.ExecContext(ctx, `INSERT INTO history (at, action, registry, repository, reference, digest, note) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		at, action, repo.Registry, repo.Path, reference, d.String(), note)
	return err
}

// History returns what happened to a reference, the latest first, at most n.
func (s *Store) History(ctx context.Context, repo Repository, reference string, n int) ([]Event, error) {
	events, err := list(ctx, s.reader, func(rows *sql.Rows) (e Event, err error) {
		var at int64
		err = rows.Scan(&at, &e.Action, &e.Digest, &e.Note)
		e.At = time.Unix(at, 0).UTC()
		return e, err
	}, `SELECT at, action, digest, note FROM history WHERE registry = ? AND repository = ? AND reference = ? ORDER BY id DESC LIMIT ?`,
		repo.Registry, repo.Path, reference, n)
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", Pin{Repository: repo, Reference: reference}.Name(), err)
	}
	return events, nil
}
