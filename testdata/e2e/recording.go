//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// recording is what an upstream sent for some images, to be compared with what
// the mirror sends after the upstream is gone.
type recording struct {
	tags      map[string]string           // library/busybox:1.35 -> digest
	manifests map[string]recordedManifest // library/busybox@sha256:... -> bytes
	blobs     map[string]int64            // library/busybox@sha256:... -> size
}

type recordedManifest struct {
	mediaType string
	bytes     []byte
}

// digest of a recorded image.
func (r *recording) digest(tb testing.TB, image string) string {
	tb.Helper()
	d, ok := r.tags[image]
	if !ok {
		tb.Fatalf("%s was not recorded", image)
	}
	return d
}

// add records images from the registry at base.
func (r *recording) add(tb testing.TB, base string, images ...string) {
	tb.Helper()
	for _, image := range images {
		name, tag, _ := strings.Cut(image, ":")
		r.tags[image] = r.walk(tb, base, name, tag)
	}
}

// walk records a manifest and everything below it, and returns its digest.
func (r *recording) walk(tb testing.TB, base, name, reference string) string {
	tb.Helper()
	answer := get(tb, base+"/v2/"+name+"/manifests/"+reference)
	if answer.StatusCode != http.StatusOK {
		tb.Fatalf("%s:%s: %s", name, reference, answer.Status)
	}
	digest := digestOf(answer.body)
	if key := name + "@" + digest; r.manifests[key].bytes == nil {
		r.manifests[key] = recordedManifest{answer.Header.Get("Content-Type"), answer.body}
		for _, child := range decode(tb, answer.body).Manifests {
			r.walk(tb, base, name, child.Digest)
		}
		for _, d := range blobsOf(decode(tb, answer.body)) {
			r.blobs[name+"@"+d.Digest] = d.Size
		}
	}
	return digest
}

func blobsOf(m manifest) []descriptor {
	if m.Config == nil {
		return m.Layers
	}
	return append([]descriptor{*m.Config}, m.Layers...)
}

func decode(tb testing.TB, text []byte) manifest {
	tb.Helper()
	var m manifest
	check(tb, json.Unmarshal(text, &m))
	return m
}

// compare checks that the registry at base has all of it: every manifest by
// digest and by tag byte for byte and with the same type, GET and HEAD, and
// every blob.
func (r *recording) compare(t *testing.T, base string) {
	t.Helper()
	manifests := map[string]string{} // path -> key of the manifest expected there
	for key := range r.manifests {
		name, digest, _ := strings.Cut(key, "@")
		manifests[name+"/manifests/"+digest] = key
	}
	for image, digest := range r.tags {
		name, tag, _ := strings.Cut(image, ":")
		manifests[name+"/manifests/"+tag] = name + "@" + digest
	}
	for path, key := range manifests {
		want := r.manifests[key]
		_, digest, _ := strings.Cut(key, "@")
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			answer := ask(t, method, base+"/v2/"+path)
			got := fmt.Sprintf("%d, %s, %s, %s bytes", answer.StatusCode, answer.Header.Get("Content-Type"),
				answer.Header.Get("Docker-Content-Digest"), answer.Header.Get("Content-Length"))
			wanted := fmt.Sprintf("200, %s, %s, %d bytes", want.mediaType, digest, len(want.bytes))
			if got != wanted {
				t.Errorf("%s %s:\n got %s\nwant %s", method, path, got, wanted)
			}
			if method == http.MethodGet && !bytes.Equal(answer.body, want.bytes) {
				t.Errorf("%s has other bytes than upstream", path)
			}
		}
	}
	for key, size := range r.blobs {
		name, digest, _ := strings.Cut(key, "@")
		response, err := http.Get(base + "/v2/" + name + "/blobs/" + digest)
		check(t, err)
		hash := sha256.New()
		n, err := io.Copy(hash, response.Body)
		response.Body.Close()
		if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); err != nil || response.StatusCode != 200 || n != size || got != digest {
			t.Errorf("blob %s: %s, %d of %d bytes, %s, %v", key, response.Status, n, size, got, err)
		}
	}
}

type answer struct {
	*http.Response
	body []byte
}

// every is the Accept header of a client that takes all it can get.
var every = []string{ociIndex, ociManifest, dockerIndex, dockerManifest, "*/*"}

func get(tb testing.TB, target string) answer {
	tb.Helper()
	return ask(tb, http.MethodGet, target)
}

func ask(tb testing.TB, method, target string) answer {
	tb.Helper()
	request, err := http.NewRequest(method, target, nil)
	check(tb, err)
	request.Header["Accept"] = every
	return do(tb, request)
}

func do(tb testing.TB, request *http.Request) answer {
	tb.Helper()
	response, err := http.DefaultClient.Do(request)
	check(tb, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(tb, err)
	return answer{response, body}
}
