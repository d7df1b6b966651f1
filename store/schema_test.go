package store

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestRefusesNewer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := must[*Store](t)(Open(t.Context(), dir))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f := must[*os.File](t)(os.OpenFile(filepath.Join(dir, indexFile), os.O_RDWR, 0))
	_, err := f.WriteAt(binary.BigEndian.AppendUint32(nil, uint32(schemaVersion()+1)), 60)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	before := onDisk(t, dir)
	_, openErr := Open(t.Context(), dir)
	_, readErr := OpenReadOnly(t.Context(), dir)
	if !errors.Is(openErr, ErrNewer) || !errors.Is(readErr, ErrNewer) {
		t.Errorf("opened a newer store: %v, %v", openErr, readErr)
	}
	if !maps.Equal(before, onDisk(t, dir)) {
		t.Error("a newer store was touched")
	}
}

func TestRefusesOtherFiles(t *testing.T) {
	for name, text := range map[string]string{"text": "this is no database, whatever its name says; and it is long enough", "short": "x"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, indexFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, openErr := Open(t.Context(), dir)
		_, readErr := OpenReadOnly(t.Context(), dir)
		if openErr == nil || readErr == nil || !errors.Is(openErr, ErrIndexDamaged) {
			t.Errorf("%s: %v, %v", name, openErr, readErr)
		}
		if files := onDisk(t, dir); len(files) != 1 {
			t.Errorf("%s: the folder was touched: %v", name, files)
		}
	}
}

func TestOpenReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c%25d#e;&=é")
	if _, err := OpenReadOnly(t.Context(), dir); !errors.Is(err, ErrNoStore) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("reading made a folder")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(t.Context(), dir); !errors.Is(err, ErrNoStore) {
		t.Errorf("empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, indexFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(t.Context(), dir); !errors.Is(err, ErrNoStore) {
		t.Errorf("a store that is being created: %v", err)
	}

	s := open(t, dir)
	open(t, dir) // twice in one process
	ro := must[*Store](t)(OpenReadOnly(t.Context(), dir))
	defer ro.Close()
	if ro.Dir() != dir {
		t.Errorf("dir is %q", ro.Dir())
	}

	// What another handle does is seen at once.
	c, root := debianImage()
	for range 20 {
		mustAdd(t, s, c, debian, "bookworm", root.Digest)
		if m, err := ro.Manifest(t.Context(), debian, "bookworm"); err != nil || m.Digest != root.Digest {
			t.Fatalf("a pin is not seen: %v", err)
		}
		r, _, err := ro.Blob(t.Context(), debian, root.Digest)
		if err != nil {
			t.Fatalf("a blob is not seen: %v", err)
		}
		r.Close()
		if _, _, err := s.Remove(t.Context(), debian, "bookworm"); err != nil {
			t.Fatal(err)
		}
		if _, err := ro.Manifest(t.Context(), debian, "bookworm"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("a removal is not seen: %v", err)
		}
	}

	_, leaseErr := ro.NewLease(t.Context())
	_, _, removeErr := ro.Remove(t.Context(), debian, "bookworm")
	_, collectErr := ro.Collect(t.Context(), 0)
	_, pinErr := ro.PinPublished(t.Context(), debian, "x", root.Digest, false)
	if leaseErr == nil || removeErr == nil || pinErr == nil || collectErr == nil {
		t.Errorf("a read-only store was written to: %v, %v, %v, %v", leaseErr, removeErr, collectErr, pinErr)
	}
}

// An index of any older schema is brought up to date, and keeps what it has.
func TestMigrates(t *testing.T) {
	for version, steps := range migrations() {
		dir := t.TempDir()
		if err := makeDirs(dir); err != nil {
			t.Fatal(err)
		}
		db := must[*sql.DB](t)(openDB(dir, "_journal_mode=WAL", 1))
		for i := range version {
			must[sql.Result](t)(db.Exec(migrations()[i]))
			must[sql.Result](t)(db.Exec(fmt.Sprintf("PRAGMA user_version = %d", i+1)))
		}
		if version > 0 {
			must[sql.Result](t)(db.Exec("INSERT INTO history (at, action, registry, repository, reference, digest) VALUES (1, 'remove', 'a', 'b', 'c', 'd')"))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		c, root := debianImage()
		mustAdd(t, s, c, debian, "bookworm", root.Digest)
		checkClean(t, s)
		if v := count(t, s, "PRAGMA user_version"); v != schemaVersion() {
			t.Errorf("from %d: user_version is %d after %q", version, v, steps[:20])
		}
		if n := count(t, s, "SELECT count(*) FROM history WHERE at = 1"); version > 0 && n != 1 {
			t.Errorf("from %d: its history is lost", version)
		}
	}
}

func TestCreatedByManyProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if out, err := child(t, "open", dir).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	group.Wait()
	checkClean(t, open(t, dir))
}
