package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Order is how pins are listed.
type Order string

// The orders of a listing.
const (
	ByName   Order = "name"
	BySize   Order = "size"   // the largest first
	ByPinned Order = "pinned" // the latest first
	ByUsed   Order = "used"   // what was asked for last first
	ByHits   Order = "hits"   // what was asked for most first
)

// A Query says which pins to list.
type Query struct {
	Search string // words that all are in the name, whatever their case, or begin the digest
	State  string // only those of which upstreams said this; "" is all
	Order  Order  // "" is ByName
	Offset int
	Limit  int
}

// Listed is a pin with what is known of it besides.
type Listed struct {
	Pin
	Usage    Usage
	Standing Standing
}

// maxWords limits a search, and so the length of the query that it becomes.
const maxWords = 8

// List returns a part of the pins that a query asks for, and how many there are
// in all. It costs what the pins hold that are returned, and a look at the names
// of all.
func (s *Store) List(ctx context.Context, q Query) (pins []Listed, total int, err error) {
	where, args := q.where()
	err = s.reader.QueryRowContext(ctx, `SELECT count(*) FROM pin LEFT JOIN standing USING (registry, repository, reference) WHERE `+where, args...).Scan(&total)
	if err != nil {
		return nil, 0, fmt.Errorf("list: %w", err)
	}
	pins, err = s.listed(ctx, where+` ORDER BY `+q.order()+`registry, repository, reference LIMIT ? OFFSET ?`, append(args, q.Limit, q.Offset)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list: %w", err)
	}
	return pins, total, nil
}

// ListOne returns a pin as List does, or ErrNotFound.
func (s *Store) ListOne(ctx context.Context, repo Repository, reference string) (Listed, error) {
	pins, err := s.listed(ctx, "registry = ? AND repository = ? AND reference = ?", repo.Registry, repo.Path, reference)
	if err == nil && len(pins) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Listed{}, fmt.Errorf("%s: %w", Pin{Repository: repo, Reference: reference}.Name(), err)
	}
	return pins[0], nil
}

func (s *Store) listed(ctx context.Context, where string, args ...any) ([]Listed, error) {
	pins, err := list(ctx, s.reader, func(rows *sql.Rows) (l Listed, err error) {
		var at int64
		var hits, last, asked sql.NullInt64
		var state, now sql.NullString
		err = rows.Scan(&l.Registry, &l.Path, &l.Reference, &l.Digest, &l.MediaType, &l.Size, &at, &hits, &last, &asked, &state, &now)
		l.PinnedAt = time.Unix(at, 0).UTC()
		l.Usage = Usage{Repository: l.Repository, Reference: l.Reference, Hits: hits.Int64}
		if last.Valid {
			l.Usage.Last = time.Unix(last.Int64, 0).UTC()
		}
		l.Standing = Standing{Repository: l.Repository, Reference: l.Reference, State: state.String}
		if asked.Valid {
			l.Standing.At = time.Unix(asked.Int64, 0).UTC()
		}
		l.Standing.Now = digest.Digest(now.String)
		return l, err
	}, `SELECT registry, repository, reference, pin.digest, media_type, pin.size, pinned_at, hits, last_at, at, state, now
		FROM pin JOIN manifest ON manifest.digest = pin.digest
		LEFT JOIN usage USING (registry, repository, reference)
		LEFT JOIN standing USING (registry, repository, reference)
		WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	for i := range pins {
		p := &pins[i]
		offers, err := selectOffers(ctx, s.reader, "WHERE registry = ? AND repository = ? AND reference = ?", p.Registry, p.Path, p.Reference)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name(), err)
		}
		p.Platforms = offers.platforms(p.Digest)
	}
	return pins, nil
}

func (q Query) where() (string, []any) {
	terms, args := []string{"1"}, []any{}
	words := strings.Fields(q.Search)
	for _, word := range words[:min(len(words), maxWords)] {
		word = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(word)
		terms = append(terms, `(registry || '/' || repository || iif(instr(reference, ':'), '@', ':') || reference LIKE ? ESCAPE '\'
			OR pin.digest LIKE ? ESCAPE '\' OR pin.digest LIKE ? ESCAPE '\')`)
		args = append(args, "%"+word+"%", word+"%", "sha256:"+word+"%")
	}
	if q.State != "" {
		terms, args = append(terms, "state = ?"), append(args, q.State)
	}
	return strings.Join(terms, " AND "), args
}

func (q Query) order() string {
	switch q.Order {
	case BySize:
		return "pin.size DESC, "
	case ByPinned:
		return "pinned_at DESC, "
	case ByUsed:
		return "last_at DESC, "
	case ByHits:
		return "hits DESC, "
	default:
		return ""
	}
}

// States counts the pins by what upstreams said of them; nobody asked for "".
func (s *Store) States(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	_, err := list(ctx, s.reader, func(rows *sql.Rows) (none struct{}, err error) {
		var state string
		var n int
		err = rows.Scan(&state, &n)
		counts[state] = n
		return none, err
	}, `SELECT coalesce(state, ''), count(*) FROM pin LEFT JOIN standing USING (registry, repository, reference) GROUP BY 1`)
	if err != nil {
		return nil, fmt.Errorf("states: %w", err)
	}
	return counts, nil
}

// Totals are what a store has.
type Totals struct {
	Pins  int
	Blobs int   // manifests too
	Bytes int64 // of complete blobs
}

// Totals counts what the store has. It looks at every blob's row: a quarter of a
// second for a million.
func (s *Store) Totals(ctx context.Context) (Totals, error) {
	var t Totals
	err := s.reader.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM pin), count(*), coalesce(sum(size), 0) FROM blob`).Scan(&t.Pins, &t.Blobs, &t.Bytes)
	if err != nil {
		return Totals{}, fmt.Errorf("totals: %w", err)
	}
	return t, nil
}
