package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

func TestFollow(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	content := noise(3*heldBack + 17)
	w := must[*Writer](t)(l.Writer(t.Context(), describe(content)))
	defer w.Close()

	var wg sync.WaitGroup
	for _, from := range []int64{0, 1, heldBack, int64(len(content)) - 1, int64(len(content))} {
		f := must[*Follower](t)(w.Follow(t.Context()))
		wg.Go(func() {
			defer f.Close()
			if _, err := f.Seek(from, io.SeekStart); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, content[from:]) {
				t.Errorf("from %d: %d bytes, %v", from, len(got), err)
			}
		})
	}
	for part := content; len(part) > 0; {
		n := min(len(part), 10_000)
		must[int](t)(w.Write(part[:n]))
		part = part[n:]
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := w.Follow(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("following a writer that is done: %v", err)
	}
}

// A follower must not get the end of content that is not verified.
func TestFollowHoldsBack(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	content := noise(2 * heldBack)
	bad := bytes.Clone(content)
	bad[10]++
	for name, end := range map[string]func(*Writer) error{
		"bad digest": func(w *Writer) error { return w.Commit(t.Context()) },
		"given up":   func(w *Writer) error { return nil },
	} {
		w := must[*Writer](t)(l.Writer(t.Context(), describe(content)))
		if err := w.Reset(); err != nil {
			t.Fatal(err)
		}
		f := must[*Follower](t)(w.Follow(t.Context()))
		late := must[*Follower](t)(w.Follow(t.Context())) // has read nothing yet
		must[int](t)(w.Write(bad))
		got := make([]byte, len(bad))
		n := must[int](t)(io.ReadFull(f, got[:heldBack]))
		done := make(chan error, 1)
		go func() {
			_, err := f.Read(got[n:])
			done <- err
		}()
		select {
		case err := <-done:
			t.Errorf("%s: read the end before it was verified: %v", name, err)
		case <-time.After(20 * time.Millisecond):
		}
		if err := end(w); err != nil && !errors.Is(err, ErrMismatch) {
			t.Fatal(err)
		}
		if name == "bad digest" { // the writer may begin anew
			must[int](t)(w.Write(content))
			if got := must[int](t)(io.ReadFull(late, make([]byte, heldBack))); got != heldBack {
				t.Errorf("%s: who had read nothing got %d bytes of the second try", name, got)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrBroken) {
			t.Errorf("%s: follower got %v", name, err)
		}
		if err := errors.Join(f.Close(), f.Close(), late.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	w := must[*Writer](t)(l.Writer(t.Context(), describe(noise(5))))
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	f := must[*Follower](t)(w.Follow(ctx))
	defer f.Close()
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
