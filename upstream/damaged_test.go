package upstream

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// corrupt flips a bit in a file of the store, behind the first occurrence of mark.
func corrupt(t *testing.T, st *store.Store, mark string, path ...string) {
	t.Helper()
	file := filepath.Join(append([]string{st.Dir()}, path...)...)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, []byte(mark))
	if at < 0 {
		t.Fatalf("%s has no %q", file, mark)
	}
	content[at+len(mark)] ^= 1
	if err := errors.Join(os.Remove(file), os.WriteFile(file, content, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// damagedImage is an image of which a layer, and a manifest in its file and in the
// index, were damaged on the disk.
func damagedImage(t *testing.T, f *fake) (st *store.Store, image, layer digest.Digest) {
	t.Helper()
	st = newStore(t)
	root, l := f.simple(50_000, "1")
	c := newClient(t, st, f)
	mustFetch(t, c, "1")
	if err := errors.Join(c.Close(), st.Close()); err != nil {
		t.Fatal(err)
	}
	corrupt(t, st, `"lay`, "index.db")
	corrupt(t, st, `"lay`, "blobs", "sha256", root.Digest.Encoded())
	corrupt(t, st, "", "blobs", "sha256", l.Digest.Encoded())
	st, err := store.Open(t.Context(), st.Dir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	f.asked()
	return st, root.Digest, l.Digest
}

// verify --repair asks for what is damaged, by digest, and for nothing else: also
// for a manifest of which no copy is left.
func TestRepairAsksForWhatIsDamaged(t *testing.T) {
	f := newFake(t)
	st, image, layer := damagedImage(t, f)
	c := newClient(t, st, f)
	checked, err := st.Verify(t.Context(), nil, nil)
	if err != nil || len(checked.Damage) != 2 {
		t.Fatalf("damage: %+v, %v", checked.Damage, err)
	}
	for _, d := range checked.Damage {
		if err := c.Repair(t.Context(), app, d.Descriptor); err != nil {
			t.Errorf("repair %s: %v", d.Digest, err)
		}
	}
	asked := f.asked()
	slices.Sort(asked)
	if want := []string{"GET blobs/" + layer.String(), "GET manifests/" + image.String()}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	checkStored(t, st, f)
}

// A mirror repairs what the registry itself does not have any more.
func TestRepairFromMirror(t *testing.T) {
	f := newFake(t)
	st, _, layer := damagedImage(t, f)
	gone := newFake(t)
	c := newClientOf(t, st, Registry{URL: gone.URL, Mirrors: []string{f.URL}})
	checked, err := st.Verify(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range checked.Damage {
		if err := c.Repair(t.Context(), app, d.Descriptor); err != nil {
			t.Errorf("repair %s: %v", d.Digest, err)
		}
	}
	if asked := f.asked(); len(asked) != 2 || count(asked, "GET blobs/"+layer.String()) != 1 {
		t.Errorf("the mirror was asked %q", asked)
	}
	if asked := gone.asked(); len(asked) != 0 {
		t.Errorf("the registry was asked %q", asked)
	}
	checkStored(t, st, f)
}

// With pull-through what is damaged comes back as it is asked for, once.
func TestPullThroughRepairs(t *testing.T) {
	f := newFake(t)
	st, image, layer := damagedImage(t, f)
	p := newPullThrough(t, newClient(t, st, f))
	if _, err := st.Verify(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, reference := range []string{"1", image.String()} {
			if m := readManifest(t, p, reference); m.Digest != image || digest.FromBytes(m.Bytes) != image {
				t.Errorf("%s: %s", reference, m.Bytes)
			}
		}
		if b, err := readBlob(t.Context(), p, layer, 0); err != nil || digest.FromBytes(b) != layer {
			t.Errorf("layer: %d bytes, %v", len(b), err)
		}
	}
	asked := f.asked()
	slices.Sort(asked)
	if want := []string{"GET blobs/" + layer.String(), "GET manifests/" + image.String()}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	checkStored(t, st, f)
}
