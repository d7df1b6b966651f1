package store

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image manifest version 2, schema 1, which Docker 1.10
// replaced by schema 2 in 2016
// (https://distribution.github.io/distribution/spec/deprecated-schema-v1/).
const (
	MediaTypeSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"

	mediaTypeSchema1Layer = "application/vnd.docker.container.image.rootfs.diff+x-gtar"
)

// SizeUnknown is the size of a child of which its manifest says only the digest,
// as schema 1 does of layers.
const SizeUnknown = -1

// IsSchema1 reports whether the media type is one of Docker's schema 1.
func IsSchema1(mediaType string) bool {
	return mediaType == MediaTypeSchema1 || mediaType == MediaTypeSchema1Signed
}

// schema1 has what matters here of a schema 1 manifest.
type schema1 struct {
	Architecture string `json:"architecture"`
	FSLayers     []struct {
		BlobSum digest.Digest `json:"blobSum"`
	} `json:"fsLayers"`
}

// parseSchema1 is the part of ParseManifest for schema 1; the content has been
// found to be sound JSON.
func parseSchema1(mediaType string, content []byte) (Graph, error) {
	var doc schema1
	if err := json.Unmarshal(content, &doc); err != nil {
		return Graph{}, fmt.Errorf("manifest: %w", err)
	}
	var graph Graph
	if mediaType == MediaTypeSchema1Signed {
		if _, err := signedPayload(content); err != nil {
			return Graph{}, err
		}
		graph.Signed = &v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	}
	if doc.Architecture != "" {
		// The format is older than images of other systems.
		graph.Platform = &v1.Platform{OS: "linux", Architecture: doc.Architecture}
	}
	for _, layer := range doc.FSLayers {
		if err := checkDigest(layer.BlobSum); err != nil {
			return Graph{}, fmt.Errorf("manifest lists a bad layer: %w", err)
		}
		graph.Children = append(graph.Children, Child{
			Descriptor: v1.Descriptor{MediaType: mediaTypeSchema1Layer, Digest: layer.BlobSum, Size: SizeUnknown},
			Kind:       KindLayer,
		})
	}
	return graph, nil
}

// SignedError says why a signed manifest has no payload that can be told.
type SignedError struct{ Problem string }

func (e *SignedError) Error() string { return "signed manifest: " + e.Problem }

// signedPayload returns what was signed of a signed manifest, which its digest is
// of: the JSON without the member "signatures". That is its last one, and the
// protected header of each signature says how to take it out, so that the bytes
// are those from before it was put in: the first formatLength bytes, and then
// formatTail (libtrust, JSONSignature.PrettySignature). The error is a *SignedError.
//
// The signatures themselves are not verified. Their keys come with them and are
// nobody's; what they would prove, the digest does.
func signedPayload(content []byte) ([]byte, error) {
	var doc struct {
		Signatures []struct {
			Protected string `json:"protected"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, &SignedError{err.Error()}
	}
	if err := checkKeys(content); err != nil {
		return nil, &SignedError{err.Error()}
	}
	if len(doc.Signatures) == 0 {
		return nil, &SignedError{"it has no signatures"}
	}
	format, err := parseProtected(doc.Signatures[0].Protected)
	if err != nil {
		return nil, &SignedError{err.Error()}
	}
	for _, signature := range doc.Signatures[1:] {
		other, err := parseProtected(signature.Protected)
		if err != nil {
			return nil, &SignedError{err.Error()}
		}
		if other != format {
			return nil, &SignedError{"its signatures are of different content"}
		}
	}
	if format.length <= 0 || format.length > int64(len(content)) || !onlySignatures(content[format.length:]) {
		return nil, &SignedError{"its signatures do not begin where they say that the signed content ends"}
	}
	payload := append(content[:format.length:format.length], format.tail...)
	// With both halves sound, a reader of the payload and one of the whole see
	// the same members.
	if strings.Trim(format.tail, jsonSpace) != "}" || !json.Valid(payload) {
		return nil, &SignedError{"what is signed is no JSON object"}
	}
	return payload, nil
}

// jsonSpace are the characters that JSON allows between tokens (RFC 8259, 2).
const jsonSpace = " \t\r\n"

// signedFormat says where a payload is in a signed manifest.
type signedFormat struct {
	length int64  // bytes of the beginning that they have in common
	tail   string // of the payload, after those
}

// parseProtected reads the protected header of a signature (RFC 7515, 4): JSON in
// base64url without padding.
func parseProtected(header string) (signedFormat, error) {
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return signedFormat{}, fmt.Errorf("protected header: %w", err)
	}
	var doc struct {
		Length int64  `json:"formatLength"`
		Tail   string `json:"formatTail"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return signedFormat{}, fmt.Errorf("protected header: %w", err)
	}
	if err := checkKeys(text); err != nil {
		return signedFormat{}, fmt.Errorf("protected header: %w", err)
	}
	tail, err := base64.RawURLEncoding.DecodeString(doc.Tail)
	if err != nil {
		return signedFormat{}, fmt.Errorf("protected header: formatTail: %w", err)
	}
	return signedFormat{doc.Length, string(tail)}, nil
}

// onlySignatures reports whether text is the rest of a JSON object, with one
// member in it: signatures.
func onlySignatures(text []byte) bool {
	text, comma := bytes.CutPrefix(bytes.TrimLeft(text, jsonSpace), []byte(","))
	var members map[string]json.RawMessage
	err := json.Unmarshal(append([]byte("{"), text...), &members)
	return comma && err == nil && len(members) == 1 && members["signatures"] != nil
}
