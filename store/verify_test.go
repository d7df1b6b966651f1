package store

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// damage changes the file of a digest, which is read-only.
func damage(t *testing.T, s *Store, d digest.Digest, change func([]byte) []byte) {
	t.Helper()
	path := s.blobPath(d)
	b := must[[]byte](t)(os.ReadFile(path))
	if err := errors.Join(os.Remove(path), os.WriteFile(path, change(b), 0o444)); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	c, root := debianImage()
	layer := digest.FromString("arm64 layer")
	cases := map[string]struct {
		problem string
		served  bool
		damage  func(*testing.T, *Store)
	}{
		"truncated": {"truncated", false, func(t *testing.T, s *Store) { damage(t, s, layer, func(b []byte) []byte { return b[:3] }) }},
		"too long":  {"too long", false, func(t *testing.T, s *Store) { damage(t, s, layer, func(b []byte) []byte { return append(b, 0) }) }},
		"flipped bit": {"corrupt", true, func(t *testing.T, s *Store) {
			damage(t, s, layer, func(b []byte) []byte { b[5] ^= 1; return b })
		}},
		"missing": {"missing", false, func(t *testing.T, s *Store) {
			if err := os.Remove(s.blobPath(layer)); err != nil {
				t.Fatal(err)
			}
		}},
		"unreadable": {"unreadable", false, func(t *testing.T, s *Store) {
			if err := errors.Join(os.Remove(s.blobPath(layer)), os.Mkdir(s.blobPath(layer), 0o755)); err != nil {
				t.Fatal(err)
			}
		}},
		"no row": {"not in the index", false, func(t *testing.T, s *Store) {
			if _, err := s.writer.Exec("DELETE FROM blob WHERE digest = ?", layer.String()); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			pin := mustAdd(t, s, c, debian, "bookworm", root.Digest)
			other := newContent()
			o := other.image("linux/amd64", other.layer("other"))
			healthy := mustAdd(t, s, other, debian, "healthy", o.Digest)
			test.damage(t, s)
			for _, pins := range [][]Pin{nil, {pin}, {healthy, pin}} {
				checked := must[Checked](t)(s.Verify(t.Context(), pins, func(int64) {}))
				if len(checked.Damage) != 1 || checked.Damage[0].Digest != layer || !strings.HasPrefix(checked.Damage[0].Problem, test.problem) {
					t.Fatalf("damage is %+v", checked.Damage)
				}
				if hurt := checked.Damage[0].Pins; len(hurt) != 1 || hurt[0].Name() != pin.Name() {
					t.Errorf("it hurts %+v", hurt)
				}
			}
			if checked := must[Checked](t)(s.Verify(t.Context(), []Pin{healthy}, nil)); len(checked.Damage) != 0 {
				t.Errorf("damage of a healthy image: %+v", checked.Damage)
			}
			f, _, err := s.Blob(t.Context(), debian, layer)
			if test.served != (err == nil) || err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("opening it: %v", err)
			}
			if err == nil {
				f.Close()
			}
		})
	}
}

func TestVerifyManifestInIndex(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	if _, err := s.writer.Exec("UPDATE manifest SET bytes = x'7b7d' WHERE digest = ?", root.Digest.String()); err != nil {
		t.Fatal(err)
	}
	checked := must[Checked](t)(s.Verify(t.Context(), nil, nil))
	if len(checked.Damage) != 1 || checked.Damage[0].Problem != "corrupt in the index" {
		t.Errorf("damage is %+v", checked.Damage)
	}
}

// Without its index a store is empty, but what is on disk need not be fetched again.
func TestIndexLost(t *testing.T) {
	dir := t.TempDir()
	s := must[*Store](t)(Open(t.Context(), dir))
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(dir + "/" + indexFile + suffix); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	must[Freed](t)(s.Collect(t.Context(), 0))
	l := newLease(t, s)
	for d, b := range c.blobs {
		if _, err := l.Writer(t.Context(), describe(b)); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", d, err)
		}
	}
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	checkClean(t, s)
}
