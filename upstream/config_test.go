package upstream

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// A configuration is read as far as the store is sure of it, also a large one.
func TestStoredConfig(t *testing.T) {
	ctx := context.Background()
	f := newFake(t)
	dir := t.TempDir()
	st, err := store.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	linux := v1.Platform{OS: "linux", Architecture: "amd64"}
	large := []byte(`{"os":"linux","architecture":"amd64","config":{"Labels":{"a":"` + strings.Repeat("x", 5<<20) + `"},"OnBuild":["RUN x"]}}`)
	config := f.blob(large)
	root := f.manifest(v1.MediaTypeImageManifest, v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{f.blob([]byte("l"))}}, "1")
	mustFetch(t, newClient(t, st, f), "1")
	if got, err := StoredConfig(ctx, st, root.Digest, linux); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("%d bytes: %v", len(got), err)
	}
	path := filepath.Join(dir, "blobs", "sha256", config.Digest.Encoded())
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(large, []byte("OnBuild"), []byte("OnXuild"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := StoredConfig(ctx, st, root.Digest, linux); !errors.Is(err, store.ErrDamaged) || got != nil {
		t.Errorf("damaged: %d bytes: %v", len(got), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := StoredConfig(ctx, st, root.Digest, linux); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
}

func TestConfigTooLarge(t *testing.T) {
	ctx := context.Background()
	f, st := newFake(t), newStore(t)
	config := f.blob(bytes.Repeat([]byte(" "), maxConfig+1))
	root := f.manifest(v1.MediaTypeImageManifest, v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{}}, "1")
	c := newClient(t, st, f)
	if _, err := c.Config(ctx, named(t, "example.test/team/app:1"), v1.Platform{OS: "linux", Architecture: "amd64"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("upstream: %v", err)
	}
	mustFetch(t, c, "1")
	if _, err := StoredConfig(ctx, st, root.Digest, v1.Platform{OS: "linux", Architecture: "amd64"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("stored: %v", err)
	}
}
