package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
)

// versioned asks SQLite whether the index changed. The answer is one of a
// connection, which therefore stays the same.
type versioned struct {
	mu   sync.Mutex
	conn *sql.Conn
	ask  *sql.Stmt
	lost int64 // connections
}

// Version returns a number that is another one after every change of the index,
// by whatever process: it tells that what was read before still holds. It costs
// some microseconds and reads nothing.
func (s *Store) Version(ctx context.Context) (int64, error) {
	v := &s.version
	v.mu.Lock()
	defer v.mu.Unlock()
	version, err := v.read(ctx, s.reader.DB)
	if err != nil {
		v.close()
		return 0, fmt.Errorf("store %s: %w", s.dir, err)
	}
	return version, nil
}

func (v *versioned) read(ctx context.Context, db *sql.DB) (int64, error) {
	// A context that can end costs a goroutine for each query.
	ctx = context.WithoutCancel(ctx)
	if v.ask == nil {
		var err error
		if v.conn, err = db.Conn(ctx); err != nil {
			return 0, err
		}
		if v.ask, err = v.conn.PrepareContext(ctx, "PRAGMA data_version"); err != nil {
			return 0, err
		}
	}
	var version int64
	err := v.ask.QueryRowContext(ctx).Scan(&version)
	return v.lost<<32 + version, err
}

// close gives the connection up. The next one counts from another number.
func (v *versioned) close() {
	if v.ask != nil {
		_ = v.ask.Close() // it only read
	}
	if v.conn != nil {
		_ = v.conn.Close()
	}
	v.ask, v.conn = nil, nil
	v.lost++
}
