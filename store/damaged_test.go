package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A thousand flipped bits, each in a blob or a place of its own, are all found,
// with the images that they hurt, and nothing else is.
func TestVerifyFindsFlippedBits(t *testing.T) {
	const images, layers, rounds = 2, 8, 50
	s := newStore(t)
	r := rand.New(rand.NewPCG(1, 2))
	hurt := map[digest.Digest][]string{} // by blob
	for i := range images {
		c := newContent()
		var all []v1.Descriptor
		for range layers {
			all = append(all, c.layer(string(noise(1+r.IntN(40_000)))))
		}
		tag := fmt.Sprint("tag", i)
		pin := mustAdd(t, s, c, debian, tag, c.image(fmt.Sprintf("linux/amd64:%d", i), all...).Digest)
		for d := range must[map[digest.Digest]int64](t)(reachable(t.Context(), s.reader, pin.Digest)) {
			hurt[d] = append(hurt[d], pin.Name())
		}
	}
	if len(hurt) != images*(layers+2) {
		t.Fatalf("%d blobs", len(hurt))
	}
	flipped, found := 0, 0
	for range rounds {
		before := map[digest.Digest][]byte{}
		for d := range hurt {
			before[d] = must[[]byte](t)(os.ReadFile(s.blobPath(d)))
			damage(t, s, d, func(b []byte) []byte {
				b = bytes.Clone(b)
				bit := r.IntN(8 * len(b))
				b[bit/8] ^= 1 << (bit % 8)
				return b
			})
			flipped++
		}
		for _, d := range must[Checked](t)(s.Verify(t.Context(), nil, nil)).Damage {
			var names []string
			for _, pin := range d.Pins {
				names = append(names, pin.Name())
			}
			if d.Problem != "corrupt" || !slices.Equal(names, hurt[d.Digest]) {
				t.Errorf("%s is %s and hurts %q, want %q", d.Digest, d.Problem, names, hurt[d.Digest])
			}
			found++
		}
		for d, b := range before { // ext4 takes its time to put one file in the place of another
			if err := errors.Join(os.Remove(s.damagedPath(d)), os.WriteFile(s.blobPath(d), b, 0o444)); err != nil {
				t.Fatal(err)
			}
		}
		checkClean(t, s)
	}
	t.Logf("%d of %d flipped bits found", found, flipped)
	if flipped != 1000 || found != flipped {
		t.Errorf("%d of %d flipped bits found", found, flipped)
	}
}

// What one process finds damaged no other serves any more, and it counts as lost
// until somebody brings it.
func TestDamagedIsOutOfService(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	pin := mustAdd(t, s, c, debian, "12", root.Digest)
	other := must[*Store](t)(OpenReadOnly(t.Context(), s.dir))
	defer other.Close()
	text := []byte("arm64 layer")
	layer := describe(text)
	damage(t, s, layer.Digest, func(b []byte) []byte { b[0] ^= 0x80; return b })
	reading, _, err := s.Blob(t.Context(), debian, layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()

	checked := must[Checked](t)(other.Verify(t.Context(), []Pin{pin}, nil))
	if len(checked.Damage) != 1 || checked.Damage[0].Digest != layer.Digest || checked.Damage[0].Kept != nil {
		t.Fatalf("damage: %+v", checked.Damage)
	}
	for _, s := range []*Store{s, other} {
		if _, _, err := s.Blob(t.Context(), debian, layer.Digest); !errors.Is(err, ErrNotFound) || !errors.Is(err, ErrDamaged) {
			t.Errorf("it is served: %v", err)
		}
	}
	lost := must[[]v1.Descriptor](t)(s.Lost(t.Context(), root.Digest))
	if len(lost) != 1 || lost[0].Digest != layer.Digest {
		t.Errorf("lost: %+v", lost)
	}
	// Once more, by any other way: it stays where it is, and is kept.
	must[Checked](t)(s.Verify(t.Context(), nil, nil))
	must[Freed](t)(s.Collect(t.Context(), 0))
	if _, err := os.Stat(s.damagedPath(layer.Digest)); err != nil {
		t.Error(err)
	}
	if err := write(t.Context(), newLease(t, s), layer.Digest, text); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s)
	if _, err := os.Stat(s.damagedPath(layer.Digest)); err == nil {
		t.Error("the damaged file is still there after it was replaced")
	}
}

// Damaged content that no image needs any more goes with the next collection.
func TestDamagedIsCollected(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "12", root.Digest)
	layer := digest.FromString("arm64 layer")
	damage(t, s, layer, func(b []byte) []byte { b[0] ^= 1; return b })
	must[Checked](t)(s.Verify(t.Context(), nil, nil))
	if _, _, err := s.Remove(t.Context(), debian, "12"); err != nil {
		t.Fatal(err)
	}
	freed := must[Freed](t)(s.Collect(t.Context(), 0))
	if _, err := os.Stat(s.damagedPath(layer)); err == nil || freed.Blobs != 1 {
		t.Errorf("freed %+v, %v", freed, err)
	}
}

// What only an arriving image needs is forgotten, and fetched anew; what a pinned
// one needs is not.
func TestForget(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "12", root.Digest)
	layer := digest.FromString("arm64 layer")
	text := []byte("of an arriving image")
	arriving := describe(text)
	l := newLease(t, s)
	if err := write(t.Context(), l, arriving.Digest, text); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[digest.Digest]bool{layer: false, root.Digest: false, arriving.Digest: true} {
		damage(t, s, d, func(b []byte) []byte { b[0] ^= 1; return b })
		must[Checked](t)(s.Verify(t.Context(), nil, nil))
		if dropped := must[bool](t)(s.Forget(t.Context(), d)); dropped != want {
			t.Errorf("%s: dropped %v", d, dropped)
		}
	}
	if err := write(t.Context(), l, arriving.Digest, text); err != nil {
		t.Fatal(err)
	}
	if damage := must[Checked](t)(s.Verify(t.Context(), nil, nil)).Damage; len(damage) != 2 {
		t.Errorf("damage: %+v", damage)
	}
}

// A file that was repaired while it was being looked at stays.
func TestSetAsideKeepsRepaired(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "12", root.Digest)
	layer := digest.FromString("arm64 layer")
	old := must[*os.File](t)(os.Open(s.blobPath(layer)))
	defer old.Close()
	looked := must[os.FileInfo](t)(old.Stat())
	damage(t, s, layer, func(b []byte) []byte { return b }) // which makes it another file
	if err := s.setAside(layer, looked); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s)
	if _, err := os.Stat(s.damagedPath(layer)); err == nil {
		t.Error("a good file was set aside")
	}
}

// Manifests are in the index and in a file; either is enough, and the wrong bytes
// of neither are handed out.
func TestDamagedManifest(t *testing.T) {
	for _, what := range []string{"index", "file", "both"} {
		t.Run(what, func(t *testing.T) {
			s := newStore(t)
			c, root := debianImage()
			mustAdd(t, s, c, debian, "12", root.Digest)
			want := must[Manifest](t)(s.Manifest(t.Context(), debian, "12"))
			if what != "file" {
				wrong := bytes.Replace(want.Bytes, []byte("arm64"), []byte("arm46"), 1)
				if _, err := s.writer.Exec("UPDATE manifest SET bytes = ? WHERE digest = ?", wrong, root.Digest.String()); err != nil {
					t.Fatal(err)
				}
			}
			if what != "index" {
				damage(t, s, root.Digest, func(b []byte) []byte { b[9] ^= 4; return b })
			}
			for _, reference := range []string{"12", root.Digest.String()} {
				got, err := s.Manifest(t.Context(), debian, reference)
				if what == "both" {
					if !errors.Is(err, ErrNotFound) || !errors.Is(err, ErrDamaged) {
						t.Errorf("%s: %s, %v", reference, got.Bytes, err)
					}
				} else if err != nil || !bytes.Equal(got.Bytes, want.Bytes) || got.Size != want.Size || got.MediaType != want.MediaType {
					t.Errorf("%s: %s, %v", reference, got.Bytes, err)
				}
			}
			if _, err := s.ReadBlob(t.Context(), root.Digest, 1<<20); what != "index" && !errors.Is(err, ErrDamaged) {
				t.Errorf("its file: %v", err)
			}
			checked := must[Checked](t)(s.Verify(t.Context(), nil, nil))
			if len(checked.Damage) != 1 || checked.Damage[0].Digest != root.Digest {
				t.Errorf("damage: %+v", checked.Damage)
			}
		})
	}
}

// A folder or a file without permissions where a blob should be is replaced.
func TestWriterReplacesOddities(t *testing.T) {
	text := []byte("arm64 layer")
	layer := describe(text)
	for name, damage := range map[string]func(path string) error{
		"folder":       func(path string) error { return errors.Join(os.Remove(path), os.MkdirAll(path+"/x", 0o755)) },
		"dead link":    func(path string) error { return errors.Join(os.Remove(path), os.Symlink("nowhere", path)) },
		"unreadable":   func(path string) error { return os.Chmod(path, 0) },
		"longer":       func(path string) error { return errors.Join(os.Chmod(path, 0o644), os.Truncate(path, 100)) },
		"empty":        func(path string) error { return errors.Join(os.Chmod(path, 0o644), os.Truncate(path, 0)) },
		"nothing, row": func(path string) error { return os.Remove(path) },
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, in the index %v", strings.TrimSuffix(name, ", row"), known), func(t *testing.T) {
				s := newStore(t)
				l := newLease(t, s)
				if err := write(t.Context(), l, layer.Digest, text); err != nil {
					t.Fatal(err)
				}
				if !known {
					must[sql.Result](t)(s.writer.Exec("DELETE FROM blob"))
				}
				if err := damage(s.blobPath(layer.Digest)); err != nil {
					t.Fatal(err)
				}
				if err := write(t.Context(), l, layer.Digest, text); err != nil {
					t.Fatal(err)
				}
				if got, err := s.ReadBlob(t.Context(), layer.Digest, 100); err != nil || !bytes.Equal(got, text) {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
	}
}
