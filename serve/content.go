package serve

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// Content is what a [Handler] serves. All methods are called concurrently.
//
// Errors: [store.ErrNotFound], also wrapped, where a method says so; one that
// is [Unavailable] for a passing trouble; any other is an internal error, which
// is logged and not shown to the client. When the context has ended a method
// returns its error.
type Content interface {
	// Manifest returns the manifest that a tag or a digest names.
	// [store.ErrNotFound] if there is none. A manifest asked for by digest
	// need not belong to repo: content is addressed by what it is. The caller
	// does not change the bytes.
	Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error)

	// Blob opens a blob and returns its size in bytes. [store.ErrNotFound] if
	// there is none; as with manifests, repo may be ignored. The reader is an
	// *os.File where possible, so that the kernel does the copying; another
	// reader must know its size when asked by Seek, and must stand a Close
	// while a Read is under way (answers of several ranges are read by a
	// goroutine of their own).
	Blob(ctx context.Context, repo store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error)

	// Tags returns the tags of a repository in byte order, those after last,
	// at most n, or all if n is negative. [store.ErrNotFound] if nothing of
	// the repository is pinned.
	Tags(ctx context.Context, repo store.Repository, last string, n int) ([]string, error)

	// Repositories returns the repositories of a registry, or of all if
	// registry is empty, in byte order of their String, those after last (such
	// a String), at most n, or all if n is negative.
	Repositories(ctx context.Context, registry, last string, n int) ([]store.Repository, error)

	// Referrers returns the descriptors of the manifests whose subject is the
	// given one, with artifact type and annotations. None is an empty list.
	Referrers(ctx context.Context, repo store.Repository, subject digest.Digest) ([]v1.Descriptor, error)
}

// Fetcher gets from elsewhere what a [Content] does not have. All methods are
// called concurrently, with the meaning and errors of those of Content; an
// answer may come before it is complete, and Read of a blob then waits, or ends
// with an error if the blob turns out to be bad.
type Fetcher interface {
	Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error)
	Blob(ctx context.Context, repo store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error)
	Referrers(ctx context.Context, repo store.Repository, subject digest.Digest) ([]v1.Descriptor, error)

	// BlobSize returns the size of a blob in bytes, for HEAD: it brings nothing
	// that nobody reads. The errors are those of Blob.
	BlobSize(ctx context.Context, repo store.Repository, d digest.Digest) (int64, error)
}

// Unavailable is an error of a [Content] that time may heal, such as an
// upstream that is down or throttles. The client gets 503 and Retry-After.
// It is not 429: containerd repeats a request at once after that.
type Unavailable interface {
	error
	// RetryAfter is how long the client should wait. The answer has whole
	// seconds, rounded up, one at least.
	RetryAfter() time.Duration
}
