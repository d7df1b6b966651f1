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
		damage  func(*testing.T, *Store)
	}{
		"truncated": {"truncated", func(t *testing.T, s *Store) { damage(t, s, layer, func(b []byte) []byte { return b[:3] }) }},
		"too long":  {"too long", func(t *testing.T, s *Store) { damage(t, s, layer, func(b []byte) []byte { return append(b, 0) }) }},
		"flipped bit": {"corrupt", func(t *testing.T, s *Store) {
			damage(t, s, layer, func(b []byte) []byte { b[5] ^= 1; return b })
		}},
		"missing": {"missing", func(t *testing.T, s *Store) {
			if err := os.Remove(s.blobPath(layer)); err != nil {
				t.Fatal(err)
			}
		}},
		"unreadable": {"unreadable", func(t *testing.T, s *Store) {
			if err := errors.Join(os.Remove(s.blobPath(layer)), os.Mkdir(s.blobPath(layer), 0o755)); err != nil {
				t.Fatal(err)
			}
		}},
		"no row": {"not in the index", func(t *testing.T, s *Store) {
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
			problem := test.problem
			for _, pins := range [][]Pin{nil, {pin}, {healthy, pin}} {
				checked := must[Checked](t)(s.Verify(t.Context(), pins, func(int64) {}))
				if len(checked.Damage) != 1 || checked.Damage[0].Digest != layer || !strings.HasPrefix(checked.Damage[0].Problem, problem) {
					t.Fatalf("damage is %+v", checked.Damage)
				}
				if problem != "not in the index" {
					problem = "missing" // it was taken out of service
				}
				if hurt := checked.Damage[0].Pins; len(hurt) != 1 || hurt[0].Name() != pin.Name() {
					t.Errorf("it hurts %+v", hurt)
				}
			}
			if checked := must[Checked](t)(s.Verify(t.Context(), []Pin{healthy}, nil)); len(checked.Damage) != 0 {
				t.Errorf("damage of a healthy image: %+v", checked.Damage)
			}
			if _, _, err := s.Blob(t.Context(), debian, layer); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) == (name == "no row") {
				t.Errorf("opening it: %v", err)
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
	_, openErr := Open(t.Context(), dir)
	_, readErr := OpenReadOnly(t.Context(), dir)
	_, existingErr := OpenExisting(t.Context(), dir)
	for _, err := range []error{openErr, readErr, existingErr} {
		if !errors.Is(err, ErrIndexLost) {
			t.Errorf("opened without an index: %v", err)
		}
	}
	s = must[*Store](t)(Recreate(t.Context(), dir))
	defer s.Close()
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
