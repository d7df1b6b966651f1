package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func BenchmarkManifestByTag(b *testing.B) {
	s := newStore(b)
	fill(b, s, 200)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Manifest(b.Context(), debian, "v7"); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkBlobOpen(b *testing.B) {
	s := newStore(b)
	fill(b, s, 200)
	d := digest.FromString("base")
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _, err := s.Blob(b.Context(), debian, d)
			if err != nil {
				b.Error(err)
				return
			}
			r.Close()
		}
	})
}

func BenchmarkIngest(b *testing.B) {
	for _, mib := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			s := newStore(b)
			l := newLease(b, s)
			content := noise(mib << 20)
			b.SetBytes(int64(len(content)))
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				binary.LittleEndian.PutUint64(content, uint64(i))
				desc := v1.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
				b.StartTimer()
				w := must[*Writer](b)(l.Writer(b.Context(), desc))
				_, err := w.ReadFrom(bytes.NewReader(content))
				if err := errors.Join(err, w.Commit(b.Context()), w.Close()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := os.Remove(s.blobPath(desc.Digest)); err != nil { // the disk is not endless
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// The two must not differ much: rm costs what the image holds.
func BenchmarkRemove(b *testing.B) {
	for _, pins := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("%dpins", pins), func(b *testing.B) {
			s := newStore(b)
			fillRows(b, s, pins)
			c := numbered(pins)
			root := c.manifests[len(c.manifests)-1].Digest
			for b.Loop() {
				b.StopTimer()
				mustAdd(b, s, c, debian, "removed", root)
				b.StartTimer()
				if _, freed, err := s.Remove(b.Context(), debian, "removed"); err != nil || freed.Blobs != 5 {
					b.Fatal(freed, err)
				}
			}
		})
	}
}

// fillRows pins n images in the index only: their files take too long to make
// and do not matter here.
func fillRows(b *testing.B, s *Store, n int) {
	b.Helper()
	l := newLease(b, s)
	if err := numbered(0).put(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	tx, err := s.writer.Begin()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		c := numbered(i)
		graphs := must[[]Graph](b)(c.at(debian, "x", c.manifests[2].Digest).parse())
		insert := func(d digest.Digest, size int64) {
			if _, err := tx.Exec("INSERT OR IGNORE INTO blob (digest, size) VALUES (?, ?)", d.String(), size); err != nil {
				b.Fatal(err)
			}
		}
		for d, text := range c.blobs {
			insert(d, int64(len(text)))
		}
		for _, m := range c.manifests {
			insert(m.Digest, m.Size)
		}
		image := c.at(debian, fmt.Sprintf("v%d", i), c.manifests[2].Digest)
		if err := insertImage(b.Context(), tx, image, graphs); err != nil {
			b.Fatal(err)
		}
		if _, err := setPin(b.Context(), tx, debian, image.Reference, image.Digest, "", false); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkPins(b *testing.B) {
	s := newStore(b)
	fillRows(b, s, 10_000)
	b.ResetTimer()
	for b.Loop() {
		if pins, err := s.Pins(b.Context()); err != nil || len(pins) != 10_000 {
			b.Fatal(len(pins), err)
		}
	}
}
