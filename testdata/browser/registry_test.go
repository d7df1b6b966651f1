package browser

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is an upstream in this process. It has images of two platforms and can
// be made slow.
type registry struct {
	server *httptest.Server
	blobs  map[string][]byte // by digest; manifests too
	types  map[string]string // of manifests
	tags   map[string]string // repository:tag to digest
	slow   atomic.Bool       // large blobs come a piece at a time
}

func newRegistry(t *testing.T) *registry {
	r := &registry{blobs: map[string][]byte{}, types: map[string]string{}, tags: map[string]string{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *registry) put(mediaType string, content []byte) v1.Descriptor {
	d := digest.FromBytes(content)
	r.blobs[d.String()] = content
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (r *registry) putManifest(mediaType string, doc any) v1.Descriptor {
	content, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	desc := r.put(mediaType, content)
	r.types[desc.Digest.String()] = mediaType
	return desc
}

// image adds an image of two platforms. A step makes a layer of as many bytes as
// it is told; the first is the same in all images.
func (r *registry) image(repository, tag string, steps map[string]int, order ...string) {
	var entries []v1.Descriptor
	for _, platform := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}} {
		config := v1.Image{Platform: platform, RootFS: v1.RootFS{Type: "layers"}}
		var layers []v1.Descriptor
		for i, step := range order {
			content := make([]byte, steps[step])
			if i > 0 {
				_, _ = rand.Read(content)
			} else {
				copy(content, platform.Architecture)
			}
			layers = append(layers, r.put(v1.MediaTypeImageLayerGzip, content))
			config.History = append(config.History, v1.History{CreatedBy: step})
		}
		text, err := json.Marshal(config)
		if err != nil {
			panic(err)
		}
		m := r.putManifest(v1.MediaTypeImageManifest, v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: r.put(v1.MediaTypeImageConfig, text), Layers: layers,
		})
		m.Platform = &platform
		entries = append(entries, m)
	}
	root := r.putManifest(v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: entries,
	})
	r.tags[repository+":"+tag] = root.Digest.String()
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok || path == "" {
		return
	}
	var ref string
	if repository, tag, ok := strings.Cut(path, "/manifests/"); ok {
		if ref = tag; !strings.Contains(tag, ":") {
			ref = r.tags[repository+":"+tag]
		}
	} else if _, d, ok := strings.Cut(path, "/blobs/"); ok {
		ref = d
	}
	content, ok := r.blobs[ref]
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	if mediaType := r.types[ref]; mediaType != "" {
		w.Header().Set("Content-Type", mediaType)
	}
	w.Header().Set("Docker-Content-Digest", ref)
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	if req.Method == http.MethodHead {
		return
	}
	for piece := range bytesChunk(content, 64<<10) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		if r.slow.Load() && len(content) > 1<<20 {
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func bytesChunk(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		in := bytes.NewReader(b)
		for buf := make([]byte, n); ; {
			k, err := in.Read(buf)
			if err != nil || !yield(buf[:k]) {
				return
			}
		}
	}
}
