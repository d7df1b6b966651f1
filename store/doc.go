// Package store keeps container images: content-addressed blobs in files, and
// in SQLite beside them what is known of the blobs.
//
//	<store>/
//	  blobs/<alg>/<hex>     verified content, manifests too; read-only files
//	  ingest/<alg>-<hex>    partial downloads, resumed by digest; .removed: on its way out; .fresh: to begin anew
//	  leases/<random>       one per process that is fetching; locked while it lives
//	  index.db              SQLite in WAL mode: blobs, manifests, edges, pins, history;
//	                        -wal and -shm beside it stay, so that those can read
//	                        the store who may not write to it
//	  damaged/<alg>-<hex>   files that were found to be something else than their name says
//	  scrub                 where a scrub is; locked by who scrubs
//	  lock                  held while the folders and the index are created or migrated
//
// Guarantees:
//
//   - A row in the index implies a complete, verified file. The order is always
//     write, verify, fsync the file, rename, fsync the folder, insert the row;
//     and the reverse when content is dropped. A file without a row is harmless.
//   - A pin becomes visible in one transaction, after everything it reaches.
//   - Any number of processes may use one store at the same time. What a lease
//     holds is never dropped by another process.
//   - Manifests are kept and returned byte for byte.
//   - What is found damaged, by whatever process, is not handed out any more.
//
// The package does no network access and knows nothing of registries' protocols.
package store

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	// ErrNotFound says that the store does not have what was asked for.
	ErrNotFound = errors.New("not found")
	// ErrNoStore says that the folder holds no store.
	ErrNoStore = errors.New("no store here")
	// ErrNewer says that the store was written by a newer mirrorctl; it was not touched.
	ErrNewer = errors.New("written by a newer mirrorctl")
	// ErrMismatch says that content does not have the digest or size that was promised.
	ErrMismatch = errors.New("content does not match its digest")
)

// Repository names a repository of a registry: {"docker.io", "library/debian"}.
type Repository struct {
	Registry string // a host, with port if it has one; docker.io for Docker Hub
	Path     string // without leading or trailing slash
}

// String returns the fully qualified form, docker.io/library/debian.
func (r Repository) String() string { return r.Registry + "/" + r.Path }

// Manifest is a stored manifest or index: its descriptor (media type, digest,
// size) and its bytes as the upstream sent them.
type Manifest struct {
	v1.Descriptor
	Bytes []byte
}

// ConflictError is returned by Publish when the reference is pinned to another
// digest already. Pins move only when the caller says so.
type ConflictError struct {
	Pinned Pin // the pin that stands
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is pinned to %s", e.Pinned.Name(), e.Pinned.Digest)
}

// IncompleteError is returned by Publish when blobs that the image needs are
// not in the store. Nothing was published.
type IncompleteError struct {
	Missing []digest.Digest
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%d blobs are missing, the first is %s", len(e.Missing), e.Missing[0])
}
