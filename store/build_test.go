package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var debian = Repository{Registry: "docker.io", Path: "library/debian"}

// content is what an upstream would have, built in memory.
type content struct {
	algorithm  digest.Algorithm
	blobs      map[digest.Digest][]byte // configs and layers
	manifests  []Manifest
	companions []Companion
}

func newContent() *content {
	return &content{algorithm: digest.SHA256, blobs: map[digest.Digest][]byte{}}
}

func (c *content) describe(mediaType string, b []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: c.algorithm.FromBytes(b), Size: int64(len(b))}
}

func (c *content) blob(mediaType, text string) v1.Descriptor {
	d := c.describe(mediaType, []byte(text))
	c.blobs[d.Digest] = []byte(text)
	return d
}

func (c *content) layer(text string) v1.Descriptor { return c.blob(v1.MediaTypeImageLayerGzip, text) }

// raw adds a manifest as it stands.
func (c *content) raw(mediaType, text string) v1.Descriptor {
	d := c.describe(mediaType, []byte(text))
	for _, m := range c.manifests {
		if m.Digest == d.Digest {
			return d
		}
	}
	c.manifests = append(c.manifests, Manifest{Descriptor: d, Bytes: []byte(text)})
	return d
}

func (c *content) encode(mediaType string, doc any) v1.Descriptor {
	b, err := json.MarshalIndent(doc, "", "   ") // as Docker Hub has them: not what Go would write
	if err != nil {
		panic(err)
	}
	return c.raw(mediaType, string(b))
}

// image adds an image for one platform.
func (c *content) image(platform string, layers ...v1.Descriptor) v1.Descriptor {
	p := parsePlatform(platform)
	config, err := json.Marshal(v1.Image{Platform: *p})
	if err != nil {
		panic(err)
	}
	d := c.encode(v1.MediaTypeImageManifest, v1.Manifest{
		MediaType: v1.MediaTypeImageManifest, Config: c.blob(v1.MediaTypeImageConfig, string(config)), Layers: layers,
	})
	d.Platform = p
	return d
}

func (c *content) index(manifests ...v1.Descriptor) v1.Descriptor {
	return c.encode(v1.MediaTypeImageIndex, v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: manifests})
}

// referrer adds a signature of subject.
func (c *content) referrer(subject v1.Descriptor, text string) v1.Descriptor {
	return c.encode(v1.MediaTypeImageManifest, v1.Manifest{
		MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/x-signature", Config: v1.DescriptorEmptyJSON,
		Layers:  []v1.Descriptor{c.blob("application/x-signature", text), c.blob(v1.MediaTypeEmptyJSON, "{}")},
		Subject: &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{
			"text": text,
		},
	})
}

// companion adds a signature as cosign's tags have it.
func (c *content) companion(subject v1.Descriptor, text string) v1.Descriptor {
	d := c.image("", c.layer(text))
	d.Platform = nil
	c.companions = append(c.companions, Companion{Reference: "sha256-" + subject.Digest.Encoded() + ".sig", Digest: d.Digest, Subject: subject.Digest})
	return d
}

// debianImage is what Docker Hub serves: two platforms that share a layer, an
// attestation, a nested index, a signature and a companion.
func debianImage() (*content, v1.Descriptor) {
	c := newContent()
	shared := c.layer("shared layer")
	amd := c.image("linux/amd64", shared, c.layer("amd64 layer"))
	arm := c.image("linux/arm64/v8", shared, c.layer("arm64 layer"))
	windows := c.image("windows/amd64:10.0.17763", c.layer("windows layer"))
	attestation := c.image("unknown/unknown", c.blob("application/vnd.in-toto+json", "attestation"))
	root := c.index(amd, c.index(windows), attestation, arm)
	c.referrer(root, "signature")
	c.companion(amd, "cosign")
	return c, root
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t testing.TB) *Store { return open(t, filepath.Join(t.TempDir(), "store")) }

func newLease(t testing.TB, s *Store) *Lease {
	t.Helper()
	l, err := s.NewLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func write(ctx context.Context, l *Lease, d digest.Digest, b []byte) error {
	w, err := l.Writer(ctx, v1.Descriptor{Digest: d, Size: int64(len(b))})
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = w.ReadFrom(bytes.NewReader(b[w.Offset():]))
	if err == nil {
		err = w.Commit(ctx)
	}
	return errors.Join(err, w.Close())
}

// put brings all blobs into the store. The manifests are then those that it keeps.
func (c *content) put(ctx context.Context, l *Lease) error {
	for d, b := range c.blobs {
		if err := write(ctx, l, d, b); err != nil {
			return err
		}
	}
	for i, m := range c.manifests {
		kept, err := l.PutManifest(ctx, m)
		if err != nil {
			return err
		}
		c.manifests[i] = kept
	}
	return nil
}

func (c *content) at(repo Repository, reference string, root digest.Digest) Image {
	return Image{Repository: repo, Reference: reference, Digest: root, Manifests: c.manifests, Companions: c.companions}
}

// add fetches and publishes under a lease of its own.
func add(ctx context.Context, s *Store, c *content, repo Repository, reference string, root digest.Digest, move bool) (pin Pin, err error) {
	l, err := s.NewLease(ctx)
	if err != nil {
		return Pin{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := c.put(ctx, l); err != nil {
		return Pin{}, err
	}
	return l.Publish(ctx, c.at(repo, reference, root), move)
}

func mustAdd(t testing.TB, s *Store, c *content, repo Repository, reference string, root digest.Digest) Pin {
	t.Helper()
	pin, err := add(t.Context(), s, c, repo, reference, root, false)
	if err != nil {
		t.Fatal(err)
	}
	return pin
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// onDisk lists the files of a store's folder and what they have.
func onDisk(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = fmt.Sprintf("%x", h.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// blobFiles lists the digests that have files.
func blobFiles(t testing.TB, s *Store) map[digest.Digest]bool {
	t.Helper()
	files := map[digest.Digest]bool{}
	for name := range onDisk(t, filepath.Join(s.dir, "blobs")) {
		alg, hex := filepath.Split(filepath.FromSlash(name))
		files[digest.NewDigestFromEncoded(digest.Algorithm(filepath.Clean(alg)), hex)] = true
	}
	return files
}

func count(t testing.TB, s *Store, query string, args ...any) int {
	t.Helper()
	var n int
	if err := s.reader.QueryRow(query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func checkClean(t testing.TB, s *Store) Checked {
	t.Helper()
	checked := must[Checked](t)(s.Verify(t.Context(), nil, nil))
	for _, d := range checked.Damage {
		t.Errorf("damage: %s %s", d.Digest, d.Problem)
	}
	return checked
}
