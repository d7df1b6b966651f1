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

// fillIndex pins n images of two platforms in an index without files, with
// names like debian's and digests that stand for nothing: it takes seconds where
// publishing takes minutes.
func fillIndex(b *testing.B, s *Store, n int) {
	b.Helper()
	// Image i is the index 4i with the manifests 4i+1 and 4i+2.
	const image = `WITH RECURSIVE image (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM image WHERE i + 1 < ?1),
		part (i, k) AS (SELECT i, value FROM image, json_each('[0, 1, 2]')) `
	const name = "printf('sha256:%064x', 4 * i + k)"
	for _, query := range []string{
		"INSERT INTO blob (digest, size) " + image + "SELECT " + name + ", 1 FROM part",
		"INSERT INTO manifest (digest, media_type, bytes) " + image + "SELECT " + name + ", CASE k WHEN 0 THEN ?2 ELSE ?3 END, x'20' FROM part",
		`INSERT INTO edge (parent, position, child, size, kind, media_type, platform) ` + image + `
			SELECT printf('sha256:%064x', 4 * i), k, ` + name + `, 1, 'manifest', ?3, CASE k WHEN 1 THEN 'linux/amd64' ELSE 'linux/arm64/v8' END FROM part WHERE k > 0`,
		`INSERT INTO edge (parent, position, child, size, kind, media_type, platform) ` + image + `
			SELECT ` + name + `, 0, 'sha256:config', 1, 'config', 'a/config', NULL FROM part WHERE k > 0`,
		`INSERT INTO pin (registry, repository, reference, digest, size, pinned_at) ` + image + `
			SELECT 'docker.io', printf('team%d/app-%d', i / 100, i / 10), printf('1.%d', i), printf('sha256:%064x', 4 * i), 1, 0 FROM image`,
	} {
		if _, err := s.writer.Exec(query, n, v1.MediaTypeImageIndex, v1.MediaTypeImageManifest); err != nil {
			b.Fatal(err)
		}
	}
}

// All pins, as ls lists them.
func BenchmarkPins(b *testing.B) {
	for _, pins := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("%dpins", pins), func(b *testing.B) {
			s := newStore(b)
			fillIndex(b, s, pins)
			for b.Loop() {
				if got, err := s.Pins(b.Context()); err != nil || len(got) != pins || len(got[0].Platforms) != 2 {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}

// All names, as the suggestion for a typo needs them.
func BenchmarkNames(b *testing.B) {
	s := newStore(b)
	fillIndex(b, s, 100_000)
	for b.Loop() {
		if got, err := s.Names(b.Context(), Repository{}); err != nil || len(got) != 100_000 {
			b.Fatal(len(got), err)
		}
	}
}
