package upstream

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// tmpfs mounts a small file system for a test.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skip("no mounts here:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A full disk, or one that takes no more files, is trouble that passes: clients
// are told to come back, nothing wrong is answered, and with room all goes on.
func TestPullThroughFullDisk(t *testing.T) {
	for what, resource := range map[string]struct{ full, room string }{
		"bytes": {"size=3m", "size=64m"},
		"files": {"", "size=64m,nr_inodes=1000"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFake(t)
			dir := tmpfs(t, resource.room)
			st, err := store.Open(t.Context(), filepath.Join(dir, "store"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = st.Close() })
			remount := func(options string) error { return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, options) }
			filler := filepath.Join(dir, "filler")
			if what == "bytes" {
				if err := remount(resource.full); err != nil {
					t.Fatal(err)
				}
				_ = os.WriteFile(filler, bytes.Repeat([]byte("x"), 4<<20), 0o644) // as much as there is room for
			} else {
				if err := os.Mkdir(filler, 0o755); err != nil {
					t.Fatal(err)
				}
				for i := 0; i < 2000; i++ { // until there are no more
					if os.WriteFile(filepath.Join(filler, digest.FromString(string(rune(i))).Encoded()), nil, 0o644) != nil {
						break
					}
				}
			}
			image, layer := f.simple(100_000, "1")
			p := newPullThrough(t, newClient(t, st, f))
			for range 3 {
				if m, err := p.Manifest(t.Context(), app, "1"); err == nil {
					if digest.FromBytes(m.Bytes) != image.Digest {
						t.Errorf("a wrong manifest: %s", m.Bytes)
					}
				} else if !errors.As(err, new(unavailable)) {
					t.Errorf("manifest: %v", err)
				}
				if b, err := readBlob(t.Context(), p, layer.Digest, 0); err == nil {
					if digest.FromBytes(b) != layer.Digest {
						t.Error("a wrong blob")
					}
				} else if !errors.As(err, new(unavailable)) && !errors.Is(err, store.ErrBroken) && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("blob: %v", err)
				}
			}
			if err := os.RemoveAll(filler); err != nil {
				t.Fatal(err)
			}
			if err := remount(resource.room); err != nil {
				t.Fatal(err)
			}
			if m := readManifest(t, p, "1"); m.Digest != image.Digest {
				t.Errorf("with room: %s", m.Bytes)
			}
			if b, err := readBlob(t.Context(), p, layer.Digest, 0); err != nil || digest.FromBytes(b) != layer.Digest {
				t.Errorf("with room: %d bytes, %v", len(b), err)
			}
			checked, err := st.Verify(t.Context(), nil, nil)
			if err != nil || len(checked.Damage) > 0 {
				t.Errorf("verify: %+v, %v", checked.Damage, err)
			}
		})
	}
}
