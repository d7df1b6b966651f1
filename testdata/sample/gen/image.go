package main

import (
	_ "crypto/sha256" // the two algorithms of go-digest that are used here
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is an image of one platform.
type image struct {
	platform  v1.Platform
	layers    []layer
	onBuild   []string         // triggers, which OCI's configuration does not have
	docker    bool             // Docker's media types instead of OCI's
	algorithm digest.Algorithm // of the layers' digests, SHA-256 if empty
}

type layer struct {
	mediaType string
	packed
}

var schema2 = specs.Versioned{SchemaVersion: 2}

// image adds an image and returns its descriptor as an index lists it.
func (l *layout) image(im image) v1.Descriptor {
	manifestType, configType := v1.MediaTypeImageManifest, v1.MediaTypeImageConfig
	if im.docker {
		manifestType, configType = dockerManifest, dockerConfig
	}
	algorithm := im.algorithm
	if algorithm == "" {
		algorithm = digest.SHA256
	}
	config := v1.Image{Platform: im.platform, RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{Versioned: schema2, MediaType: manifestType}
	for _, y := range im.layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(y.tar))
		manifest.Layers = append(manifest.Layers, l.blob(y.mediaType, y.bytes, algorithm))
	}
	if len(im.onBuild) > 0 {
		// As docker build writes it, beside what the specification has.
		manifest.Config = l.json(configType, struct {
			v1.Image
			Config map[string][]string `json:"config"`
		}{config, map[string][]string{"OnBuild": im.onBuild}})
	} else {
		manifest.Config = l.json(configType, config)
	}
	desc := l.json(manifestType, manifest)
	desc.Platform = &im.platform
	return desc
}

func (l *layout) index(mediaType string, manifests ...v1.Descriptor) v1.Descriptor {
	return l.json(mediaType, v1.Index{Versioned: schema2, MediaType: mediaType, Manifests: manifests})
}

// artifact adds a manifest that carries a document beside images.
func (l *layout) artifact(m v1.Manifest, document v1.Descriptor) v1.Descriptor {
	m.Versioned, m.MediaType = schema2, v1.MediaTypeImageManifest
	m.Config = l.blob(v1.MediaTypeEmptyJSON, v1.DescriptorEmptyJSON.Data, digest.SHA256)
	m.Layers = []v1.Descriptor{document}
	desc := l.json(v1.MediaTypeImageManifest, m)
	desc.ArtifactType = m.ArtifactType
	return desc
}

// attestation adds a provenance as BuildKit does: into the index, for a platform
// that no machine has.
func (l *layout) attestation(of v1.Descriptor) v1.Descriptor {
	statement := l.json(inToto, map[string]any{
		"_type":         "https://in-toto.io/Statement/v0.1",
		"predicateType": "https://slsa.dev/provenance/v0.2",
		"subject":       []any{map[string]any{"name": "hello", "digest": map[string]string{"sha256": of.Digest.Encoded()}}},
	})
	desc := l.artifact(v1.Manifest{}, statement)
	desc.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	desc.Annotations = map[string]string{
		"vnd.docker.reference.type":   "attestation-manifest",
		"vnd.docker.reference.digest": of.Digest.String(),
	}
	return desc
}

// sbom adds a referrer, and the tag under which clients look where there is no
// referrers API.
func (l *layout) sbom(of v1.Descriptor) {
	subject := v1.Descriptor{MediaType: of.MediaType, Digest: of.Digest, Size: of.Size}
	document := l.json(spdx, map[string]any{"spdxVersion": "SPDX-2.3", "name": "hello"})
	referrer := l.artifact(v1.Manifest{ArtifactType: spdx, Subject: &subject}, document)
	l.tag("sha256-"+of.Digest.Encoded(), l.index(v1.MediaTypeImageIndex, referrer))
}

// signature adds what cosign sign leaves behind. The signature itself is none.
func (l *layout) signature(of v1.Descriptor) {
	payload := l.json(simpleSigning, map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": "docker.io/library/hello"},
			"image":    map[string]string{"docker-manifest-digest": of.Digest.String()},
			"type":     "cosign container image signature",
		},
	})
	payload.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "c2FtcGxl"}
	l.tag("sha256-"+of.Digest.Encoded()+".sig", l.artifact(v1.Manifest{}, payload))
}
