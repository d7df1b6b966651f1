package store

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// recorder notes the queries that are asked of a database.
type recorder struct {
	querier
	mu      sync.Mutex
	queries map[string][]any
}

func (r *recorder) note(query string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queries[query] = args
}

func (r *recorder) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	r.note(query, args)
	return r.querier.QueryContext(ctx, query, args...)
}

func (r *recorder) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	r.note(query, args)
	return r.querier.QueryRowContext(ctx, query, args...)
}

// What is done for one image must cost what the image holds: no query may read
// a whole table.
func TestQueryPlans(t *testing.T) {
	s := newStore(t)
	fill(t, s, 50)
	for _, analyzed := range []bool{false, true} { // some people run ANALYZE
		if analyzed {
			if _, err := s.writer.Exec("ANALYZE"); err != nil {
				t.Fatal(err)
			}
		}
		d := must[Pin](t)(s.Pin(t.Context(), debian, "v1")).Digest
		r := &recorder{querier: s.reader, queries: map[string][]any{}}
		_, err1 := reachable(t.Context(), r, d)
		_, err2 := imageSize(t.Context(), r, d)
		_, err3 := selectPin(t.Context(), r, debian, "v1")
		_, err4 := selectPins(t.Context(), r, "WHERE pin.digest IN ("+needing+" SELECT digest FROM up)", d.String())
		_, err5 := eachParent(t.Context(), r, d, func(digest.Digest) bool { return true })
		for _, err := range []error{err1, err2, err3, err4, err5} {
			if err != nil {
				t.Fatal(err)
			}
		}
		r.note(staleCompanions, []any{d.String(), "docker.io", "library/debian"})
		r.note(deleteUnneeded, []any{d.String()})
		r.note(handOver, []any{1})
		r.note(selectRegistries, nil)
		r.note(selectRepositories, []any{"docker.io", "library/a", 10})
		if len(r.queries) < 9 {
			t.Fatalf("%d queries", len(r.queries))
		}
		scan := regexp.MustCompile(`SCAN (edge|manifest|companion|blob|hold|pin|subject|referrer|h)\b`)
		for query, args := range r.queries {
			if plan := explain(t, s, query, args); scan.MatchString(plan) {
				t.Errorf("%s\nreads a whole table:\n%s", query, plan)
			}
		}
	}
}

func explain(t *testing.T, s *Store, query string, args []any) string {
	t.Helper()
	rows, err := s.reader.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan.WriteString("  " + detail + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}

// fill pins n images of two platforms that share a base layer.
func fill(t testing.TB, s *Store, n int) {
	t.Helper()
	l := newLease(t, s)
	for i := range n {
		c := numbered(i)
		root := c.manifests[len(c.manifests)-1].Digest
		if err := c.put(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Publish(t.Context(), c.at(debian, fmt.Sprintf("v%d", i), root), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func numbered(i int) *content {
	c := newContent()
	base := c.layer("base")
	c.index(c.image("linux/amd64", base, c.layer(fmt.Sprintf("amd64 %d", i))), c.image("linux/arm64", base, c.layer(fmt.Sprintf("arm64 %d", i))))
	return c
}
