package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

func platform(d v1.Descriptor, arch string) v1.Descriptor {
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	return d
}

// An image with all there is: nested indexes, both families of media types,
// zstd and plain layers, an attestation, a signature by tag.
func TestWholeImage(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("api=%v", api), func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			f.referrersAPI = api
			shared := f.blob(random(5000))
			zstd := f.blob(random(100))
			zstd.MediaType = v1.MediaTypeImageLayerZstd
			plain := f.blob(random(100))
			plain.MediaType = v1.MediaTypeImageLayer
			empty := f.blob(nil)
			amd := f.image([]v1.Descriptor{shared, zstd, empty}, "amd")
			arm := f.image([]v1.Descriptor{shared, plain, shared})
			config := f.blob([]byte(`{"os":"linux","architecture":"s390x"}`))
			config.MediaType = "application/vnd.docker.container.image.v1+json"
			docker := f.manifest(store.MediaTypeDockerManifest, map[string]any{
				"schemaVersion": 2, "mediaType": store.MediaTypeDockerManifest, "config": config, "layers": []v1.Descriptor{shared},
			})
			attestation := f.image([]v1.Descriptor{f.blob([]byte("provenance"))})
			attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
			nested := f.manifest(store.MediaTypeDockerIndex, map[string]any{
				"schemaVersion": 2, "mediaType": store.MediaTypeDockerIndex, "manifests": []v1.Descriptor{platform(docker, "s390x")},
			})
			root := f.index([]v1.Descriptor{platform(amd, "amd64"), platform(arm, "arm64"), attestation, nested}, "1")
			signature := f.image([]v1.Descriptor{f.blob([]byte("signature"))}, "sha256-"+root.Digest.Encoded()+".sig")
			sbom := f.referrer(root, "sbom")
			onSBOM := f.referrer(sbom, "signature of the sbom")
			onPlatform := f.referrer(arm, "signature of a platform")
			if !api {
				f.index([]v1.Descriptor{sbom}, "sha256-"+root.Digest.Encoded())
				f.index([]v1.Descriptor{onSBOM}, "sha256-"+sbom.Digest.Encoded())
				f.index([]v1.Descriptor{onPlatform}, "sha256-"+arm.Digest.Encoded())
			}

			pin := mustFetch(t, newClient(t, st, f), "1")
			if pin.Digest != root.Digest || pin.MediaType != root.MediaType || len(pin.Platforms) != 3 {
				t.Errorf("pin: %+v", pin)
			}
			checkStored(t, st, f)
			for subject, want := range map[digest.Digest]digest.Digest{root.Digest: sbom.Digest, sbom.Digest: onSBOM.Digest, arm.Digest: onPlatform.Digest} {
				got, err := st.Referrers(t.Context(), pin.Repository, subject)
				if err != nil || len(got) != 1 || got[0].Digest != want {
					t.Errorf("referrers of %s: %v %v", subject, got, err)
				}
			}
			m, err := st.Manifest(t.Context(), pin.Repository, "sha256-"+root.Digest.Encoded()+".sig")
			if err != nil || m.Digest != signature.Digest {
				t.Errorf("signature tag: %v %v", m.Digest, err)
			}
			asked := f.asked()
			for _, one := range asked {
				if strings.HasPrefix(one, "GET ") && count(asked, one) > 1 {
					t.Errorf("%d times %s", count(asked, one), one)
				}
			}
			if slices.ContainsFunc(asked, func(s string) bool { return strings.HasSuffix(s, empty.Digest.String()) }) {
				t.Error("a blob of no bytes was asked for")
			}
		})
	}
}

func TestPlainManifest(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, _ := f.simple(1000, "1")
	pin := mustFetch(t, newClient(t, st, f), "1")
	if pin.Digest != image.Digest {
		t.Errorf("pinned %s, want %s", pin.Digest, image.Digest)
	}
	checkStored(t, st, f)
}

func TestSHA512(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer := f.blobAs(digest.SHA512, random(300))
	config := f.blobAs(digest.SHA512, []byte(`{}`))
	raw, _ := json.Marshal(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer}})
	image := f.raw(digest.SHA512, v1.MediaTypeImageManifest, raw)
	f.index([]v1.Descriptor{platform(image, "amd64")}, "1")
	mustFetch(t, newClient(t, st, f), "1")
	checkStored(t, st, f)
}

// Against a registry that others wrote.
func TestOtherRegistry(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, layer := f.simple(70_000)
	root := f.index([]v1.Descriptor{platform(image, "amd64")})
	sbom := f.referrer(root, "sbom")
	srv := httptest.NewServer(ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	put := func(path, mediaType string, content []byte) {
		t.Helper()
		req, _ := http.NewRequest(http.MethodPut, srv.URL+path, bytes.NewReader(content))
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %v %v", path, resp, err)
		}
		_ = resp.Body.Close()
	}
	for d, content := range f.blobs {
		if _, isManifest := f.manifests[d.String()]; !isManifest {
			resp, err := http.Post(srv.URL+"/v2/team/app/blobs/uploads/?digest="+d.String(), "application/octet-stream", bytes.NewReader(content))
			if err != nil || resp.StatusCode != http.StatusCreated {
				t.Fatalf("blob: %v %v", resp, err)
			}
			_ = resp.Body.Close()
		}
	}
	for _, d := range []v1.Descriptor{image, root, sbom} {
		put("/v2/team/app/manifests/"+d.Digest.String(), d.MediaType, f.blobs[d.Digest])
	}
	put("/v2/team/app/manifests/1", root.MediaType, f.blobs[root.Digest])
	mustFetch(t, newClientOf(t, st, Registry{URL: srv.URL}), "1")
	checkStored(t, st, f, image, layer, root, sbom)
}

// Layers that registries do not distribute are not asked for.
func TestForeignLayers(t *testing.T) {
	f, st := newFake(t), newStore(t)
	foreign := v1.Descriptor{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("windows"), Size: 7,
		URLs: []string{f.URL + "/elsewhere"},
	}
	f.image([]v1.Descriptor{foreign, f.blob(random(10))}, "1")
	mustFetch(t, newClient(t, st, f), "1")
	for _, one := range f.asked() {
		if strings.Contains(one, foreign.Digest.String()) || strings.Contains(one, "elsewhere") {
			t.Errorf("asked for a foreign layer: %s", one)
		}
	}
}

// A folder of OCI layouts in a registry's place, with a referrer that no tag
// leads to, and names that must not lead out of it.
func TestFolder(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, _ := f.simple(5000)
	root := f.index([]v1.Descriptor{platform(image, "amd64")})
	sbom := f.referrer(root, "sbom")
	folder := t.TempDir()
	layout := filepath.Join(folder, "team", "app")
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(layout, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for d, content := range f.blobs {
		write("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), content)
	}
	tagged := root
	tagged.Annotations = map[string]string{v1.AnnotationRefName: "1"}
	list, _ := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{tagged, sbom}})
	write("index.json", list)
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))

	c := newClientOf(t, st, Registry{URL: "ocidir://" + folder})
	pin := mustFetch(t, c, "1")
	checkStored(t, st, f)
	if got, err := st.Referrers(t.Context(), pin.Repository, root.Digest); err != nil || len(got) != 1 {
		t.Errorf("referrers: %v %v", got, err)
	}
	for _, tag := range []string{"2", ".."} {
		if _, err := c.Resolve(t.Context(), named(t, "example.test/team/app:1")); err != nil {
			t.Fatal(err)
		}
		e, err := c.registry("example.test")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.head(t.Context(), e.endpoints[0], store.Repository{Registry: "example.test", Path: "team/app"}, tag)
		wantError(t, err, ErrNotFound)
	}
	_, err := fetchName(c, named(t, "example.test/team/other:1"))
	wantError(t, err, ErrNotFound)
}
