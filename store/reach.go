package store

import (
	"context"
	"database/sql"

	"github.com/opencontainers/go-digest"
)

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// reachable returns what d reaches, itself included, with the size of each
// blob in bytes: children, referrers and companions, theirs too. What claims to
// refer to something that is no manifest refers to nothing.
func reachable(ctx context.Context, q querier, d digest.Digest) (map[digest.Digest]int64, error) {
	// Three recursive terms, not one over a union: each finds its rows by index.
	reach := map[digest.Digest]int64{}
	_, err := list(ctx, q, func(rows *sql.Rows) (none struct{}, err error) {
		var d digest.Digest
		var size int64
		err = rows.Scan(&d, &size)
		reach[d] = size
		return none, err
	}, `WITH RECURSIVE reach (digest) AS (
			SELECT ?
			UNION SELECT edge.child FROM reach CROSS JOIN edge ON edge.parent = reach.digest
			UNION SELECT referrer.digest FROM reach CROSS JOIN manifest ON manifest.digest = reach.digest
				CROSS JOIN manifest AS referrer ON referrer.subject = manifest.digest
			UNION SELECT companion.digest FROM reach CROSS JOIN companion ON companion.subject = reach.digest
		) SELECT reach.digest, blob.size FROM reach CROSS JOIN blob ON blob.digest = reach.digest`, d.String())
	return reach, err
}

// imageSize is the size in bytes of what an image consists of over all
// platforms, each blob once. Referrers, foreign layers and the signatures of
// schema 1 do not count, so that it depends on the digest alone.
func imageSize(ctx context.Context, q querier, d digest.Digest) (int64, error) {
	var size int64
	err := q.QueryRowContext(ctx, `WITH RECURSIVE part (digest, size) AS (
			SELECT digest, size FROM blob WHERE digest = ?
			UNION SELECT edge.child, edge.size FROM part CROSS JOIN edge ON edge.parent = part.digest
				WHERE edge.kind <> 'foreign' AND NOT (edge.kind = 'blob' AND edge.media_type = '`+MediaTypeSchema1Signed+`')
		) SELECT sum(size) FROM part`, d.String()).Scan(&size)
	return size, err
}

// needing begins a query; its table up has the digest in parameter 1 and all
// that needs it: the reverse of reachable.
const needing = `WITH RECURSIVE up (digest) AS (
		SELECT ?1
		UNION SELECT edge.parent FROM up CROSS JOIN edge ON edge.child = up.digest
		UNION SELECT subject.digest FROM up CROSS JOIN manifest ON manifest.digest = up.digest
			CROSS JOIN manifest AS subject ON subject.digest = manifest.subject
		UNION SELECT companion.subject FROM up CROSS JOIN companion ON companion.digest = up.digest
	)`
