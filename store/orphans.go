package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

// FindOrphans puts the files in blobs/ that the index does not know on the list
// of the next Collect. It reads all names, and is for what no list can know:
// what was renamed just before the power went, or before the index was lost.
// They may be the only copies of something, so that nobody calls it unasked.
func (s *Store) FindOrphans(ctx context.Context) error {
	if s.writer == nil {
		return errReadOnly
	}
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		entries, err := os.ReadDir(filepath.Join(s.dir, "blobs", algorithm.String()))
		if ignoreMissing(err) != nil {
			return fmt.Errorf("orphans: %w", err)
		}
		for batch := range slices.Chunk(entries, collectBatch) {
			err := s.update(ctx, func(tx *sql.Tx) error {
				for _, entry := range batch {
					d := digest.NewDigestFromEncoded(algorithm, entry.Name())
					if checkDigest(d) != nil {
						continue // not ours
					}
					_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO hold (digest, lease)
						SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM blob WHERE digest = ?1)`, d.String())
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("orphans: %w", err)
			}
		}
	}
	return nil
}
