package upstream

import (
	"bytes"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestBlobRepository(t *testing.T) {
	const d = digest.Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
	for address, want := range map[string]string{
		"https://mcr.microsoft.com/v2/windows/base/blobs/" + d.String():         "mcr.microsoft.com/windows/base",
		"https://Registry-1.docker.io/v2/library/base/blobs/" + d.String():      "docker.io/library/base",
		"http://localhost:5000/v2/base/blobs/" + d.String():                     "localhost:5000/base",
		"https://go.microsoft.com/fwlink/?linkid=873595":                        "",
		"https://mcr.microsoft.com/v2/windows/base/blobs/sha256:1234":           "",
		"https://mcr.microsoft.com/v2/windows/../base/blobs/" + d.String():      "",
		"https://mcr.microsoft.com/v2/windows/base:1/blobs/" + d.String():       "",
		"https://mcr.microsoft.com/v2/a@" + d.String() + "/blobs/" + d.String(): "",
		"https://user:secret@mcr.microsoft.com/v2/base/blobs/" + d.String():     "",
		"file:///v2/base/blobs/" + d.String():                                   "",
		"https:///v2/base/blobs/" + d.String():                                  "",
		"":                                                                      "",
	} {
		repo, ok := blobRepository(address, d)
		if ok != (want != "") || ok && repo.String() != want {
			t.Errorf("%s: %s, %v", address, repo, ok)
		}
	}
}

// A foreign layer is asked of the registries that are listed, the image's own
// first, and of nobody else that its URLs name.
func TestForeignLayer(t *testing.T) {
	own, windows, stranger := newFake(t), newFake(t), newFake(t)
	p := twoRegistries(t, own, windows)
	foreign := func(content []byte, hosts ...string) v1.Descriptor {
		d := stranger.blob(content)
		d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		for _, host := range hosts {
			d.URLs = append(d.URLs, host+"/v2/windows/base/blobs/"+d.Digest.String())
		}
		return d
	}
	base := foreign(random(1000), stranger.URL, "https://169.254.169.254", "https://other.test")
	windows.blob(stranger.blobs[base.Digest])
	lost := foreign(random(2000), stranger.URL, "https://other.test")
	apart := foreign(random(3000), stranger.URL)
	late := foreign(random(1500), "https://other.test") // asked for when the image is pinned
	windows.blob(stranger.blobs[late.Digest])
	own.image([]v1.Descriptor{base, lost, apart, late, own.blob(random(4000))}, "1")
	readManifest(t, p, "1")
	for _, state := range []string{"arriving or just pinned", "pinned"} {
		if got, err := readBlob(t.Context(), p, base.Digest, 0); err != nil || !bytes.Equal(got, stranger.blobs[base.Digest]) {
			t.Errorf("%s: %d bytes, %v", state, len(got), err)
		}
		for _, d := range []v1.Descriptor{lost, apart} {
			if got, err := readBlob(t.Context(), p, d.Digest, 0); !isMissing(err) {
				t.Errorf("%s: of what is nowhere: %d bytes, %v", state, len(got), err)
			}
		}
		waitPinned(t, p.store, "1")
	}
	if got, err := readBlob(t.Context(), p, late.Digest, 0); err != nil || !bytes.Equal(got, stranger.blobs[late.Digest]) {
		t.Errorf("of a pinned image: %d bytes, %v", len(got), err)
	}
	if asked := stranger.asked(); len(asked) != 0 {
		t.Errorf("a stranger was asked %q", asked)
	}
	if asked := windows.asked(); !slices.Contains(asked, "HEAD blobs/"+lost.Digest.String()) || count(asked, "GET blobs/"+base.Digest.String()) != 1 {
		t.Errorf("the other registry was asked %q", asked)
	}
}
