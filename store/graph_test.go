package store

import (
	"strings"
	"testing"

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
		graph, err := ParseManifest(types[mediaType%len(types)], []byte(text))
		if err != nil {
			if len(graph.Children) > 0 || graph.Subject != nil {
				t.Error("an error came with a graph")
			}
			return
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
		SniffMediaType([]byte(text))
		configPlatform([]byte(text))
	})
}
