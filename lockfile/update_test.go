package lockfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// TestUpdateTogether lets many writers add an entry each: all must be there.
func TestUpdateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), DefaultName)
	var wg sync.WaitGroup
	const writers = 20
	for i := range writers {
		wg.Go(func() {
			if _, err := Update(path, func(f File) File { return f.With(image(fmt.Sprintf("a:%d", i), "a")) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Images) != writers {
		t.Errorf("%d entries, want %d", len(f.Images), writers)
	}
}

func TestUpdateCreatesNothingForNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), DefaultName)
	changed, err := Update(path, func(f File) File { return f })
	if changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty lock was written")
	}
}

// A process that was killed as it wrote leaves its temporary file, which would
// stand in git's status for ever.
func TestUpdateTidiesUp(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "mirror.lock")
	for _, name := range []string{".mirror.lock.3w5e11264sgsf.tmp", ".other.lock.3w5e11264sgsf.tmp", ".mirror.lock.tmp", "mirror.lock.3w5e11264sgsf.tmp"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("a part"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Update(path, func(File) File { return sample() }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{".mirror.lock.tmp", ".other.lock.3w5e11264sgsf.tmp", "mirror.lock", "mirror.lock.3w5e11264sgsf.tmp"}; !slices.Equal(names, want) {
		t.Errorf("there are %q, want %q", names, want)
	}
}
