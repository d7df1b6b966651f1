//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	ociLayer       = "application/vnd.oci.image.layer.v1.tar"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

func platformOf(arch string) *platform {
	if arch == "arm64" {
		return &platform{"arm64", "linux", "v8"}
	}
	return &platform{arch, "linux", ""}
}

// manifest has the fields of manifests and of indexes.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// family is a consistent set of media types.
type family struct{ manifest, index, config string }

var (
	oci    = family{ociManifest, ociIndex, ociConfig}
	docker = family{dockerManifest, dockerIndex, dockerConfig}
)

// layer is a layer file and what an image says of it.
type layer struct {
	descriptor
	path   string
	diffID string // digest of the uncompressed tar
}

// rootfsLayer is one of the tars that rootfs.sh made; suffix is "", ".gz" or ".zst".
func rootfsLayer(tb testing.TB, name, suffix string) layer {
	tb.Helper()
	base := filepath.Join(os.Getenv(rootfsVariable), name+".tar")
	diffID, _ := hashFile(tb, base)
	digest, size := hashFile(tb, base+suffix)
	mediaType := ociLayer + map[string]string{"": "", ".gz": "+gzip", ".zst": "+zstd"}[suffix]
	return layer{descriptor{MediaType: mediaType, Digest: digest, Size: size}, base + suffix, diffID}
}

// as gives the layer another media type.
func (l layer) as(mediaType string) layer {
	l.MediaType = mediaType
	return l
}

// randomLayer is an uncompressed tar with one file of size bytes that nothing
// can compress, the same for the same seed.
func randomLayer(tb testing.TB, seed byte, size int64) layer {
	tb.Helper()
	file, err := os.Create(filepath.Join(tempDir(tb), "layer.tar"))
	check(tb, err)
	defer file.Close()
	hash := sha256.New()
	archive := tar.NewWriter(io.MultiWriter(file, hash))
	check(tb, archive.WriteHeader(&tar.Header{Name: fmt.Sprintf("random-%d", seed), Mode: 0o644, Size: size}))
	_, err = io.CopyN(archive, rand.NewChaCha8([32]byte{seed}), size)
	check(tb, err)
	check(tb, archive.Close())
	info, err := file.Stat()
	check(tb, err)
	digest := "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return layer{descriptor{MediaType: ociLayer, Digest: digest, Size: info.Size()}, file.Name(), digest}
}

// repository is what one repository of the upstream shall hold, in the order
// in which a registry takes it: blobs, manifests from the leaves up, tags.
type repository struct {
	name      string
	blobs     []blob
	manifests []storedManifest
	tags      []tag
}

type blob struct {
	digest string
	open   func() (io.ReadCloser, error)
	size   int64
}

type storedManifest struct {
	descriptor
	bytes []byte
}

type tag struct {
	name     string
	manifest storedManifest
}

// image adds a runnable image of one platform.
func (r *repository) image(f family, arch string, layers ...layer) descriptor {
	type history struct {
		Created string `json:"created"`
		By      string `json:"created_by"`
	}
	const created = "2023-11-14T22:13:20Z"
	var (
		diffIDs []string
		steps   []history
		m       = manifest{SchemaVersion: 2, MediaType: f.manifest}
	)
	for _, l := range layers {
		m.Layers = append(m.Layers, r.file(l))
		diffIDs = append(diffIDs, l.diffID)
		steps = append(steps, history{created, "e2e"})
	}
	p := platformOf(arch)
	config := r.json(f.config, map[string]any{
		"created": created, "os": p.OS, "architecture": p.Architecture, "variant": p.Variant,
		"config":  map[string]any{"Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "Cmd": []string{"sh"}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffIDs},
		"history": steps,
	})
	m.Config = &config
	d := r.manifest(m)
	d.Platform = p
	return d
}

// artifact adds a manifest that is no image: one blob with a type of its own,
// attached to a subject if there is one.
func (r *repository) artifact(subject *descriptor, config descriptor, artifactType, blobType, text string) descriptor {
	content := r.bytes(blobType, []byte(text))
	d := r.manifest(manifest{
		SchemaVersion: 2, MediaType: ociManifest, ArtifactType: artifactType,
		Config: &config, Layers: []descriptor{content}, Subject: subject,
	})
	d.ArtifactType = artifactType
	return d
}

func (r *repository) index(f family, children ...descriptor) descriptor {
	return r.manifest(manifest{SchemaVersion: 2, MediaType: f.index, Manifests: children})
}

// manifest adds m, written with a layout that no tool produces: who decodes
// and encodes a manifest on the way changes its digest.
func (r *repository) manifest(m manifest) descriptor { return r.raw(m.MediaType, m) }

// raw is manifest for one with fields that others do not have.
func (r *repository) raw(mediaType string, value any) descriptor {
	text, err := json.MarshalIndent(value, " ", "   ")
	if err != nil {
		panic(err)
	}
	text = append(text, '\n')
	d := descriptor{MediaType: mediaType, Digest: digestOf(text), Size: int64(len(text))}
	r.manifests = append(r.manifests, storedManifest{d, text})
	return d
}

// tag names a manifest that was added before.
func (r *repository) tag(d descriptor, names ...string) {
	for _, m := range r.manifests {
		if m.Digest != d.Digest {
			continue
		}
		for _, name := range names {
			r.tags = append(r.tags, tag{name, m})
		}
		return
	}
	panic("no manifest " + d.Digest)
}

func (r *repository) file(l layer) descriptor {
	r.blobs = append(r.blobs, blob{l.Digest, func() (io.ReadCloser, error) { return os.Open(l.path) }, l.Size})
	return l.descriptor
}

func (r *repository) json(mediaType string, value any) descriptor {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return r.bytes(mediaType, text)
}

func (r *repository) bytes(mediaType string, text []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digestOf(text), Size: int64(len(text))}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	r.blobs = append(r.blobs, blob{d.Digest, open, d.Size})
	return d
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func hashFile(tb testing.TB, path string) (string, int64) {
	tb.Helper()
	file, err := os.Open(path)
	check(tb, err)
	defer file.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, file)
	check(tb, err)
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), n
}
