package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Has reports whether the content of d is in the store, complete and verified.
func (s *Store) Has(ctx context.Context, d digest.Digest) (bool, error) {
	var there bool
	err := s.reader.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM blob WHERE digest = ?)", d.String()).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", d, err)
	}
	return there, nil
}

// Size returns how many bytes the content of d has, or ErrNotFound if it is not in
// the store.
func (s *Store) Size(ctx context.Context, d digest.Digest) (int64, error) {
	var size int64
	err := s.reader.QueryRowContext(ctx, "SELECT size FROM blob WHERE digest = ?", d.String()).Scan(&size)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", d, err)
	}
	return size, nil
}

// Manifest returns what a tag or digest means: a pinned tag, a tag that came
// with a pinned image, or any published manifest by its digest. It returns
// ErrNotFound for everything else, and ErrDamaged with it for a manifest of which
// neither the index nor its file has the right bytes. Digests are not looked for
// by repository: content is what its digest says wherever it was found.
func (s *Store) Manifest(ctx context.Context, repo Repository, reference string) (Manifest, error) {
	const byDigest = `SELECT manifest.digest, media_type, bytes FROM manifest WHERE digest = ?`
	const byTag = `SELECT manifest.digest, media_type, bytes FROM manifest JOIN (
			SELECT digest FROM pin WHERE registry = ?1 AND repository = ?2 AND reference = ?3
			UNION ALL SELECT digest FROM companion WHERE registry = ?1 AND repository = ?2 AND reference = ?3
			LIMIT 1
		) AS named ON named.digest = manifest.digest`
	var row *sql.Row
	if separator(reference) == "@" {
		row = s.reader.QueryRowContext(ctx, byDigest, reference)
	} else {
		row = s.reader.QueryRowContext(ctx, byTag, repo.Registry, repo.Path, reference)
	}
	var m Manifest
	switch err := row.Scan(&m.Digest, &m.MediaType, &m.Bytes); {
	case errors.Is(err, sql.ErrNoRows):
		return Manifest{}, fmt.Errorf("%s%s%s: %w", repo, separator(reference), reference, ErrNotFound)
	case err != nil:
		return Manifest{}, fmt.Errorf("%s%s%s: %w", repo, separator(reference), reference, err)
	}
	if m.Verify() != nil {
		// The file beside the index has the same bytes, or should.
		whole, err := s.manifestFile(ctx, m)
		if err != nil {
			return Manifest{}, fmt.Errorf("%s%s%s: it is corrupt in the index: %w", repo, separator(reference), reference, err)
		}
		m = whole
	}
	m.Size = int64(len(m.Bytes))
	return m, nil
}

// manifestFile reads from its file a published manifest that the index has
// otherwise.
func (s *Store) manifestFile(ctx context.Context, m Manifest) (Manifest, error) {
	if m.MediaType == MediaTypeSchema1Signed {
		whole, err := s.readSigned(ctx, m.Digest)
		whole.MediaType = m.MediaType
		return whole, err
	}
	var err error
	m.Bytes, err = s.ReadBlob(ctx, m.Digest, MaxManifestSize)
	return m, err
}

// Blob opens content for reading and returns its size in bytes. The reader is
// an *os.File, so that it can be sent without being copied. What is open stays
// readable when it is removed from the store. It returns ErrNotFound for what is
// not there or not whole.
func (s *Store) Blob(ctx context.Context, _ Repository, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if err := checkDigest(d); err != nil {
		return nil, 0, err
	}
	size, err := s.Size(ctx, d)
	if err != nil {
		return nil, 0, err
	}
	damaged := func(problem string) error {
		return fmt.Errorf("blob %w", &DamagedError{v1.Descriptor{Digest: d, Size: size}, problem})
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, damaged(s.missing(d))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, err)
	}
	// A file of another size is damaged: no answer is better than a wrong one.
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, errors.Join(fmt.Errorf("blob %s: %w", d, err), f.Close())
	case !info.Mode().IsRegular() || info.Size() != size:
		return nil, 0, errors.Join(damaged("its file has another size"), f.Close())
	case s.bad.has(d, info):
		return nil, 0, errors.Join(damaged("its file is corrupt"), f.Close())
	}
	return f, size, nil
}

// ReadBlob returns the whole content of a small blob, which it hashes; more than
// limit bytes is an error. The errors are those of Blob.
func (s *Store) ReadBlob(ctx context.Context, d digest.Digest, limit int64) ([]byte, error) {
	f, size, err := s.Blob(ctx, Repository{}, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("blob %s: %d bytes, at most %d are expected", d, size, limit)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if d.Algorithm().FromBytes(content) == d {
		return content, nil
	}
	err = &DamagedError{v1.Descriptor{Digest: d, Size: size}, "its file is corrupt"}
	if info, statErr := f.(*os.File).Stat(); statErr == nil {
		_ = s.setAside(d, info) // where it cannot be moved, it is remembered
	}
	return nil, fmt.Errorf("blob %w", err)
}

// ForeignURLs returns the URLs that published manifests have for a foreign layer.
func (s *Store) ForeignURLs(ctx context.Context, d digest.Digest) ([]string, error) {
	all, err := list(ctx, s.reader, func(rows *sql.Rows) (m Manifest, err error) { return m, rows.Scan(&m.MediaType, &m.Bytes) },
		`SELECT media_type, bytes FROM manifest WHERE digest IN (SELECT parent FROM edge WHERE child = ? AND kind = ?) LIMIT 100`, d.String(), string(KindForeign))
	if err != nil {
		return nil, fmt.Errorf("foreign layer %s: %w", d, err)
	}
	var urls []string
	for _, m := range all {
		graph, err := ParseManifest(m.MediaType, m.Bytes)
		if err != nil {
			return nil, fmt.Errorf("foreign layer %s: %w", d, err)
		}
		for _, child := range graph.Children {
			if child.Digest == d {
				urls = append(urls, child.URLs...)
			}
		}
	}
	return urls, nil
}

// Tags lists the tags of a repository in bytewise order, after last, at most n
// (all if n is negative). It returns ErrNotFound if nothing of the repository is
// pinned.
func (s *Store) Tags(ctx context.Context, repo Repository, last string, n int) ([]string, error) {
	var known bool
	err := s.reader.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pin WHERE registry = ? AND repository = ?)", repo.Registry, repo.Path).Scan(&known)
	if err != nil {
		return nil, fmt.Errorf("tags of %s: %w", repo, err)
	}
	if !known {
		return nil, fmt.Errorf("%s: %w", repo, ErrNotFound)
	}
	tags, err := list(ctx, s.reader, scanString, `SELECT reference FROM pin WHERE registry = ?1 AND repository = ?2 AND reference > ?3 AND instr(reference, ':') = 0
		UNION SELECT reference FROM companion WHERE registry = ?1 AND repository = ?2 AND reference > ?3
		ORDER BY 1 LIMIT ?4`, repo.Registry, repo.Path, last, n)
	if err != nil {
		return nil, fmt.Errorf("tags of %s: %w", repo, err)
	}
	return tags, nil
}

// Repositories lists the repositories of a registry (all if it is "") that have
// pins, sorted by their fully qualified form, after last, at most n (all if n is
// negative). It costs what it returns, not what the store holds.
func (s *Store) Repositories(ctx context.Context, registry, last string, n int) ([]Repository, error) {
	registries := []string{registry}
	if registry == "" {
		var err error
		if registries, err = s.Registries(ctx); err != nil {
			return nil, err
		}
		// No registry has a slash in its name, so all repositories of one come
		// before all of the next, but ghcr.io-a/x before ghcr.io/x.
		slices.SortFunc(registries, func(a, b string) int { return strings.Compare(a+"/", b+"/") })
	}
	var repos []Repository
	for _, registry := range registries {
		after, here := strings.CutPrefix(last, registry+"/")
		if !here {
			if after = ""; registry+"/" < last {
				continue
			}
		}
		limit := n
		if n >= 0 {
			limit = n - len(repos)
		}
		paths, err := list(ctx, s.reader, scanString, selectRepositories, registry, after, limit)
		if err != nil {
			return nil, fmt.Errorf("repositories: %w", err)
		}
		for _, path := range paths {
			repos = append(repos, Repository{Registry: registry, Path: path})
		}
	}
	return repos, nil
}

// Registries lists the registries of which something is pinned, sorted.
func (s *Store) Registries(ctx context.Context) ([]string, error) {
	registries, err := list(ctx, s.reader, scanString, selectRegistries)
	if err != nil {
		return nil, fmt.Errorf("registries: %w", err)
	}
	return registries, nil
}

// These go from one to the next by the primary key: DISTINCT would read all pins.
const (
	selectRegistries = `WITH RECURSIVE each (name) AS (
			SELECT min(registry) FROM pin
			UNION ALL SELECT (SELECT min(registry) FROM pin WHERE registry > name) FROM each WHERE name IS NOT NULL
		) SELECT name FROM each WHERE name IS NOT NULL`
	selectRepositories = `WITH RECURSIVE each (name) AS (
			SELECT min(repository) FROM pin WHERE registry = ?1 AND repository > ?2
			UNION ALL SELECT (SELECT min(repository) FROM pin WHERE registry = ?1 AND repository > name) FROM each WHERE name IS NOT NULL
		) SELECT name FROM each WHERE name IS NOT NULL LIMIT ?3`
)

func scanString(rows *sql.Rows) (s string, err error) { return s, rows.Scan(&s) }

// Referrers lists the manifests that refer to subject, such as signatures and
// SBOMs, as the referrers API describes them (distribution specification 1.1,
// "Listing Referrers"): with artifact type and annotations.
func (s *Store) Referrers(ctx context.Context, _ Repository, subject digest.Digest) ([]v1.Descriptor, error) {
	descs, err := list(ctx, s.reader, func(rows *sql.Rows) (d v1.Descriptor, err error) {
		var content []byte
		if err := rows.Scan(&d.Digest, &d.MediaType, &content, &d.ArtifactType); err != nil {
			return d, err
		}
		d.Size = int64(len(content))
		var doc struct{ Annotations map[string]string }
		if err := json.Unmarshal(content, &doc); err != nil {
			return d, err
		}
		d.Annotations = doc.Annotations
		return d, nil
	}, `SELECT digest, media_type, bytes, artifact_type FROM manifest WHERE subject = ? ORDER BY digest`, subject.String())
	if err != nil {
		return nil, fmt.Errorf("referrers of %s: %w", subject, err)
	}
	return descs, nil
}

// list returns all rows of a query. It looks at ctx itself: for a context that
// can end the driver starts a goroutine for each row, which costs more than the row.
func list[T any](ctx context.Context, q querier, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(context.WithoutCancel(ctx), query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
