//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const (
	emptyJSON    = "application/vnd.oci.empty.v1+json"
	exampleSBOM  = "application/vnd.example.sbom.v1"
	exampleProof = "application/vnd.example.proof.v1"
)

// specContent is what the specifications of images and of registries allow to be
// in a repository.
type specContent struct {
	*repository
	subject  descriptor   // the image that others refer to
	children []descriptor // those, as the referrers API has to list them
	missing  descriptor   // a subject that was never pushed
	orphan   descriptor   // what refers to that
}

// newSpecContent makes the content. What the registry program of the tests refuses
// to take, though the specification has it, is left out unless all is true.
func newSpecContent(all bool) *specContent {
	c := &specContent{repository: &repository{name: "library/conformance"}}
	empty := c.bytes(emptyJSON, []byte("{}"))
	config := func(arch string) descriptor {
		return c.json(ociConfig, map[string]any{"os": "linux", "architecture": arch, "author": "conformance"})
	}
	image := func(arch string, more map[string]any, layers ...descriptor) descriptor {
		m := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": config(arch), "layers": append([]descriptor{}, layers...)}
		for key, value := range more {
			m[key] = value
		}
		d := c.raw(ociManifest, m)
		d.Platform = platformOf(arch)
		return d
	}
	index := func(more map[string]any, children ...descriptor) descriptor {
		m := map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": append([]descriptor{}, children...)}
		for key, value := range more {
			m[key] = value
		}
		return c.raw(ociIndex, m)
	}
	layer := c.bytes(ociLayer, bytes.Repeat([]byte("layer "), 1000))

	c.tag(image("amd64", nil, layer, c.bytes(ociLayer+"+gzip", []byte("another"))), "image", "Image", "0.1_image-2")
	c.tag(image("amd64", nil), "no-layers")
	c.tag(image("arm64", nil, c.bytes(ociLayer, nil)), "empty-blob")
	large := map[string]string{}
	for i := range 390 {
		large[fmt.Sprintf("large-%d", i)] = strings.Repeat("A", 10_000)
	}
	c.tag(image("amd64", map[string]any{"annotations": large}, layer), "large-manifest")
	c.tag(image("amd64", map[string]any{"org.example.field": []int{1}, "another": nil}, layer), "custom-fields")
	c.tag(c.raw(ociManifest, map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "layers": []any{}, "config": map[string]any{
		"mediaType": emptyJSON, "digest": empty.Digest, "size": 2, "data": "e30=", "annotations": map[string]string{"a": "b"},
	}}), "data-field")
	platforms := index(nil, image("amd64", nil, layer), image("arm64", nil, layer))
	c.tag(platforms, "index")
	c.tag(index(nil, platforms, index(nil, image("amd64", nil))), "nested-index")
	c.tag(index(nil), "empty-index")
	artifact := func(artifactType string, subject *descriptor, text string) descriptor {
		m := map[string]any{
			"schemaVersion": 2, "mediaType": ociManifest, "artifactType": artifactType, "config": empty,
			"layers": []descriptor{c.bytes("text/plain", []byte(text))}, "annotations": map[string]string{"org.example.text": text},
		}
		if subject != nil {
			m["subject"] = subject
		}
		d := c.raw(ociManifest, m)
		d.ArtifactType, d.Annotations = artifactType, map[string]string{"org.example.text": text}
		return d
	}
	c.tag(artifact(exampleSBOM, nil, "alone"), "artifact")
	c.tag(index(map[string]any{"artifactType": exampleSBOM}, artifact(exampleSBOM, nil, "listed")), "artifact-index")

	c.subject = image("amd64", map[string]any{"annotations": map[string]string{"a": "subject"}}, layer)
	c.subject.Platform = nil
	c.tag(c.subject, "subject")
	notes := map[string]string{"org.example.text": "by its config"}
	byConfig := c.raw(ociManifest, map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": c.bytes(exampleProof, []byte("proof")),
		"layers": []descriptor{layer}, "subject": c.subject, "annotations": notes,
	})
	byConfig.ArtifactType, byConfig.Annotations = exampleProof, notes
	plain := index(map[string]any{"subject": c.subject}, image("amd64", nil, layer))
	typed := index(map[string]any{"subject": c.subject, "artifactType": exampleProof, "annotations": notes})
	typed.ArtifactType, typed.Annotations = exampleProof, notes
	c.children = []descriptor{artifact(exampleSBOM, &c.subject, "one"), artifact(exampleSBOM, &c.subject, "two"), byConfig, plain, typed}
	c.missing = descriptor{MediaType: ociManifest, Digest: digestOf([]byte("nowhere")), Size: 7}
	c.orphan = artifact(exampleProof, &c.missing, "orphan")

	if all {
		c.tag(image("amd64", nil, descriptor{
			MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar", Digest: digestOf([]byte("foreign")), Size: 7,
			URLs: []string{"https://registry.invalid/foreign"},
		}), "nondistributable")
		c.tag(c.sha512(ociManifest, map[string]any{
			"schemaVersion": 2, "mediaType": ociManifest, "config": config("amd64"), "layers": []descriptor{c.blob512([]byte("long digest"))},
		}), "sha512")
	} else {
		// For want of the API: distribution-spec, "Referrers Tag Schema".
		c.tag(index(nil, c.children...), fallbackTag(c.subject.Digest))
	}
	return c
}

func digest512(text []byte) string {
	sum := sha512.Sum512(text)
	return "sha512:" + hex.EncodeToString(sum[:])
}

func (c *specContent) blob512(text []byte) descriptor {
	d := descriptor{MediaType: ociLayer, Digest: digest512(text), Size: int64(len(text))}
	c.blobs = append(c.blobs, blob{d.Digest, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }, d.Size})
	return d
}

func (c *specContent) sha512(mediaType string, value any) descriptor {
	c.raw(mediaType, value)
	m := &c.manifests[len(c.manifests)-1]
	m.Digest = digest512(m.bytes)
	return m.descriptor
}

// registry is a server of the content with the referrers API, for sync.
func (c *specContent) registry(tb testing.TB) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(c.serve))
	tb.Cleanup(server.Close)
	return server
}

func (c *specContent) serve(w http.ResponseWriter, r *http.Request) {
	rest, _ := strings.CutPrefix(r.URL.Path, "/v2/"+c.name+"/")
	kind, reference, _ := strings.Cut(rest, "/")
	switch kind {
	case "manifests":
		if i := slices.IndexFunc(c.tags, func(t tag) bool { return t.name == reference }); i >= 0 {
			reference = c.tags[i].manifest.Digest
		}
		if i := slices.IndexFunc(c.manifests, func(m storedManifest) bool { return m.Digest == reference }); i >= 0 {
			send(w, c.manifests[i].MediaType, reference, c.manifests[i].bytes)
			return
		}
	case "blobs":
		if i := slices.IndexFunc(c.blobs, func(b blob) bool { return b.digest == reference }); i >= 0 {
			if body, err := c.blobs[i].open(); err == nil {
				text, _ := io.ReadAll(body)
				send(w, "application/octet-stream", reference, text)
				return
			}
		}
	case "referrers":
		list := []descriptor{}
		switch reference {
		case c.subject.Digest:
			list = c.children
		case c.missing.Digest:
			list = append(list, c.orphan)
		}
		text, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": list})
		send(w, ociIndex, "", text)
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

func send(w http.ResponseWriter, mediaType, digest string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if digest != "" {
		w.Header().Set("Docker-Content-Digest", digest)
	}
	_, _ = w.Write(body)
}
