package upstream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// What is on the disk without the index knowing it, after a crash or because the
// index was lost, is not asked for again: manifests count with Docker Hub.
func TestAdoptsManifests(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	image, _ := f.simple(100_000)
	f.index([]v1.Descriptor{platform(image, "amd64")}, "1")
	fetch := func() {
		st, err := store.Recreate(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		mustFetch(t, newClient(t, st, f), "1")
		checkStored(t, st, f)
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fetch()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, "index.db"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	f.asked()
	fetch()
	for _, request := range f.asked() {
		if strings.HasPrefix(request, "GET ") && (strings.Contains(request, "blobs/") || strings.Contains(request, "manifests/sha256:")) {
			t.Errorf("%s, which is on the disk", request)
		}
	}
}
