package store

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPlatformText(t *testing.T) {
	for _, text := range []string{"linux/amd64", "linux/arm64/v8", "windows/amd64:10.0.17763.1", "linux/arm/v7:1"} {
		if got := FormatPlatform(parsePlatform(text)); got != text {
			t.Errorf("%s came back as %s", text, got)
		}
	}
	if got := FormatPlatform(nil) + FormatPlatform(&v1.Platform{}); got != "" {
		t.Errorf("no platform is %q", got)
	}
}

func TestSniffMediaType(t *testing.T) {
	for text, want := range map[string]string{
		`{"manifests":[]}`:   v1.MediaTypeImageIndex,
		`{"config":{}}`:      v1.MediaTypeImageManifest,
		`{"mediaType":"x"}`:  "x",
		`{}`:                 "",
		`[]`:                 "",
		`<html>`:             "",
		`{"manifests":null}`: "",
	} {
		if got := SniffMediaType([]byte(text)); got != want {
			t.Errorf("%s is %q", text, got)
		}
	}
}

// FuzzParseManifest holds that what is taken for a manifest is read the same by
// the image specification's own types, means the same however it is spaced, and
// lists no more than its size can.
func FuzzParseManifest(f *testing.F) {
	types := []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, MediaTypeDockerIndex, MediaTypeDockerManifest, MediaTypeArtifact, "text/html"}
	c, _ := debianImage()
	for _, m := range c.manifests {
		f.Add(0, string(m.Bytes))
		f.Add(1, string(m.Bytes))
	}
	for i := range types {
		f.Add(i, `{"manifests":[{"digest":"sha256:../../x","size":-1}],"config":null,"layers":[{}],"blobs":[{"size":9223372036854775808}],"subject":{}}`)
		f.Add(i, strings.Repeat(`{"manifests":[`, 100))
		f.Add(i, `{"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"annotations":{"a":1}}`)
	}
	f.Fuzz(func(t *testing.T, mediaType int, text string) {
		if mediaType < 0 {
			mediaType = -(mediaType + 1)
		}
		as := types[mediaType%len(types)]
		SniffMediaType([]byte(text))
		configPlatform([]byte(text))
		graph, err := ParseManifest(as, []byte(text))
		if err != nil {
			if len(graph.Children) > 0 || graph.Subject != nil {
				t.Error("an error came with a graph")
			}
			return
		}
		// {"digest":"sha256:..."} has more bytes than a digest alone.
		if most := len(text) / len(digest.FromString("")); len(graph.Children) > most {
			t.Errorf("%d children in %d bytes", len(graph.Children), len(text))
		}
		for _, child := range graph.Children {
			if err := checkDigest(child.Digest); err != nil || child.Size < 0 || child.Kind == "" {
				t.Errorf("child is %+v, %v", child, err)
			}
			parsePlatform(FormatPlatform(child.Platform))
		}
		if graph.Subject != nil && checkDigest(graph.Subject.Digest) != nil {
			t.Errorf("subject is %+v", graph.Subject)
		}

		var spaced bytes.Buffer
		if err := json.Indent(&spaced, []byte(text), "\t", "  "); err != nil {
			t.Fatal(err)
		}
		if spaced.Len() <= MaxManifestSize {
			again, err := ParseManifest(as, spaced.Bytes())
			if err != nil || !reflect.DeepEqual(graph, again) {
				t.Errorf("spaced it is %+v, %v, and was %+v", again, err, graph)
			}
		}
		var index v1.Index
		var image v1.Manifest
		var listed []v1.Descriptor
		switch {
		case as == MediaTypeArtifact:
			return // of no type that the specification still has
		case IsIndex(as):
			if err := json.Unmarshal([]byte(text), &index); err != nil {
				t.Fatal(err)
			}
			listed = index.Manifests
		default:
			if err := json.Unmarshal([]byte(text), &image); err != nil {
				t.Fatal(err)
			}
			listed = append([]v1.Descriptor{image.Config}, image.Layers...)
		}
		if len(listed) != len(graph.Children) {
			t.Fatalf("%d children, and the specification has %d", len(graph.Children), len(listed))
		}
		for i, child := range graph.Children {
			if !reflect.DeepEqual(child.Descriptor, listed[i]) {
				t.Errorf("child %+v, and the specification has %+v", child, listed[i])
			}
		}
	})
}
