package store

import (
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestLost(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "12", root.Digest)
	other := newContent()
	otherRoot := other.index(other.image("linux/amd64", other.layer("other")))
	mustAdd(t, s, other, debian, "other", otherRoot.Digest)
	check := func(what string, want ...digest.Digest) {
		t.Helper()
		lost := must[[]v1.Descriptor](t)(s.Lost(t.Context(), root.Digest))
		got := map[digest.Digest]bool{}
		for i, d := range lost {
			got[d.Digest] = true
			var size int64
			if err := s.reader.QueryRow("SELECT size FROM blob WHERE digest = ?", d.Digest.String()).Scan(&size); err != nil || size != d.Size {
				t.Errorf("%s: %s has %d bytes, want %d: %v", what, d.Digest, d.Size, size, err)
			}
			if i > 0 && lost[i-1].Digest >= d.Digest {
				t.Errorf("%s: not sorted", what)
			}
		}
		for _, d := range want {
			if !got[d] {
				t.Errorf("%s: %s is not among the lost", what, d)
			}
		}
		if len(lost) != len(want) {
			t.Errorf("%s: %d are lost, want %d", what, len(lost), len(want))
		}
	}
	check("all there")
	// Each file, whatever it is to the image: layers, configurations, manifests,
	// the signature, what the companion tag leads to.
	for d := range must[map[digest.Digest]int64](t)(reachable(t.Context(), s.reader, root.Digest)) {
		path := s.blobPath(d)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, damage := range map[string]func() error{
			"removed": func() error { return os.Remove(path) },
			"cut":     func() error { return os.WriteFile(path, content[:len(content)-1], 0o600) },
			"longer":  func() error { return os.WriteFile(path, append(content, 0), 0o600) },
			"empty":   func() error { return os.WriteFile(path, nil, 0o600) },
		} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			check(what, d)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("put back")
	if err := os.Remove(s.blobPath(otherRoot.Digest)); err != nil {
		t.Fatal(err)
	}
	check("another image's file is gone")
	if lost, err := s.Lost(t.Context(), digest.FromString("nothing")); err != nil || len(lost) != 0 {
		t.Errorf("of nothing %v is lost, %v", lost, err)
	}
}

// What a sync pays for each image that is locked and pinned.
func BenchmarkLost(b *testing.B) {
	for _, layers := range []int{1, 100} {
		b.Run(fmt.Sprintf("%dblobs", layers), func(b *testing.B) {
			s := newStore(b)
			c := newContent()
			var all []v1.Descriptor
			for i := range layers {
				all = append(all, c.layer(fmt.Sprint("layer ", i)))
			}
			image := c.image("linux/amd64", all...)
			mustAdd(b, s, c, debian, "12", image.Digest)
			for b.Loop() {
				if lost, err := s.Lost(b.Context(), image.Digest); err != nil || len(lost) > 0 {
					b.Fatal(lost, err)
				}
			}
		})
	}
}
