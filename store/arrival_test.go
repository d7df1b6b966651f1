package store

import (
	"errors"
	"os"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestArrival(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	c, root := debianImage()
	repo := Repository{Registry: "docker.io", Path: "library/debian"}

	a := must[Arrival](t)(s.Arrive(ctx, repo, "12", root))
	other := v1.Descriptor{Digest: describe([]byte("other")).Digest, MediaType: root.MediaType}
	if b := must[Arrival](t)(s.Arrive(ctx, repo, "12", other)); b != a {
		t.Errorf("the second decision was %v, not %v", b, a)
	}
	if _, err := s.Pin(ctx, repo, "12"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an arrival is pinned: %v", err)
	}
	if n := must[Arrived](t)(s.Arrived(ctx, a)); n.Blobs != 0 || n.TotalBlobs != 1 {
		t.Errorf("nothing is here, but %+v", n)
	}

	l := s.LeaseFor(a)
	if err := c.put(ctx, l); err != nil {
		t.Fatal(err)
	}
	if n := must[Arrived](t)(s.Arrived(ctx, a)); n.Blobs != n.TotalBlobs || n.Bytes != n.TotalBytes || n.Blobs < 5 {
		t.Errorf("all is here, but %+v", n)
	}
	// What arrived stays when no process runs.
	files := len(blobFiles(t, s))
	s = reopen(t, s)
	must[Freed](t)(s.Collect(ctx, 0))
	if n := len(blobFiles(t, s)); n != files {
		t.Errorf("gc left %d of %d files of an arrival", n, files)
	}

	// Whoever publishes another digest is told.
	image := c.at(repo, "12", root.Digest)
	wrong, wrongRoot := debianImage()
	extra := wrong.layer("something else")
	wrongRoot = wrong.index(wrong.image("linux/amd64", extra))
	var conflict *ConflictError
	if _, err := add(ctx, s, wrong, repo, "12", wrongRoot.Digest, false); !errors.As(err, &conflict) || conflict.Pinned.Digest != root.Digest {
		t.Errorf("another digest was pinned over an arrival: %v", err)
	}

	pin := must[Pin](t)(s.PublishArrival(ctx, a, image.Manifests, image.Companions))
	if pin.Digest != root.Digest {
		t.Errorf("pinned %v", pin)
	}
	if all := must[[]Arrival](t)(s.Arrivals(ctx)); len(all) != 0 {
		t.Errorf("%v is pinned and arriving", all)
	}
	if _, err := s.Arrive(ctx, repo, "12", other); !errors.Is(err, ErrExists) {
		t.Errorf("what is pinned arrived again: %v", err)
	}
	if _, err := s.PublishArrival(ctx, a, image.Manifests, image.Companions); !errors.Is(err, ErrLeaseEnded) {
		t.Errorf("published twice: %v", err)
	}
	must[Freed](t)(s.Collect(ctx, 0))
	checkClean(t, s)
	if n := count(t, s, "SELECT count(*) FROM hold"); n != 0 {
		t.Errorf("%d holds are left", n)
	}
}

func TestRemoveArrival(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	c, root := debianImage()
	repo := Repository{Registry: "docker.io", Path: "library/debian"}
	a := must[Arrival](t)(s.Arrive(ctx, repo, "12", root))
	l := s.LeaseFor(a)
	if err := c.put(ctx, l); err != nil {
		t.Fatal(err)
	}
	pin, freed, err := s.Remove(ctx, repo, "12")
	if err != nil || pin.Digest != root.Digest || freed.Blobs == 0 {
		t.Errorf("removed %v, freed %+v, %v", pin, freed, err)
	}
	if n := len(blobFiles(t, s)); n != 0 {
		t.Errorf("%d files are left", n)
	}
	image := c.at(repo, "12", root.Digest)
	if _, err := s.PublishArrival(ctx, a, image.Manifests, image.Companions); !errors.Is(err, ErrLeaseEnded) {
		t.Errorf("published what was removed: %v", err)
	}
	if err := l.Hold(ctx, describe([]byte("more")).Digest); !errors.Is(err, ErrLeaseEnded) {
		t.Errorf("held for what was removed: %v", err)
	}
	if _, _, err := s.Remove(ctx, repo, "12"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.dir)
}

// What is written for an arrival while that is removed is left to the collector,
// and what has been collected already gets no row.
func TestRemoveArrivalWhileWriting(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	repo := Repository{Registry: "docker.io", Path: "library/debian"}
	a := must[Arrival](t)(s.Arrive(ctx, repo, "12", describe([]byte("an index"))))
	l := s.LeaseFor(a)
	content := noise(1000)
	w := must[*Writer](t)(l.Writer(ctx, describe(content)))
	defer w.Close()
	must[int](t)(w.Write(content))
	if _, _, err := s.Remove(ctx, repo, "12"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Writer(ctx, describe(content)); !errors.Is(err, ErrLeaseEnded) {
		t.Errorf("a new writer for what was removed: %v", err)
	}
	if err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if freed := must[Freed](t)(s.Collect(ctx, 0)); freed.Blobs != 1 {
		t.Errorf("gc freed %+v", freed)
	}
	if files := blobFiles(t, s); len(files) != 0 {
		t.Errorf("%v is left", files)
	}

	d := describe(content).Digest
	if err := s.commits.commit(ctx, commit{digest: d, size: 1000}); err == nil {
		t.Error("a blob without a file was committed")
	}
	if has := must[bool](t)(s.Has(ctx, d)); has {
		t.Error("a blob without a file has a row")
	}
}

// A file that the disk has lost is no reason not to write it again.
func TestWriterOfLostFile(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	b := []byte("content")
	d := describe(b)
	for range 2 {
		if err := write(t.Context(), l, d.Digest, b); err != nil {
			t.Fatal(err)
		}
		if got := must[[]byte](t)(s.ReadBlob(t.Context(), d.Digest, 100)); string(got) != string(b) {
			t.Errorf("got %q", got)
		}
		if err := os.Remove(s.blobPath(d.Digest)); err != nil {
			t.Fatal(err)
		}
	}
}
