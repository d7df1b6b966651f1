package store

import (
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestOrphans drops files that the index does not know, and nothing else.
func TestOrphans(t *testing.T) {
	s := open(t, t.TempDir())
	lease, err := s.NewLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	orphan, held := digest.FromString("orphan"), digest.FromString("held")
	for d, content := range map[digest.Digest]string{orphan: "orphan", held: "held"} {
		if err := os.MkdirAll(s.dir+"/blobs/sha256", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.blobPath(d), []byte(content), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	stranger := s.dir + "/blobs/sha256/README"
	if err := os.WriteFile(stranger, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := lease.Hold(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.Collect(t.Context(), time.Hour); err != nil || freed.Blobs != 0 {
		t.Fatalf("without being asked: freed %v, %v", freed, err)
	}
	if err := s.FindOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	freed, err := s.Collect(t.Context(), time.Hour)
	if err != nil || freed != (Freed{Blobs: 1, Bytes: 6}) {
		t.Errorf("freed %v, %v", freed, err)
	}
	for path, want := range map[string]bool{s.blobPath(orphan): false, s.blobPath(held): true, stranger: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", path, err == nil, want)
		}
	}
}
