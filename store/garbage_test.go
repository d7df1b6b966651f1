package store

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestRemove(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	other := newContent()
	otherRoot := other.image("linux/amd64", other.layer("shared layer"), other.layer("own"))
	mustAdd(t, s, other, Repository{"ghcr.io", "a/b"}, "v1", otherRoot.Digest)

	r, _, err := s.Blob(t.Context(), debian, digest.FromString("amd64 layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	var want Freed
	for d, b := range c.blobs {
		if _, shared := other.blobs[d]; !shared {
			want.add(Freed{1, int64(len(b))})
		}
	}
	for _, m := range c.manifests {
		want.add(Freed{1, m.Size})
	}
	pin, freed, err := s.Remove(t.Context(), debian, "bookworm")
	if err != nil || pin.Digest != root.Digest || freed != want {
		t.Errorf("removed %s, freed %+v, %v; want %+v", pin.Digest, freed, err, want)
	}
	if _, _, err := s.Remove(t.Context(), debian, "bookworm"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "amd64 layer" {
		t.Errorf("an open blob reads as %q, %v after its removal", b, err)
	}
	if got, want := len(blobFiles(t, s)), len(other.blobs)+len(other.manifests); got != want {
		t.Errorf("%d files are left, want %d", got, want)
	}
	if n := count(t, s, "SELECT count(*) FROM hold"); n != 0 {
		t.Errorf("%d holds are left", n)
	}
	checkClean(t, s)
}

// A pin of a manifest that refers to something that is not here, or that is no
// manifest, must not stay for ever.
func TestRemoveReferrerOfNothing(t *testing.T) {
	s := newStore(t)
	c := newContent()
	root := c.referrer(c.describe(v1.MediaTypeImageManifest, []byte("not here")), "signature")
	mustAdd(t, s, c, debian, "signature", root.Digest)
	odd := newContent()
	oddRoot := odd.referrer(odd.layer("a layer"), "signature of a layer")
	mustAdd(t, s, odd, debian, "odd", oddRoot.Digest)
	mustAdd(t, s, odd, debian, "odd2", oddRoot.Digest)
	for _, tag := range []string{"signature", "odd", "odd2"} {
		if _, _, err := s.Remove(t.Context(), debian, tag); err != nil {
			t.Fatal(err)
		}
	}
	must[Freed](t)(s.Collect(t.Context(), 0))
	if n, files := count(t, s, "SELECT count(*) FROM manifest"), len(blobFiles(t, s)); n != 0 || files != 0 {
		t.Errorf("%d manifests and %d files are left", n, files)
	}
}

// The companion tags of a repository go with its image, also when another
// repository keeps the image.
func TestRemoveCompanions(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mirror := Repository{"ghcr.io", "mirror/debian"}
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	mustAdd(t, s, c, debian, "12", root.Digest)
	mustAdd(t, s, c, mirror, "bookworm", root.Digest)
	tag := c.companions[0].Reference
	for _, step := range []struct {
		repo             Repository
		reference        string
		here, elsewhere  bool
		manifestsThereBe bool
	}{
		{debian, "12", true, true, true},
		{debian, "bookworm", false, true, true},
		{mirror, "bookworm", false, false, false},
	} {
		if _, _, err := s.Remove(t.Context(), step.repo, step.reference); err != nil {
			t.Fatal(err)
		}
		_, here := s.Manifest(t.Context(), debian, tag)
		_, elsewhere := s.Manifest(t.Context(), mirror, tag)
		if (here == nil) != step.here || (elsewhere == nil) != step.elsewhere {
			t.Errorf("after rm %s:%s: %v, %v", step.repo, step.reference, here, elsewhere)
		}
	}
}

func TestLeaseProtects(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	l := newLease(t, s)
	shared := digest.FromString("shared layer")
	if err := l.Hold(t.Context(), shared); err != nil {
		t.Fatal(err)
	}
	loose := []byte("not published yet")
	if err := write(t.Context(), l, digest.FromBytes(loose), loose); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Remove(t.Context(), debian, "bookworm"); err != nil {
		t.Fatal(err)
	}
	other := open(t, s.dir)
	for _, collector := range []*Store{s, other} {
		must[Freed](t)(collector.Collect(t.Context(), 0))
		if files := blobFiles(t, s); len(files) != 2 || !files[shared] || !files[digest.FromBytes(loose)] {
			t.Errorf("files are %v", files)
		}
		if has := must[bool](t)(s.Has(t.Context(), shared)); !has {
			t.Error("what a lease holds has lost its row")
		}
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Hold(t.Context(), digest.FromString("later")); err == nil {
		t.Error("a closed lease holds")
	}
	freed := must[Freed](t)(other.Collect(t.Context(), 0))
	if freed.Blobs != 2 || len(blobFiles(t, s)) != 0 {
		t.Errorf("freed %+v after the lease", freed)
	}
	if n := count(t, s, "SELECT (SELECT count(*) FROM hold) + (SELECT count(*) FROM lease)"); n != 0 {
		t.Errorf("%d rows are left of the lease", n)
	}
}

// A lease file whose lock nobody has is that of a dead process. One without a
// row is of a process that died before its lease began.
func TestDeadLease(t *testing.T) {
	s := newStore(t)
	dead := newLease(t, s)
	if err := write(t.Context(), dead, digest.FromString("left"), []byte("left")); err != nil {
		t.Fatal(err)
	}
	if err := dead.file.Close(); err != nil { // all that the end of a process does
		t.Fatal(err)
	}
	s.mu.Lock()
	delete(s.leases, dead.id)
	s.mu.Unlock()
	if err := os.WriteFile(s.leasePath("EARLY"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	alive := newLease(t, s)
	freed := must[Freed](t)(s.Collect(t.Context(), 0))
	if freed != (Freed{1, 4}) || len(blobFiles(t, s)) != 0 {
		t.Errorf("freed %+v", freed)
	}
	entries := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(s.dir, "leases")))
	if len(entries) != 1 || entries[0].Name() != alive.name {
		t.Errorf("lease files are %v", entries)
	}
	if n := count(t, s, "SELECT count(*) FROM lease"); n != 1 {
		t.Errorf("%d leases are left", n)
	}
}

func TestPartials(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	begin := func(text string) *Writer {
		w := must[*Writer](t)(l.Writer(t.Context(), v1.Descriptor{Digest: digest.FromString(text), Size: 100}))
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return w
	}
	old := time.Now().Add(-2 * PartialAge)
	var paths []string
	for _, text := range []string{"old", "young", "old but in use"} {
		w := begin(text)
		paths = append(paths, w.file.Name())
		if text != "young" {
			if err := os.Chtimes(w.file.Name(), old, old); err != nil {
				t.Fatal(err)
			}
		}
		if text == "old but in use" {
			defer w.Close()
		} else if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	halfway := s.ingestPath(digest.FromString("moved out")) + removedSuffix
	if err := os.WriteFile(halfway, []byte("12"), 0o444); err != nil {
		t.Fatal(err)
	}
	freed := must[Freed](t)(s.Collect(t.Context(), PartialAge))
	if freed != (Freed{2, 5}) {
		t.Errorf("freed %+v", freed)
	}
	for path, there := range map[string]bool{paths[0]: false, paths[1]: true, paths[2]: true, halfway: false} {
		if _, err := os.Stat(path); (err == nil) != there {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What has no lease and no pin but a row, as after a commit whose lease is
// gone, is found by the collector; what is pinned again meanwhile stays.
func TestCollectKeepsWhatIsPinnedAgain(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	other := newContent()
	o := other.image("linux/amd64", other.layer("other"))
	must[Pin](t)(add(t.Context(), s, other, debian, "bookworm", o.Digest, true)) // the old one waits for gc
	mustAdd(t, s, c, debian, "again", root.Digest)
	must[Freed](t)(s.Collect(t.Context(), 0))
	want := len(c.blobs) + len(c.manifests) + 2 // they have a configuration in common
	if got := len(blobFiles(t, s)); got != want {
		t.Errorf("%d files, want %d", got, want)
	}
	checkClean(t, s)
}

func TestContextEnds(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	pin := mustAdd(t, s, c, debian, "bookworm", root.Digest)
	l := newLease(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, fn := range map[string]func() error{
		"open":    func() error { _, err := Open(ctx, s.dir); return err },
		"lease":   func() error { _, err := s.NewLease(ctx); return err },
		"hold":    func() error { return l.Hold(ctx, digest.FromString("new")) },
		"writer":  func() error { _, err := l.Writer(ctx, describe([]byte("new"))); return err },
		"publish": func() error { _, err := l.Publish(ctx, c.at(debian, "new", root.Digest), false); return err },
		"remove":  func() error { _, _, err := s.Remove(ctx, debian, "bookworm"); return err },
		"collect": func() error { _, err := s.Collect(ctx, 0); return err },
		"verify":  func() error { _, err := s.Verify(ctx, []Pin{pin}, nil); return err },
		"pins":    func() error { _, err := s.Pins(ctx); return err },
		"tree":    func() error { _, err := s.Tree(ctx, root.Digest); return err },
		"tags":    func() error { _, err := s.Tags(ctx, debian, "", -1); return err },
		"has":     func() error { _, err := s.Has(ctx, root.Digest); return err },
	} {
		if err := fn(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must[Pin](t)(s.Pin(t.Context(), debian, "bookworm"))
	checkClean(t, s)
}
