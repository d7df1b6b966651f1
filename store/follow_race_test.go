package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Between the rename and the row another process may open a file of its own
// under the name of the partial download.
func TestFollowOtherFile(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	content := noise(3 * heldBack)
	w := must[*Writer](t)(l.Writer(t.Context(), describe(content)))
	defer w.Close()
	must[int](t)(w.Write(content))
	name := w.file.Name()
	if err := errors.Join(os.Rename(name, name+".moved"), os.WriteFile(name, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	f := must[*Follower](t)(w.Follow(t.Context()))
	if n, err := f.Read(make([]byte, 1)); !errors.Is(err, ErrBroken) {
		t.Errorf("read %d bytes of another file: %v", n, err)
	}
	if err := errors.Join(f.Close(), os.Rename(name+".moved", s.blobPath(w.desc.Digest))); err != nil {
		t.Fatal(err)
	}
	f = must[*Follower](t)(w.Follow(t.Context()))
	defer f.Close()
	if n, err := f.Read(make([]byte, 10)); n != 10 || err != nil {
		t.Errorf("after it was moved to its place: %d bytes, %v", n, err)
	}
	if err := os.Rename(s.blobPath(w.desc.Digest), name); err != nil {
		t.Fatal(err)
	}
}

// Whoever comes while a buffer fills up gets what is there with the next bytes,
// and does not wait until it is full: on a slow link that takes long.
func TestFollowLate(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	content := noise(2 * bufferSize)
	w := must[*Writer](t)(l.Writer(t.Context(), describe(content)))
	defer w.Close()
	from, to := io.Pipe()
	written := make(chan struct{})
	defer func() {
		to.Close()
		<-written
	}()
	go func() {
		defer close(written)
		_, _ = w.ReadFrom(from)
	}()
	must[int](t)(to.Write(content[:1000])) // is being read before anybody follows
	f := must[*Follower](t)(w.Follow(t.Context()))
	defer f.Close()
	must[int](t)(to.Write(content[1000:2000]))
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(f, make([]byte, 1000))
		read <- err
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Second):
		t.Error("the follower got nothing")
	}
}

// Content that is dropped between its verification and its row, because another
// process has removed the image that it is for, is what it should be all the
// same: whoever reads it gets all of it.
func TestFollowRemoved(t *testing.T) {
	s := newStore(t)
	other := open(t, s.dir)
	content := noise(3 * heldBack)
	root := digest.FromString("an image")
	a := must[Arrival](t)(s.Arrive(t.Context(), debian, "bookworm", v1.Descriptor{Digest: root, MediaType: v1.MediaTypeImageIndex}))
	w := must[*Writer](t)(s.LeaseFor(a).Writer(t.Context(), describe(content)))
	defer w.Close()
	f := must[*Follower](t)(w.Follow(t.Context()))
	defer f.Close()
	must[int](t)(w.Write(content))
	got := make([]byte, len(content))
	must[int](t)(io.ReadFull(f, got[:heldBack]))

	s.turn <- struct{}{} // nobody of this process writes to the index now
	committed := make(chan error, 1)
	go func() { committed <- w.Commit(t.Context()) }()
	for {
		if _, err := os.Stat(s.blobPath(digest.FromBytes(content))); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, freed, err := other.Remove(t.Context(), debian, "bookworm"); err != nil || freed.Blobs != 1 {
		t.Fatalf("freed %+v, %v", freed, err)
	}
	<-s.turn
	if err := <-committed; !errors.Is(err, ErrLeaseEnded) {
		t.Errorf("committed: %v", err)
	}
	if _, err := io.ReadFull(f, got[heldBack:]); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the reader got other content, or not all: %v", err)
	}
}
