package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types that the image specification's Go package does not name.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeArtifact       = "application/vnd.oci.artifact.manifest.v1+json" // OCI 1.1 release candidates
)

// MaxManifestSize is the size in bytes of the largest manifest that is taken
// in; 4 MiB is what the distribution specification asks registries to accept.
const MaxManifestSize = 4 << 20

// Kind says what a child is to the manifest that lists it.
type Kind string

// The kinds of children.
const (
	KindManifest Kind = "manifest" // a manifest or index listed by an index
	KindConfig   Kind = "config"
	KindLayer    Kind = "layer"
	KindBlob     Kind = "blob"    // other content: an artifact's files, an index entry that is no manifest
	KindForeign  Kind = "foreign" // a layer that its registry need not have: clients fetch it from its URLs
)

// Child is one entry of a manifest, in the manifest's order.
type Child struct {
	v1.Descriptor
	Kind Kind
}

// isBlob reports whether the child is fetched as a blob, of the size that is said.
func (c Child) isBlob() bool { return c.Kind != KindManifest && c.Kind != KindForeign }

// Graph is what a manifest says of other content.
type Graph struct {
	Children     []Child
	Subject      *v1.Descriptor
	ArtifactType string
	Annotations  map[string]string
	// Platform is that of an image whose manifest tells it, as schema 1 does.
	Platform *v1.Platform
	// Signed is the blob with all of a signed schema 1 manifest, whose digest is
	// that of a part of it; nil for any other manifest.
	Signed *v1.Descriptor
}

// IsManifest reports whether content of this media type is a manifest or an
// index, which lists other content, rather than a blob.
func IsManifest(mediaType string) bool {
	switch mediaType {
	case v1.MediaTypeImageManifest, MediaTypeDockerManifest, MediaTypeArtifact, MediaTypeSchema1, MediaTypeSchema1Signed:
		return true
	}
	return IsIndex(mediaType)
}

// IsIndex reports whether the media type is that of an index of platforms.
func IsIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == MediaTypeDockerIndex
}

// document has the fields of all kinds of manifests (OCI image specification
// 1.1, image-index.md and manifest.md; Docker's image manifest version 2,
// schema 2) but schema 1.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Manifests     []v1.Descriptor   `json:"manifests"`
	Config        *v1.Descriptor    `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Blobs         []v1.Descriptor   `json:"blobs"`
	Subject       *v1.Descriptor    `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// ParseManifest reads what the manifest lists. It returns an error for media
// types that are no manifests, for content that is not of its media type, and
// for descriptors that cannot be content: a bad digest, a negative size. The
// layers of schema 1 have SizeUnknown.
func ParseManifest(mediaType string, content []byte) (Graph, error) {
	if !IsManifest(mediaType) {
		return Graph{}, fmt.Errorf("media type %q is not a manifest's", mediaType)
	}
	if len(content) > MaxManifestSize {
		return Graph{}, fmt.Errorf("manifest has %d bytes, at most %d are allowed", len(content), MaxManifestSize)
	}
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return Graph{}, fmt.Errorf("manifest: %w", err)
	}
	if err := checkKeys(content); err != nil {
		return Graph{}, fmt.Errorf("manifest: %w", err)
	}
	if doc.MediaType != "" && doc.MediaType != mediaType {
		return Graph{}, fmt.Errorf("manifest says it is %q but came as %q", doc.MediaType, mediaType)
	}
	// One that is both could mean one thing to us and another to a client
	// (CVE-2021-41190).
	image, index := doc.Config != nil || len(doc.Layers) > 0, len(doc.Manifests) > 0
	if image && IsIndex(mediaType) || index && !IsIndex(mediaType) {
		return Graph{}, fmt.Errorf("manifest is both an index and an image")
	}
	if IsSchema1(mediaType) {
		if doc.SchemaVersion != 1 || image {
			return Graph{}, fmt.Errorf("manifest is of schema %d but came as %q", doc.SchemaVersion, mediaType)
		}
		return parseSchema1(mediaType, content)
	}

	graph := Graph{Subject: doc.Subject, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
	add := func(d v1.Descriptor, kind Kind) {
		graph.Children = append(graph.Children, Child{Descriptor: d, Kind: kind})
	}
	switch {
	case IsIndex(mediaType):
		for _, d := range doc.Manifests {
			if IsManifest(d.MediaType) {
				add(d, KindManifest)
			} else {
				add(d, KindBlob)
			}
		}
	case mediaType == MediaTypeArtifact:
		for _, d := range doc.Blobs {
			add(d, KindBlob)
		}
	default:
		if doc.Config == nil {
			return Graph{}, fmt.Errorf("manifest has no config")
		}
		add(*doc.Config, KindConfig)
		for _, d := range doc.Layers {
			if isForeign(d) {
				add(d, KindForeign)
			} else {
				add(d, KindLayer)
			}
		}
		if graph.ArtifactType == "" {
			graph.ArtifactType = doc.Config.MediaType // distribution specification 1.1, "Listing Referrers"
		}
	}
	for _, child := range graph.Children {
		if err := checkDigest(child.Digest); err != nil {
			return Graph{}, fmt.Errorf("manifest lists a bad descriptor: %w", err)
		}
		if child.Size < 0 {
			return Graph{}, fmt.Errorf("manifest lists %s with size %d", child.Digest, child.Size)
		}
		if child.Size == 0 && child.isBlob() && child.Digest != child.Digest.Algorithm().FromBytes(nil) {
			return Graph{}, fmt.Errorf("manifest lists %s without its size", child.Digest)
		}
	}
	if doc.Subject != nil {
		if err := checkDigest(doc.Subject.Digest); err != nil {
			return Graph{}, fmt.Errorf("manifest has a bad subject: %w", err)
		}
	}
	return graph, nil
}

// checkKeys refuses objects with the same key twice, upper and lower case being
// the same: which of the two counts depends on the decoder, and Go's takes the
// last one of either case. content must be valid JSON.
func checkKeys(content []byte) error {
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	var value func() error
	value = func() error {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		delim, ok := token.(json.Delim)
		if !ok {
			return nil
		}
		seen := map[string]bool{}
		for dec.More() {
			if delim == '{' {
				token, err := dec.Token()
				if err != nil {
					return err
				}
				key, _ := token.(string)
				folded := strings.ToLower(strings.ToUpper(key))
				if seen[folded] {
					return fmt.Errorf("key %q is there twice", key)
				}
				seen[folded] = true
			}
			if err := value(); err != nil {
				return err
			}
		}
		_, err = dec.Token() // the end of it
		return err
	}
	return value()
}

// isForeign tells layers whose media type says that they are not distributed
// by registries, such as old Windows base layers.
func isForeign(d v1.Descriptor) bool {
	return strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable.")
}

// FormatPlatform returns os/architecture[/variant], with the version of the
// operating system behind a colon where the index tells them apart by it, as it
// does for Windows. It returns "" for no platform.
func FormatPlatform(p *v1.Platform) string {
	if p == nil || p.OS == "" && p.Architecture == "" {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	if p.OSVersion != "" {
		s += ":" + p.OSVersion
	}
	return s
}

// parsePlatform is the reverse of FormatPlatform.
func parsePlatform(s string) *v1.Platform {
	var p v1.Platform
	s, p.OSVersion, _ = strings.Cut(s, ":")
	p.OS, s, _ = strings.Cut(s, "/")
	p.Architecture, p.Variant, _ = strings.Cut(s, "/")
	return &p
}

// configPlatform reads the platform from an image configuration.
func configPlatform(config []byte) string {
	var p v1.Platform
	if json.Unmarshal(config, &p) != nil {
		return "" // an artifact's config may be anything
	}
	return FormatPlatform(&p)
}

// SniffMediaType tells the media type of a manifest that came without one, as
// those do that were left by an interrupted run. It returns "" for content that
// is no manifest, and for a payload of schema 1 the type without signatures.
func SniffMediaType(content []byte) string {
	var doc document
	switch err := json.Unmarshal(content, &doc); {
	case err != nil:
		return ""
	case doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return v1.MediaTypeImageIndex
	case doc.Config != nil:
		return v1.MediaTypeImageManifest
	case doc.SchemaVersion == 1:
		return MediaTypeSchema1
	}
	return ""
}
