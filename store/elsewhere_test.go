package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// waitingFor has lease l wait for content that another store writes, and returns
// what it sees of that and what it gets in the end.
func waitingFor(t *testing.T, l *Lease, content []byte) (*Elsewhere, <-chan error) {
	t.Helper()
	seen, done := make(chan *Elsewhere, 1), make(chan error, 1)
	go func() {
		var other *Elsewhere
		w, err := l.WriterAfter(t.Context(), describe(content), func(e *Elsewhere) {
			other = e
			seen <- e
		})
		if err == nil { // the other one has given up
			if _, err = w.Write(content[w.Offset():]); err == nil {
				err = w.Commit(t.Context())
			}
			err = errors.Join(err, w.Close())
		}
		if other != nil {
			other.Close()
		}
		done <- err
	}()
	select {
	case e := <-seen:
		return e, done
	case <-time.After(10 * time.Second):
		t.Fatal("it does not see what the other one writes")
	}
	return nil, nil
}

// What another process writes can be followed, whatever becomes of it.
func TestElsewhere(t *testing.T) {
	content := noise(4 * heldBack)
	bad := bytes.Clone(content)
	bad[10]++
	type outcome struct {
		broken bool  // who follows gets an error
		err    error // what comes of the wait
	}
	tests := map[string]struct {
		first []byte // what it writes at first, half of it before anybody reads
		end   func(*Writer) error
		want  outcome
	}{
		"complete": {content, func(w *Writer) error { return w.Commit(t.Context()) }, outcome{err: ErrExists}},
		"given up": {content[:3*heldBack], (*Writer).Close, outcome{}},
		"bad": {bad, func(w *Writer) error {
			if err := w.Commit(t.Context()); !errors.Is(err, ErrMismatch) {
				t.Errorf("committed: %v", err)
			}
			if _, err := w.Write(content); err != nil { // at once as much as was there
				return err
			}
			return w.Commit(t.Context())
		}, outcome{broken: true, err: ErrExists}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			w := must[*Writer](t)(newLease(t, s).Writer(t.Context(), describe(content)))
			defer w.Close()
			other := must[*Store](t)(Open(t.Context(), s.Dir()))
			defer other.Close()
			must[int](t)(w.Write(tt.first[:2*heldBack]))
			e, done := waitingFor(t, newLease(t, other), content)

			f := must[*Follower](t)(e.Follow(t.Context()))
			defer f.Close()
			got := make([]byte, len(content))
			if _, err := io.ReadFull(f, got[:2*heldBack]); err != nil {
				t.Fatal(err)
			}
			must[int](t)(w.Write(tt.first[2*heldBack:]))
			if err := tt.end(w); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(f)
			if tt.want.broken {
				if !errors.Is(err, ErrBroken) {
					t.Errorf("got %d more bytes, %v", len(rest), err)
				}
			} else if err != nil || !bytes.Equal(append(got[:2*heldBack], rest...), content) {
				t.Errorf("got %d more bytes, %v", len(rest), err)
			}
			if err := <-done; !errors.Is(err, tt.want.err) {
				t.Errorf("it ends with %v", err)
			}
			if f, err := e.Follow(t.Context()); !errors.Is(err, ErrNotFound) {
				t.Errorf("followed what has ended: %v, %v", f, err)
			}
		})
	}
}

// Nobody gets the end of what is not verified.
func TestElsewhereHoldsBack(t *testing.T) {
	s := newStore(t)
	content := noise(2 * heldBack)
	w := must[*Writer](t)(newLease(t, s).Writer(t.Context(), describe(content)))
	defer w.Close()
	must[int](t)(w.Write(content))
	e := s.watch(describe(content))
	ctx, cancel := context.WithTimeout(t.Context(), 5*lockPoll)
	defer cancel()
	f := must[*Follower](t)(e.Follow(ctx))
	defer f.Close()
	if got, err := io.ReadAll(f); len(got) != heldBack || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	f = must[*Follower](t)(e.Follow(t.Context()))
	defer f.Close()
	e.Close()
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, ErrBroken) {
		t.Errorf("after the end: %v", err)
	}
}
