package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// openDB opens the index. The pragmas stand in the DSN because one that is set
// with Exec reaches only one connection of the pool.
func openDB(dir, params string, conns int) (*sql.DB, error) {
	abs, err := filepath.Abs(filepath.Join(dir, indexFile))
	if err != nil {
		return nil, err
	}
	// Preparing a statement takes longer than most of them run; a connection
	// keeps those that it has seen.
	const keep = "_stmt_cache_size=64&"
	dsn := "file:" + (&url.URL{Path: filepath.ToSlash(abs)}).EscapedPath() + "?" + keep + params
	db := sql.OpenDB(connector{dsn})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// readPool are connections that read. For a context that can end, database/sql
// and the driver start a goroutine each, which costs more than to look up a row;
// so once a query of one row has begun, it ends.
type readPool struct{ *sql.DB }

func (p readPool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx)
	}
	return p.DB.QueryRowContext(ctx, query, args...)
}

// connector opens connections that leave the WAL and its index (-wal and -shm)
// on the disk when the last one is closed, empty. Without these files a process
// that may not create them, another user or one on a read-only mount, could not
// read the store.
type connector struct{ dsn string }

func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.dsn)
	if err != nil {
		return nil, explained(err)
	}
	const persistWAL = 10 // SQLITE_FCNTL_PERSIST_WAL, which the driver names only when built with cgo
	if file, ok := conn.(interface{ SetFileControlInt(string, int, int) error }); ok {
		err = file.SetFileControlInt("main", persistWAL, 1)
	}
	if exec, ok := conn.(driver.ExecerContext); ok && err == nil {
		_, err = exec.ExecContext(ctx, "PRAGMA journal_size_limit = 67108864", nil)
	}
	if err != nil {
		return nil, errors.Join(explained(err), conn.Close())
	}
	if queryer, ok := conn.(driver.QueryerContext); ok && strings.Contains(c.dsn, "mode=ro") {
		return readConn{conn, queryer}, nil
	}
	return conn, nil
}

// readConn asks again when a query fails for want of write access. That happens
// by chance to a process which may only read: it looks at the WAL's index while
// another process changes it, and takes that for a crash that it would have to
// recover from (SQLITE_READONLY_RECOVERY).
type readConn struct {
	driver.Conn
	queryer driver.QueryerContext
}

func (c readConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	for wait := time.Millisecond; ; wait *= 2 {
		rows, err := c.queryer.QueryContext(ctx, query, args)
		if err == nil {
			// The index is not looked at before the first row.
			first := make([]driver.Value, len(rows.Columns()))
			if err = rows.Next(first); err == nil || errors.Is(err, io.EOF) {
				return &readRows{rows, first, err, false}, nil
			}
			rows.Close()
		}
		// The driver has no name for it when built without cgo.
		if wait > time.Second || !strings.Contains(err.Error(), "attempt to write a readonly database") {
			return nil, explained(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// readRows are rows of which the first has been read.
type readRows struct {
	driver.Rows
	first []driver.Value
	err   error
	given bool
}

func (r *readRows) Next(row []driver.Value) error {
	if r.given {
		return explained(r.Rows.Next(row))
	}
	r.given = true
	copy(row, r.first)
	return r.err
}
