package upstream

import (
	"bytes"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPullThroughPlatforms(t *testing.T) {
	f, st := newFake(t), newStore(t)
	amdLayer, armLayer := f.blob(random(100)), f.blob(random(200))
	amd := platform(f.image([]v1.Descriptor{amdLayer}), "amd64")
	arm := platform(f.image([]v1.Descriptor{armLayer}), "arm64")
	f.index([]v1.Descriptor{amd, arm}, "1")
	p := newPullThrough(t, newClient(t, st, f), v1.Platform{OS: "linux", Architecture: "amd64"})
	readManifest(t, p, "1")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if has, _ := st.Has(t.Context(), amdLayer.Digest); has {
			break
		}
	}
	if n := count(f.asked(), "GET manifests/"+arm.Digest.String()); n != 0 {
		t.Error("a platform was fetched that is not wanted")
	}
	// What somebody asks for comes all the same.
	readManifest(t, p, arm.Digest.String())
	if got, err := readBlob(t.Context(), p, armLayer.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[armLayer.Digest]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	all, err := st.Arrivals(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("arrivals %v, %v", all, err)
	}
	if n, err := st.Arrived(t.Context(), all[0]); err != nil || n.Blobs < 5 {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestPullThroughRemoved(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(300_000, "1")
	reached, release := f.halfway(layer)
	defer release()
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	<-reached
	if _, _, err := st.Remove(t.Context(), app, "1"); err != nil {
		t.Fatal(err)
	}
	second, _ := f.simple(100, "1")
	if m := readManifest(t, p, "1"); m.Digest != second.Digest {
		t.Errorf("after its removal the tag still means %s", m.Digest)
	}
	if pin := waitPinned(t, st, "1"); pin.Digest != second.Digest {
		t.Errorf("pinned %s", pin.Digest)
	}
}

// Of an image that is arriving, referrers are what the registry says; of one
// that is pinned, what came with it.
func TestPullThroughReferrers(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.referrersAPI = true
	root, layer := f.simple(300_000, "1")
	f.referrer(root, "a signature")
	reached, release := f.halfway(layer)
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	<-reached
	if list, err := p.Referrers(t.Context(), app, root.Digest); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	release()
	waitPinned(t, st, "1")
	f.heard()
	if list, err := p.Referrers(t.Context(), app, root.Digest); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := p.Manifest(t.Context(), app, "sha256-"+root.Digest.Encoded()+".sig"); !isMissing(err) {
		t.Error(err)
	}
	if list, err := st.Referrers(t.Context(), app, root.Digest); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("for a pinned image the upstream was asked %q", asked)
	}
}
