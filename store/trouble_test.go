package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// closedStore is a store on disk that nobody has open, with an image.
func closedStore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := must[*Store](t)(Open(t.Context(), dir))
	c, root := debianImage()
	mustAdd(t, s, c, debian, "12", root.Digest)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// use opens a store in both ways and does what commands do.
func use(t *testing.T, dir string) error {
	look := func(s *Store) error {
		checked, err := s.Verify(t.Context(), nil, nil)
		if err == nil && len(checked.Damage) > 0 {
			err = fmt.Errorf("%s: %w: %s", checked.Damage[0].Digest, ErrDamaged, checked.Damage[0].Problem)
		}
		if err != nil {
			return err
		}
		pin, err := s.Pin(t.Context(), debian, "12")
		if err != nil {
			return err
		}
		if _, err := s.Pins(t.Context()); err != nil {
			return err
		}
		_, err = s.Manifest(t.Context(), debian, pin.Digest.String())
		return err
	}
	ro, err := OpenReadOnly(t.Context(), dir)
	if err != nil {
		return err
	}
	if err := errors.Join(look(ro), ro.Close()); err != nil {
		return err
	}
	s, err := Open(t.Context(), dir)
	if err != nil {
		return err
	}
	l, err := s.NewLease(t.Context())
	if err == nil {
		err = errors.Join(l.Close(), look(s))
	}
	return errors.Join(err, s.Close())
}

// An index that was cut off is never read as if it were whole, nor taken for a new
// one, and the error says what it is.
func TestIndexTruncated(t *testing.T) {
	dir := closedStore(t)
	path := filepath.Join(dir, indexFile)
	whole := must[[]byte](t)(os.ReadFile(path))
	for _, size := range []int{0, 1, 15, 63, 64, 100, 4095, 4096, 8192, len(whole) / 2, len(whole) - 4096} {
		if err := os.WriteFile(path, whole[:size], 0o644); err != nil {
			t.Fatal(err)
		}
		err := use(t, dir)
		want := ErrIndexDamaged
		if size == 0 {
			want = ErrIndexLost
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), indexFile) {
			t.Errorf("cut to %d of %d bytes: %v", size, len(whole), err)
		}
	}
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := use(t, dir); err != nil {
		t.Error(err)
	}
}

// rows are those of all tables.
func rows(t *testing.T, dir string) map[string]string {
	t.Helper()
	s := must[*Store](t)(OpenReadOnly(t.Context(), dir))
	defer s.Close()
	all := map[string]string{}
	for _, table := range []string{"blob", "manifest", "edge", "pin", "companion", "history", "lease", "hold", "arrival"} {
		columns := must[[]string](t)(list(t.Context(), s.reader, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) },
			"SELECT 'hex(' || name || ')' FROM pragma_table_info(?)", table))
		found := must[[]string](t)(list(t.Context(), s.reader, func(rows *sql.Rows) (row string, err error) { return row, rows.Scan(&row) },
			"SELECT "+strings.Join(columns, " || ' ' || ")+" FROM "+table))
		all[table] = strings.Join(found, "\n")
	}
	return all
}

// Whatever bit of an index flips, nothing panics, no pin vanishes without a word, and
// what comes out is what went in, except where nothing says it a second time.
func TestIndexCorrupt(t *testing.T) {
	dir := closedStore(t)
	path := filepath.Join(dir, indexFile)
	whole := must[[]byte](t)(os.ReadFile(path))
	before := rows(t, dir)
	r := rand.New(rand.NewPCG(3, 4))
	counts := map[string]int{}
	for range 60 {
		broken := bytes.Clone(whole)
		at := 100 + r.IntN(len(whole)-100)
		if broken[at] == 0 { // mostly free space
			at = 100 + bytes.IndexFunc(whole[100:], func(r rune) bool { return r != 0 }) + r.IntN(4000)
		}
		broken[at] ^= 1 << r.IntN(8)
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := ignoreMissing(os.Remove(path + suffix)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		switch err := use(t, dir); {
		case err == nil:
			what := "without effect"
			for table, text := range rows(t, dir) {
				if text != before[table] {
					what = "unnoticed in " + table
				}
			}
			counts[what]++
		case errors.Is(err, ErrIndexDamaged):
			counts["index damaged"]++
		case errors.Is(err, ErrDamaged):
			counts["content damaged"]++
		case errors.Is(err, ErrNotFound):
			counts["a pin is not found"]++
		default:
			counts["other"]++
			t.Logf("byte %d: %v", at, err)
		}
	}
	t.Log(counts)
	if counts["a pin is not found"] > 0 {
		t.Error("pins vanished without a word")
	}
	for _, table := range []string{"blob", "pin", "companion"} {
		if n := counts["unnoticed in "+table]; n > 0 {
			t.Errorf("%d changes of table %s are not noticed", n, table)
		}
	}
}

// A process that stopped with the lock of writers keeps no reader waiting, opening
// the store neither, and who has to wait for it hears who it is.
func TestLockedMessage(t *testing.T) {
	s := newStore(t)
	other := open(t, s.dir)
	tx, err := other.writer.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	third := open(t, s.dir)
	if _, err := third.Pins(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := third.hasty.Exec("PRAGMA busy_timeout = 100"); err != nil {
		t.Fatal(err)
	}
	_, err = third.NewLease(t.Context())
	if err == nil || !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), indexFile) {
		t.Errorf("locked: %v", err)
	}
	if _, statErr := os.Stat("/proc/locks"); statErr == nil && !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("it does not say who: %v", err)
	}
}

func TestExplained(t *testing.T) {
	for text, want := range map[string]error{
		"database disk image is malformed":         ErrIndexDamaged,
		"file is not a database":                   ErrIndexDamaged,
		"database or disk is full":                 syscall.ENOSPC,
		"disk I/O error: no space left on device":  syscall.ENOSPC,
		"malformed database schema (pin): orphans": ErrIndexDamaged,
	} {
		plain := errors.New(text)
		if err := explained(plain); !errors.Is(err, want) || !errors.Is(err, plain) || explained(err) != err {
			t.Errorf("%s: %v", text, err)
		}
	}
	if explained(nil) != nil || explained(ErrNotFound) != ErrNotFound {
		t.Error("an error of another kind was changed")
	}
}
