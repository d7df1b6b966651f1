package serve

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// A Probe is an image that no registry has: every mirrorctl answers for it, out
// of its name alone, and asks nobody. A client that pulls it by the name of a
// registry has used a mirror. Nothing of it is stored.
//
// Its name has 128 random bits, so nobody can have pushed it before it was
// thought of.
type Probe struct {
	Registry string // docker.io
	Token    string // 32 lower-case hexadecimal digits
}

const (
	probePrefix = "mirrorctl/doctor-"
	probeTag    = "probe"
	probeFile   = "mirrorctl-doctor"
)

// NewProbe returns a probe of a registry that nobody knows yet.
func NewProbe(registry string) Probe {
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	return Probe{registry, hex.EncodeToString(token)}
}

func (p Probe) repository() store.Repository {
	return store.Repository{Registry: p.Registry, Path: probePrefix + p.Token}
}

// Name is what a client is to pull: docker.io/mirrorctl/doctor-...:probe.
func (p Probe) Name() string { return p.repository().String() + ":" + probeTag }

// Content is what is in the probe and in no other image: the text of its file
// /mirrorctl-doctor and of its label mirrorctl.doctor.
func (p Probe) Content() string { return p.repository().String() }

// WatchPath is where the mirror tells which requests it has seen for the probe.
// It notes those that come after the first time that it was asked this.
func (p Probe) WatchPath() string { return "/v2/" + extension + "/doctor/" + p.Token }

// Index is the digest that the tag means.
func (p Probe) Index() digest.Digest { return p.build().index.Digest }

func validToken(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isDigit(c) && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// probeIn returns the probe whose repository it is.
func probeIn(repo store.Repository) (Probe, bool) {
	token, ok := strings.CutPrefix(repo.Path, probePrefix)
	return Probe{repo.Registry, token}, ok && validToken(token)
}

// probePlatforms are those of Docker's official images. The layer is the same
// for all, as it holds no program.
var probePlatforms = []v1.Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64", Variant: "v8"},
	{OS: "linux", Architecture: "arm", Variant: "v7"},
	{OS: "linux", Architecture: "arm", Variant: "v6"},
	{OS: "linux", Architecture: "386"},
	{OS: "linux", Architecture: "ppc64le"},
	{OS: "linux", Architecture: "riscv64"},
	{OS: "linux", Architecture: "s390x"},
}

// probeImage is all content of a probe.
type probeImage struct {
	index     store.Manifest
	manifests map[digest.Digest]store.Manifest
	blobs     map[digest.Digest][]byte
}

func (p Probe) build() probeImage {
	image := probeImage{manifests: map[digest.Digest]store.Manifest{}, blobs: map[digest.Digest][]byte{}}
	created := time.Unix(0, 0).UTC()
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	must(archive.WriteHeader(&tar.Header{
		Name: probeFile, Mode: 0o644, Size: int64(len(p.Content())), ModTime: created, Format: tar.FormatUSTAR,
	}))
	_, err := io.WriteString(archive, p.Content())
	must(err)
	must(archive.Close())
	content := image.blob(v1.MediaTypeImageLayer, layer.Bytes())

	list := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, platform := range probePlatforms {
		config := image.blob(v1.MediaTypeImageConfig, encode(v1.Image{
			Created: &created, Platform: platform,
			Config:  v1.ImageConfig{Labels: map[string]string{"mirrorctl.doctor": p.Content()}},
			RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{content.Digest}},
			History: []v1.History{{Created: &created, CreatedBy: "mirrorctl doctor"}},
		}))
		m := image.manifest(v1.MediaTypeImageManifest, v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: config, Layers: []v1.Descriptor{content},
		})
		entry := m.Descriptor
		entry.Platform = &platform
		list.Manifests = append(list.Manifests, entry)
	}
	image.index = image.manifest(v1.MediaTypeImageIndex, list)
	return image
}

func (i probeImage) blob(mediaType string, content []byte) v1.Descriptor {
	d := digest.FromBytes(content)
	i.blobs[d] = content
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (i probeImage) manifest(mediaType string, value any) store.Manifest {
	m := store.Manifest{Bytes: encode(value)}
	m.Descriptor = i.blob(mediaType, m.Bytes)
	i.manifests[m.Digest] = m
	return m
}

func encode(value any) []byte {
	text, err := json.Marshal(value)
	must(err)
	return text
}

// must is for what cannot fail: writing into memory, encoding types of the
// specification.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// probing is a Content that has all probes besides.
type probing struct{ Content }

func (c probing) Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error) {
	p, ok := probeIn(repo)
	if !ok {
		return c.Content.Manifest(ctx, repo, reference)
	}
	image := p.build()
	if reference == probeTag {
		return image.index, nil
	}
	m, ok := image.manifests[digest.Digest(reference)]
	if !ok {
		return m, fmt.Errorf("%s: %w", reference, store.ErrNotFound)
	}
	return m, nil
}

func (c probing) Blob(ctx context.Context, repo store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	p, ok := probeIn(repo)
	if !ok {
		return c.Content.Blob(ctx, repo, d)
	}
	content, ok := p.build().blobs[d]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", d, store.ErrNotFound)
	}
	return inMemory{bytes.NewReader(content)}, int64(len(content)), nil
}

type inMemory struct{ io.ReadSeeker }

func (inMemory) Close() error { return nil }

// withoutProbes is a Fetcher that is not asked for probes: what a probe does not
// have, no registry has.
type withoutProbes struct{ Fetcher }

func (f withoutProbes) Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error) {
	if _, ok := probeIn(repo); ok {
		return store.Manifest{}, store.ErrNotFound
	}
	return f.Fetcher.Manifest(ctx, repo, reference)
}

func (f withoutProbes) Blob(ctx context.Context, repo store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if _, ok := probeIn(repo); ok {
		return nil, 0, store.ErrNotFound
	}
	return f.Fetcher.Blob(ctx, repo, d)
}

func (f withoutProbes) BlobSize(ctx context.Context, repo store.Repository, d digest.Digest) (int64, error) {
	if _, ok := probeIn(repo); ok {
		return 0, store.ErrNotFound
	}
	return f.Fetcher.BlobSize(ctx, repo, d)
}

func (f withoutProbes) Referrers(ctx context.Context, repo store.Repository, subject digest.Digest) ([]v1.Descriptor, error) {
	if _, ok := probeIn(repo); ok {
		return nil, nil
	}
	return f.Fetcher.Referrers(ctx, repo, subject)
}
