package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Event is something that happened to a reference.
type Event struct {
	Repository
	Reference string
	At        time.Time
	Action    string // pin, move or remove
	Digest    digest.Digest
	Note      string // who did it, or why; see WithNote
}

// Name returns the fully qualified name.
func (e Event) Name() string { return Pin{Repository: e.Repository, Reference: e.Reference}.Name() }

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

// History returns the last n events, of all references or of those given, the
// latest first; all if n is negative.
func (s *Store) History(ctx context.Context, n int, of ...Pin) ([]Event, error) {
	where, args := "1", []any{}
	if len(of) > 0 {
		terms := make([]string, len(of))
		for i, pin := range of {
			terms[i] = "registry = ? AND repository = ? AND reference = ?"
			args = append(args, pin.Registry, pin.Path, pin.Reference)
		}
		where = strings.Join(terms, " OR ")
	}
	events, err := list(ctx, s.reader, func(rows *sql.Rows) (e Event, err error) {
		var at int64
		err = rows.Scan(&at, &e.Action, &e.Registry, &e.Path, &e.Reference, &e.Digest, &e.Note)
		e.At = time.Unix(at, 0).UTC()
		return e, err
	}, "SELECT at, action, registry, repository, reference, digest, note FROM history WHERE "+where+" ORDER BY id DESC LIMIT ?", append(args, n)...)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return events, nil
}
