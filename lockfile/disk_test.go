package lockfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWriteAndRead(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "mirror.lock")
	write := func(f File, want bool) {
		t.Helper()
		if changed, err := Write(path, f); err != nil || changed != want {
			t.Fatalf("changed %v, want %v: %v", changed, want, err)
		}
	}
	write(sample(), true)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	write(sample(), false)
	if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("an equal lock was touched: %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	write(sample(), false)

	next := sample().Without("quay.io/app/plain:v1")
	write(next, true)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v: %v", info.Mode(), err)
	}
	if got, err := Read(path); err != nil || len(Diff(got, next)) > 0 {
		t.Errorf("read %v: %v", got, err)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestWriteThroughLinks(t *testing.T) {
	for _, exists := range []bool{true, false} {
		folder := t.TempDir()
		if err := os.Mkdir(filepath.Join(folder, "real"), 0o755); err != nil {
			t.Fatal(err)
		}
		target, path := filepath.Join(folder, "real", "the.lock"), filepath.Join(folder, "mirror.lock")
		if exists {
			if err := os.WriteFile(target, nil, 0o640); err != nil {
				t.Fatal(err)
			}
		}
		for link, to := range map[string]string{path: "hop", filepath.Join(folder, "hop"): "real/the.lock"} {
			if err := os.Symlink(to, link); err != nil {
				t.Fatal(err)
			}
		}
		if changed, err := Write(path, sample()); err != nil || !changed {
			t.Fatal(changed, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link is gone: %v", err)
		}
		if info, err := os.Lstat(target); err != nil || !info.Mode().IsRegular() || exists && info.Mode().Perm() != 0o640 {
			t.Errorf("target: %v %v", info, err)
		}
	}
}

func TestWriteFailureLeavesTheOldLock(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "mirror.lock")
	if _, err := Write(path, sample()); err != nil {
		t.Fatal(err)
	}
	if changed, err := Write(path, File{Images: []Image{{Name: "bad"}}}); err == nil || changed {
		t.Error("a bad lock was written")
	}
	if _, err := Write(folder, sample()); err == nil {
		t.Error("a folder was replaced")
	}
	if _, err := Write(filepath.Join(folder, "none", "mirror.lock"), sample()); err == nil {
		t.Error("a folder that is not there was written to")
	}
	if got, err := Read(path); err != nil || len(Diff(got, sample())) > 0 {
		t.Error(got, err)
	}
	if os.Symlink("loop", filepath.Join(folder, "loop")) == nil {
		if _, err := Write(filepath.Join(folder, "loop"), sample()); err == nil {
			t.Error("a loop of links was written")
		}
	}
}
