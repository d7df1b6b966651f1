package lockfile

import (
	"fmt"
	"os"
	"path/filepath"
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
