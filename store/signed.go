package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A signed manifest of schema 1 is two blobs: its payload, which hashes to its
// digest, and all of it with the signatures, under a digest of its own. The table
// signed leads from one to the other. So a file has the digest that it is named
// by, and hashing, collecting and repairing need not know of signatures. Which
// signatures it has is decided once, since some registries sign anew for each
// answer.

// Payload returns the part of a manifest that its digest is of: all of it, except
// for a signed one of schema 1.
func (m Manifest) Payload() ([]byte, error) {
	if m.MediaType == MediaTypeSchema1Signed {
		return signedPayload(m.Bytes)
	}
	return m.Bytes, nil
}

// Verify returns ErrMismatch for a manifest that is not what its digest says, and
// another error for one whose payload cannot be told.
func (m Manifest) Verify() error {
	if err := checkDigest(m.Digest); err != nil {
		return err
	}
	payload, err := m.Payload()
	if err == nil && m.Digest.Algorithm().FromBytes(payload) != m.Digest {
		err = ErrMismatch
	}
	if err != nil {
		return fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	return nil
}

// File returns the content of that blob of the manifest whose digest is d. It
// returns ErrMismatch if there is none.
func (m Manifest) File(d digest.Digest) ([]byte, error) {
	if err := checkDigest(d); err != nil {
		return nil, err
	}
	if d.Algorithm().FromBytes(m.Bytes) == d {
		return m.Bytes, nil
	}
	payload, err := m.Payload()
	if err != nil || d.Algorithm().FromBytes(payload) != d {
		return nil, fmt.Errorf("manifest %s: %w: it is not of %s", m.Digest, ErrMismatch, d)
	}
	return payload, nil
}

// PutManifest brings a manifest into the store, which verifies and keeps its
// bytes; the lease holds it. It returns the manifest as the store has it: the
// signatures of a signed one are those that came first.
func (l *Lease) PutManifest(ctx context.Context, m Manifest) (Manifest, error) {
	if err := m.Verify(); err != nil {
		return Manifest{}, err
	}
	if m.MediaType == MediaTypeSchema1Signed {
		var err error
		if m, err = l.putSigned(ctx, m); err != nil {
			return Manifest{}, fmt.Errorf("signatures of %s: %w", m.Digest, err)
		}
	}
	payload, err := m.Payload()
	if err == nil {
		err = l.putBlob(ctx, m.Digest, payload)
	}
	return m, err
}

// putSigned keeps a signed manifest with its signatures, unless the store has
// others for it.
func (l *Lease) putSigned(ctx context.Context, m Manifest) (Manifest, error) {
	if kept, err := l.keptSigned(ctx, m.Digest); !errors.Is(err, ErrNotFound) {
		return kept, err
	}
	blob := digest.FromBytes(m.Bytes)
	if err := l.putBlob(ctx, blob, m.Bytes); err != nil {
		return m, err
	}
	// Durably: unlike other content, this may be another one when it is fetched
	// again.
	err := l.store.update(ctx, func(tx *sql.Tx) error {
		// Another process may have been faster.
		var published bool
		err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM manifest WHERE digest = ?)", m.Digest.String()).Scan(&published)
		if err != nil || published {
			return err
		}
		found, err := selectSigned(ctx, tx, m.Digest)
		if err == nil {
			if whole, err := l.store.Whole(found); err != nil || whole {
				return err
			}
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		return setSigned(ctx, tx, m.Digest, blob)
	})
	if err != nil {
		return m, err
	}
	return l.keptSigned(ctx, m.Digest)
}

// keptSigned returns a signed manifest that the store has: published, or else from
// a file, which the lease then holds.
func (l *Lease) keptSigned(ctx context.Context, d digest.Digest) (Manifest, error) {
	m, err := l.store.Manifest(ctx, Repository{}, d.String())
	if !errors.Is(err, ErrNotFound) {
		return m, err
	}
	blob, err := selectSigned(ctx, l.store.reader, d)
	if err == nil {
		err = l.Hold(ctx, blob.Digest)
	}
	if err != nil {
		return Manifest{}, err
	}
	return l.store.readSigned(ctx, d)
}

// putBlob writes content that is here as a whole.
func (l *Lease) putBlob(ctx context.Context, d digest.Digest, content []byte) error {
	w, err := l.Writer(ctx, v1.Descriptor{Digest: d, Size: int64(len(content))})
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(w.WriteAll(ctx, content), w.Close())
}

// setSigned notes which blob has a signed manifest with its signatures.
func setSigned(ctx context.Context, tx *sql.Tx, d, blob digest.Digest) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO signed (blob, digest) VALUES (?1, ?2)
		ON CONFLICT (blob) DO NOTHING
		ON CONFLICT (digest) DO UPDATE SET blob = excluded.blob`, blob.String(), d.String())
	return err
}

// selectSigned returns the blob with all of a signed manifest, or ErrNotFound.
func selectSigned(ctx context.Context, q querier, d digest.Digest) (v1.Descriptor, error) {
	blob := v1.Descriptor{MediaType: MediaTypeSchema1Signed}
	err := q.QueryRowContext(ctx, "SELECT blob, size FROM signed JOIN blob ON blob.digest = signed.blob WHERE signed.digest = ?", d.String()).Scan(&blob.Digest, &blob.Size)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return blob, err
}

// readSigned returns a signed manifest from its file, or ErrNotFound.
func (s *Store) readSigned(ctx context.Context, d digest.Digest) (Manifest, error) {
	blob, err := selectSigned(ctx, s.reader, d)
	if err != nil {
		return Manifest{}, err
	}
	content, err := s.ReadBlob(ctx, blob.Digest, MaxManifestSize)
	blob.Digest = d
	return Manifest{Descriptor: blob, Bytes: content}, err
}

// ReadManifest returns a manifest that is in the store, published or not: one
// that is arriving, or was left by a run that did not finish. Its digest counts
// of desc, and for one that is not published the media type, if there is one. It
// returns ErrNotFound also for what may have been signed without the signatures
// being here.
func (s *Store) ReadManifest(ctx context.Context, desc v1.Descriptor) (Manifest, error) {
	m, err := s.Manifest(ctx, Repository{}, desc.Digest.String())
	if !errors.Is(err, ErrNotFound) {
		return m, err
	}
	content, err := s.ReadBlob(ctx, desc.Digest, MaxManifestSize)
	if err != nil {
		return Manifest{}, err
	}
	m = Manifest{Descriptor: desc, Bytes: content}
	m.Size = int64(len(content))
	if m.MediaType == "" {
		m.MediaType = SniffMediaType(content)
	}
	if m.MediaType == MediaTypeSchema1Signed || desc.MediaType == "" && m.MediaType == MediaTypeSchema1 {
		return s.readSigned(ctx, desc.Digest)
	}
	return m, nil
}

// ManifestOf returns the published manifest that a blob is one of, or the only
// one, of the files of, as the index has it: nothing was hashed. It returns
// ErrNotFound if there is none.
func (s *Store) ManifestOf(ctx context.Context, d digest.Digest) (Manifest, error) {
	var m Manifest
	err := s.reader.QueryRowContext(ctx, `SELECT digest, media_type, bytes FROM manifest WHERE digest = ?1
		UNION ALL SELECT digest, media_type, bytes FROM manifest WHERE `+copyOf, d.String()).Scan(&m.Digest, &m.MediaType, &m.Bytes)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest of blob %s: %w", d, err)
	}
	m.Size = int64(len(m.Bytes))
	return m, nil
}

// copyOf is the condition for the manifest whose bytes in the index are those of
// the blob in parameter 1.
const copyOf = `digest = coalesce((SELECT signed.digest FROM signed JOIN manifest AS m ON m.digest = signed.digest
		WHERE signed.blob = ?1 AND m.media_type = '` + MediaTypeSchema1Signed + `'), ?1)
	AND (media_type <> '` + MediaTypeSchema1Signed + `' OR digest <> ?1)`
