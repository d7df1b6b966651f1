package store

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"
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
	if f, err := w.Follow(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("followed another file: %v, %v", f, err)
	}
	if err := os.Rename(name+".moved", name); err != nil {
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
	defer to.Close()
	go func() { _, _ = w.ReadFrom(from) }()
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
