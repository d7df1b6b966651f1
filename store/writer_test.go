package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func describe(b []byte) v1.Descriptor {
	return v1.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// noise is content larger than the writer's buffers.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

func TestWriter(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	for _, size := range []int{0, 1, 5, bufferSize - 1, bufferSize, bufferSize + 1, 3*bufferSize + 7} {
		b := noise(size)
		for name, reader := range map[string]func(io.Reader) io.Reader{
			"plain": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
		} {
			w := must[*Writer](t)(l.Repair(t.Context(), describe(b))) // which does not mind that it is there
			if n, err := w.ReadFrom(reader(bytes.NewReader(b))); err != nil || n != int64(size) || w.Offset() != n {
				t.Errorf("%s: %d bytes: read %d, %v", name, size, n, err)
			}
			if err := errors.Join(w.Commit(t.Context()), w.Close(), w.Close()); err != nil {
				t.Errorf("%s: %d bytes: %v", name, size, err)
			}
			if got := must[[]byte](t)(s.ReadBlob(t.Context(), digest.FromBytes(b), 4*bufferSize)); !bytes.Equal(got, b) {
				t.Errorf("%s: %d bytes came back as something else", name, size)
			}
		}
		if _, err := l.Writer(t.Context(), describe(b)); !errors.Is(err, ErrExists) {
			t.Errorf("%d bytes: a second writer got %v", size, err)
		}
		info, err := os.Stat(s.blobPath(digest.FromBytes(b)))
		if err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%d bytes: %v, %v", size, info.Mode(), err)
		}
	}
	if entries := must[[]os.DirEntry](t)(os.ReadDir(s.dir + "/ingest")); len(entries) != 0 {
		t.Errorf("%d files are left in ingest", len(entries))
	}
	checkClean(t, s)
}

func TestWriterMismatch(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	b := noise(100_000)
	w := must[*Writer](t)(l.Writer(t.Context(), describe(b)))
	defer w.Close()

	if _, err := w.Write([]byte("wrong")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, ErrMismatch) || w.Offset() != 0 {
		t.Errorf("too few bytes: %v, offset %d", err, w.Offset())
	}
	if _, err := w.Write(append(b, 1)); !errors.Is(err, ErrMismatch) {
		t.Errorf("too many bytes: %v", err)
	}
	if _, err := w.ReadFrom(io.MultiReader(bytes.NewReader(b), strings.NewReader("x"))); !errors.Is(err, ErrMismatch) {
		t.Errorf("too many bytes to read: %v", err)
	}
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(b)
	wrong[len(b)/2] ^= 1
	if _, err := w.ReadFrom(bytes.NewReader(wrong)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, ErrMismatch) || w.Offset() != 0 {
		t.Errorf("wrong bytes: %v, offset %d", err, w.Offset())
	}
	if has := must[bool](t)(s.Has(t.Context(), digest.FromBytes(b))); has {
		t.Error("wrong content is visible")
	}

	// A reader that fails after data: what came is kept, the error is told.
	broken := errors.New("connection reset")
	n, err := w.ReadFrom(io.MultiReader(bytes.NewReader(b[:70_000]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || n != 70_000 || w.Offset() != n {
		t.Errorf("reset after data: %d, %v", n, err)
	}
	if _, err := w.ReadFrom(bytes.NewReader(b[n:])); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Error(err)
	}

	// Nothing that is done with it now may reach the file, which is in its place.
	_, writeErr := w.Write(nil)
	_, readErr := w.ReadFrom(strings.NewReader(""))
	if w.Reset() == nil || writeErr == nil || readErr == nil || w.Commit(t.Context()) == nil {
		t.Error("a committed writer can be used")
	}
	checkClean(t, s)
}

func TestWriterHugeSize(t *testing.T) {
	l := newLease(t, newStore(t))
	w := must[*Writer](t)(l.Writer(t.Context(), v1.Descriptor{Digest: digest.FromString("x"), Size: math.MaxInt64}))
	defer w.Close()
	if n, err := w.ReadFrom(strings.NewReader("x")); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestWriterResumes(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	b := noise(1 << 20)
	w := must[*Writer](t)(l.Writer(t.Context(), describe(b)))
	if _, err := w.ReadFrom(bytes.NewReader(b[:600_000])); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = must[*Writer](t)(l.Writer(t.Context(), describe(b)))
	if w.Offset() != 600_000 {
		t.Errorf("resumed at %d", w.Offset())
	}
	if _, err := w.ReadFrom(bytes.NewReader(b[600_000:])); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Commit(t.Context()), w.Close()); err != nil {
		t.Error(err)
	}

	for _, garbage := range []int{10, 1000, 2000} { // less, as much, more
		b := noise(1000 + garbage) // another one each time
		b = b[garbage:]
		if err := os.WriteFile(s.ingestPath(digest.FromBytes(b)), bytes.Repeat([]byte("?"), garbage), 0o644); err != nil {
			t.Fatal(err)
		}
		w := must[*Writer](t)(l.Writer(t.Context(), describe(b)))
		if _, err := w.ReadFrom(bytes.NewReader(b[w.Offset():])); err != nil {
			t.Fatal(err)
		}
		err := w.Commit(t.Context())
		if garbage <= 1000 {
			if !errors.Is(err, ErrMismatch) {
				t.Errorf("garbage was committed: %v", err)
			}
			_, err = w.ReadFrom(bytes.NewReader(b))
			err = errors.Join(err, w.Commit(t.Context()))
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Errorf("after %d bytes of garbage: %v", garbage, err)
		}
	}
	checkClean(t, s)
}

func TestWriterAdopts(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	good, bad := noise(5000), noise(6000)
	for _, b := range [][]byte{good, bad} {
		text := bytes.Clone(b)
		if len(b) == len(bad) {
			text[100] ^= 4
		}
		if err := os.WriteFile(s.blobPath(digest.FromBytes(b)), text, 0o644); err != nil {
			t.Fatal(err)
		}
		if has := must[bool](t)(s.Has(t.Context(), digest.FromBytes(b))); has {
			t.Error("a file without a row is visible")
		}
	}
	if _, err := l.Writer(t.Context(), describe(good)); !errors.Is(err, ErrExists) {
		t.Errorf("a good file was not adopted: %v", err)
	}
	if has := must[bool](t)(s.Has(t.Context(), digest.FromBytes(good))); !has {
		t.Error("an adopted file is not visible")
	}
	if err := write(t.Context(), l, digest.FromBytes(bad), bad); err != nil {
		t.Error(err)
	}
	checkClean(t, s)
}

func TestWritersOfOneDigest(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	b := noise(300_000)
	var group sync.WaitGroup
	var mu sync.Mutex
	var wrote, found int
	for range 8 {
		group.Go(func() {
			w, err := l.Writer(t.Context(), describe(b))
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrExists) {
				found++
				return
			}
			wrote++
			if err == nil {
				_, err = w.ReadFrom(bytes.NewReader(b))
				err = errors.Join(err, w.Commit(t.Context()), w.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if wrote != 1 || found != 7 {
		t.Errorf("%d wrote, %d found it", wrote, found)
	}
}

func TestWriterWaitEndsWithContext(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	w := must[*Writer](t)(l.Writer(t.Context(), describe([]byte("x"))))
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.Writer(ctx, describe([]byte("x"))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second writer got %v", err)
	}
}

func TestRepair(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	m := c.manifests[0]
	if err := errors.Join(os.Remove(s.blobPath(m.Digest)), os.WriteFile(s.blobPath(m.Digest), []byte("damaged"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.Exec("UPDATE manifest SET bytes = x'00' WHERE digest = ?", m.Digest.String()); err != nil {
		t.Fatal(err)
	}
	l := newLease(t, s)
	w := must[*Writer](t)(l.Repair(t.Context(), m.Descriptor))
	_, err := w.Write(m.Bytes)
	if err := errors.Join(err, w.Commit(t.Context()), w.Close()); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s)
}

// The lock of a file that was renamed or removed meanwhile is worth nothing.
func TestLockFile(t *testing.T) {
	path := t.TempDir() + "/lock"
	for range 20 {
		holder := must[*os.File](t)(lockFile(t.Context(), path))
		got := make(chan *os.File)
		go func() {
			f, err := lockFile(t.Context(), path)
			if err != nil {
				t.Error(err)
			}
			got <- f
		}()
		time.Sleep(time.Millisecond)
		if err := ifUnlocked(path, func(*os.File) error { t.Error("locked, but was taken for unlocked"); return nil }); err != nil {
			t.Error(err)
		}
		if err := errors.Join(os.Remove(path), holder.Close()); err != nil {
			t.Fatal(err)
		}
		f := <-got
		if ok, err := stillAt(f, path); !ok || err != nil {
			t.Errorf("the lock is on another file: %v", err)
		}
		f.Close()
	}
}
