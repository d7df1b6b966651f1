package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrExists is returned by Lease.Writer when the content is in the store already.
var ErrExists = errors.New("already in the store")

// Writer takes in one blob. What was written before, also by a process that
// was killed, is kept: Offset tells how much is there. It is not safe for
// concurrent use, except Follow.
type Writer struct {
	store  *Store
	desc   v1.Descriptor
	file   *os.File // locked: one writer per digest on this machine
	hash   hash.Hash
	offset int64
	tail   *tail // for followers
	repair bool
	done   bool // committed or closed
}

// Writer starts or resumes the content of desc, of which digest and size
// count; the lease holds it from now on. It waits while another process writes
// the same content and returns ErrExists once that is there. Content on disk
// that the index does not know is verified and adopted, which is ErrExists too.
//
// The caller must Close the writer; a writer that was not committed leaves its
// bytes for the next one.
func (l *Lease) Writer(ctx context.Context, desc v1.Descriptor) (*Writer, error) {
	return l.writer(ctx, desc, false, nil)
}

// WriterAfter is Writer. If it has to wait for another process, it calls
// meanwhile, once, with what that writes. The caller must close it, but not
// before the Writer: those who follow it go on with what that writes.
func (l *Lease) WriterAfter(ctx context.Context, desc v1.Descriptor, meanwhile func(*Elsewhere)) (*Writer, error) {
	return l.writer(ctx, desc, false, func() { meanwhile(l.store.watch(desc)) })
}

// Repair returns a writer for content that the store has but that is damaged:
// what is committed takes the place of the damaged file.
func (l *Lease) Repair(ctx context.Context, desc v1.Descriptor) (*Writer, error) {
	return l.writer(ctx, desc, true, nil)
}

func (l *Lease) writer(ctx context.Context, desc v1.Descriptor, repair bool, busy func()) (*Writer, error) {
	if err := checkDigest(desc.Digest); err != nil {
		return nil, err
	}
	if desc.Size < 0 {
		return nil, fmt.Errorf("blob %s: negative size %d", desc.Digest, desc.Size)
	}
	if err := l.Hold(ctx, desc.Digest); err != nil {
		return nil, err
	}
	file, err := lockFileAfter(ctx, l.store.ingestPath(desc.Digest), busy)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	w := &Writer{store: l.store, desc: desc, file: file, hash: desc.Digest.Algorithm().Hash(), tail: l.store.newTail(desc.Digest), repair: repair}
	w.tail.file, err = file.Stat()
	if err == nil && !repair {
		err = l.store.findExisting(ctx, desc)
	}
	if err == nil {
		err = l.store.clearPlace(desc.Digest)
	}
	if errors.Is(err, ErrExists) {
		err = errors.Join(err, os.Remove(file.Name()))
	} else if err == nil {
		err = w.resume(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("blob %s: %w", desc.Digest, err), file.Close())
	}
	return w, nil
}

// findExisting returns ErrExists if the content is in the store, or was on disk
// and is now.
func (s *Store) findExisting(ctx context.Context, desc v1.Descriptor) error {
	exists, err := s.Has(ctx, desc.Digest)
	if err == nil && exists { // unless the disk has lost it
		exists, err = s.Whole(desc)
	} else if err == nil {
		exists, err = s.adopt(ctx, desc)
	}
	if err == nil && exists {
		return ErrExists
	}
	return err
}

// Adopt looks whether a file is there for content that the index does not know,
// and takes it in if it is what its name says: for content whose size is not
// known. The lease holds the content from now on, there or not.
func (l *Lease) Adopt(ctx context.Context, d digest.Digest) error {
	if err := l.Hold(ctx, d); err != nil {
		return err
	}
	info, err := os.Stat(l.store.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	w, err := l.Writer(ctx, v1.Descriptor{Digest: d, Size: info.Size()})
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.Close()
}

// adopt takes a file in blobs/ that the index does not know into the index if
// it is what its name says: a crash between rename and row leaves such files,
// and so does the loss of the index. A file that is something else is removed.
func (s *Store) adopt(ctx context.Context, desc v1.Descriptor) (bool, error) {
	path := s.blobPath(desc.Digest)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // which can be replaced all the same
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := desc.Digest.Algorithm().Hash()
	size, err := hashFile(ctx, h, f)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil || fmt.Sprintf("%x", h.Sum(nil)) != desc.Digest.Encoded() {
		info, err := f.Stat()
		if err == nil {
			err = s.setAside(desc.Digest, info)
		}
		return false, err
	}
	if size != desc.Size {
		return false, fmt.Errorf("%w: it has %d bytes, not %d", ErrMismatch, size, desc.Size)
	}
	// It may have been written, but not made durable. If it cannot be, a second
	// try could pretend that it was: the kernel reports a lost page once.
	if err := f.Sync(); err != nil {
		return false, errors.Join(err, os.Remove(path))
	}
	return true, s.commits.commit(ctx, commit{digest: desc.Digest, size: size})
}

// hashFile hashes the rest of a file and returns its size. The file may have
// gigabytes, which an interrupt should not have to wait for.
func hashFile(ctx context.Context, h hash.Hash, f io.Reader) (int64, error) {
	buf := make([]byte, bufferSize)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// resume hashes what an earlier writer left.
func (w *Writer) resume(ctx context.Context) error {
	n, err := hashFile(ctx, w.hash, w.file)
	if err != nil {
		return err
	}
	if n > w.desc.Size {
		w.offset = n
		return w.Reset()
	}
	w.advance(n)
	return nil
}

// advance counts n more bytes.
func (w *Writer) advance(n int64) {
	w.offset += n
	w.tail.update(func() { w.tail.offset = w.offset })
}

// Offset is how many bytes are there.
func (w *Writer) Offset() int64 { return w.offset }

// Write appends p. It returns ErrMismatch for bytes beyond the promised size.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.fits(len(p)); err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.advance(int64(n))
	return n, err
}

func (w *Writer) fits(n int) error {
	if int64(n) > w.desc.Size-w.offset {
		return fmt.Errorf("blob %s: %w: more than the %d bytes promised", w.desc.Digest, ErrMismatch, w.desc.Size)
	}
	return nil
}

// bufferSize is what is read, written and hashed at a time. Larger buffers cost
// more: what has left the processor's cache has to come back for the hash.
const bufferSize = 256 << 10

// writeBackSize is how many bytes are written before the disk is set to work.
const writeBackSize = 8 << 20

// ReadFrom appends all of r.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	started := w.offset                                            // up to where the disk is at work
	buf := make([]byte, 1+min(bufferSize-1, w.desc.Size-w.offset)) // one more byte shows a body that is too long
	for {
		n, readErr := w.gather(r, buf)
		n, writeErr := w.Write(buf[:n])
		total += int64(n)
		if whole := w.offset / writeBackSize * writeBackSize; whole > started {
			writeBack(w.file, started, whole-started)
			started = whole
		}
		if writeErr != nil {
			return total, writeErr
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF):
			// A body that was cut short is told apart by what is missing.
			return total, nil
		default:
			return total, readErr
		}
	}
}

// gather reads until half of the buffer is full, or until there is something for
// those who follow, who should not wait for more.
func (w *Writer) gather(r io.Reader, buf []byte) (n int, err error) {
	for n < (len(buf)+1)/2 && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		if n += more; n > 0 && w.tail.followed() {
			break
		}
	}
	return n, err
}

// Reset drops what is there and starts from zero, with another file: those who
// follow, also in other processes, must not take what comes now for the rest of
// what they have read.
func (w *Writer) Reset() error {
	if w.offset == 0 {
		return nil // nobody has read anything
	}
	name := w.tail.paths[0]
	// Nobody else wants it, but gc looks whether it is locked.
	fresh, err := lockFile(context.Background(), name+freshSuffix)
	if err != nil {
		return err
	}
	info, err := fresh.Stat()
	if err == nil {
		err = os.Rename(fresh.Name(), name)
	}
	if err != nil {
		return errors.Join(err, fresh.Close(), ignoreMissing(os.Remove(name+freshSuffix)))
	}
	err = w.file.Close()
	w.file = fresh
	w.hash.Reset()
	w.offset = 0
	w.tail.update(func() { w.tail.file, w.tail.offset, w.tail.round = info, 0, w.tail.round+1 })
	return err
}

// freshSuffix marks a file that is about to take the place of a partial download.
const freshSuffix = ".fresh"

// WriteAll commits content that is here as a whole, in place of what an earlier
// writer left.
func (w *Writer) WriteAll(ctx context.Context, content []byte) error {
	err := w.Reset()
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	return err
}

// Commit verifies size and digest and makes the content durable and visible.
// It returns ErrMismatch if the content is not what was promised; the writer
// has then been reset and can be used again. After anything else it is closed:
// the file may be in its place, where nobody must write to it.
func (w *Writer) Commit(ctx context.Context) error {
	if w.offset != w.desc.Size {
		err := fmt.Errorf("blob %s: %w: %d of %d bytes", w.desc.Digest, ErrMismatch, w.offset, w.desc.Size)
		return errors.Join(err, w.Reset())
	}
	if got := fmt.Sprintf("%x", w.hash.Sum(nil)); got != w.desc.Digest.Encoded() {
		err := fmt.Errorf("blob %s: %w: got %s:%s", w.desc.Digest, ErrMismatch, w.desc.Digest.Algorithm(), got)
		return errors.Join(err, w.Reset())
	}
	err := w.file.Sync()
	verified := err == nil // whatever becomes of the file: who follows it has it open
	if err != nil {
		// Which bytes are lost is not known, and the kernel reports it once.
		err = errors.Join(err, w.Reset())
	} else {
		err = w.store.commits.commit(ctx, commit{digest: w.desc.Digest, size: w.desc.Size, from: w.tail.paths[0]})
	}
	if err == nil && w.repair {
		err = w.store.repairManifest(ctx, w.desc)
	}
	if err == nil {
		_ = os.RemoveAll(w.store.damagedPath(w.desc.Digest)) // if there was one; else gc drops it with the blob
	}
	w.done = true
	w.tail.update(func() { w.tail.verified, w.tail.ended = verified, true })
	if err = errors.Join(err, w.file.Close()); err != nil {
		return fmt.Errorf("blob %s: %w", w.desc.Digest, err)
	}
	return nil
}

// Close releases the writer. Without a Commit before it, what was written
// stays for the next writer.
func (w *Writer) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	w.tail.update(func() { w.tail.ended = true })
	if w.offset == 0 {
		return errors.Join(os.Remove(w.tail.paths[0]), w.file.Close()) // nothing worth keeping
	}
	return w.file.Close()
}
