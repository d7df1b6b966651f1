package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is what Publish pins: everything that a reference reaches.
type Image struct {
	Repository
	Reference string
	Digest    digest.Digest // of the index or manifest that the reference means
	// Manifests are all manifests that the image reaches, referrers too, the
	// one with Digest among them.
	Manifests []Manifest
	// Companions are tags that come and go with the image.
	Companions []Companion
}

// Companion is a tag that belongs to a manifest rather than being asked for:
// sha256-<hex>.sig and its like.
type Companion struct {
	Reference string
	Digest    digest.Digest
	Subject   digest.Digest // the manifest that it goes with
}

// Publish pins an image in one transaction, after making sure that everything
// it reaches is in the store. It returns a *ConflictError if the reference is
// pinned to another digest, unless move is set, and an *IncompleteError if
// blobs are missing, or manifests that are neither among image.Manifests nor
// published. Publishing what is pinned already changes nothing but adds new
// referrers and companions.
func (l *Lease) Publish(ctx context.Context, image Image, move bool) (Pin, error) {
	return l.store.publish(ctx, image, move, 0)
}

// publish is Publish; lease is that of the arrival which must still be there, or 0.
func (s *Store) publish(ctx context.Context, image Image, move bool, lease int64) (Pin, error) {
	name := Pin{Repository: image.Repository, Reference: image.Reference}.Name()
	graphs, err := image.parse()
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", name, err)
	}
	var platform string
	var platformErr error // of a configuration that is not there, which checkComplete tells better
	for i, m := range image.Manifests {
		if m.Digest == image.Digest {
			platform, platformErr = s.readPlatform(ctx, graphs[i])
		}
	}
	var pin Pin
	err = s.update(ctx, func(tx *sql.Tx) error {
		if lease != 0 {
			if err := checkLease(ctx, tx, lease); err != nil {
				return err
			}
		}
		if err := checkComplete(ctx, tx, image, graphs); err != nil {
			return err
		}
		if platformErr != nil {
			return platformErr
		}
		if err := insertImage(ctx, tx, image, graphs); err != nil {
			return err
		}
		pin, err = setPin(ctx, tx, image.Repository, image.Reference, image.Digest, platform, move)
		return err
	})
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", name, err)
	}
	return pin, nil
}

// parse reads the manifests and checks what the index could not.
func (image Image) parse() ([]Graph, error) {
	if err := checkReference(image.Reference, image.Digest); err != nil {
		return nil, err
	}
	graphs := make([]Graph, len(image.Manifests))
	for i, m := range image.Manifests {
		if err := checkDigest(m.Digest); err != nil {
			return nil, err
		}
		if err := m.Verify(); err != nil {
			return nil, err
		}
		var err error
		if graphs[i], err = ParseManifest(m.MediaType, m.Bytes); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Digest, err)
		}
	}
	for _, c := range image.Companions {
		if err := errors.Join(checkReference(c.Reference, c.Digest), checkDigest(c.Digest), checkDigest(c.Subject)); err != nil {
			return nil, err
		}
	}
	return graphs, nil
}

// checkReference makes sure that a digest means itself.
func checkReference(reference string, d digest.Digest) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	if reference == "" || separator(reference) == "@" && reference != d.String() {
		return fmt.Errorf("reference %q cannot mean %s", reference, d)
	}
	return nil
}

// checkComplete finds the blobs that the image needs and the store lacks, sizes
// that are not what a manifest says, and manifests of which only the blob is
// there: what they list may be missing.
func checkComplete(ctx context.Context, tx *sql.Tx, image Image, graphs []Graph) error {
	stmt, err := tx.PrepareContext(ctx, "SELECT size FROM blob WHERE digest = ?")
	if err != nil {
		return err
	}
	defer stmt.Close()
	var missing []digest.Digest
	checked := map[digest.Digest]int64{}
	check := func(d digest.Digest, size int64) error {
		if _, seen := checked[d]; !seen {
			var is int64
			err := stmt.QueryRowContext(ctx, d.String()).Scan(&is)
			if errors.Is(err, sql.ErrNoRows) {
				missing = append(missing, d)
				is = size
			} else if err != nil {
				return err
			}
			checked[d] = is
		}
		if checked[d] == SizeUnknown {
			checked[d] = size
		}
		if size != SizeUnknown && checked[d] != size {
			return fmt.Errorf("%w: %s is listed with %d bytes, but has %d", ErrMismatch, d, size, checked[d])
		}
		return nil
	}
	known := map[digest.Digest]bool{}
	for _, m := range image.Manifests {
		known[m.Digest] = true
	}
	manifest := func(d digest.Digest) error {
		if known[d] {
			return nil
		}
		known[d] = true
		var published bool
		err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM manifest WHERE digest = ?)", d.String()).Scan(&published)
		if err == nil && !published {
			missing = append(missing, d)
		}
		return err
	}
	if err := manifest(image.Digest); err != nil {
		return err
	}
	for i, m := range image.Manifests {
		payload, err := m.Payload()
		if err == nil {
			err = check(m.Digest, int64(len(payload)))
		}
		if signed := graphs[i].Signed; err == nil && signed != nil {
			err = check(signed.Digest, signed.Size)
		}
		if err != nil {
			return err
		}
		for _, child := range graphs[i].Children {
			if child.Kind == KindForeign {
				continue
			}
			if child.Kind == KindManifest {
				if err := manifest(child.Digest); err != nil {
					return err
				}
			}
			if err := check(child.Digest, child.Size); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		missing = slices.Compact(missing)
		return &IncompleteError{Missing: missing}
	}
	return nil
}

// readPlatform finds the platform of an image that is not in an index, which
// only its configuration tells.
func (s *Store) readPlatform(ctx context.Context, g Graph) (string, error) {
	for _, child := range g.Children {
		if child.Kind == KindConfig && child.Size <= MaxManifestSize {
			config, err := s.ReadBlob(ctx, child.Digest, MaxManifestSize)
			return configPlatform(config), err
		}
	}
	return "", nil
}

// insertImage adds the manifests and companions that are new. Those that the
// image does not reach, such as what a companion tag means that the store has
// pinned to something else, are left out again: only what a pin reaches has a
// row.
func insertImage(ctx context.Context, tx *sql.Tx, image Image, graphs []Graph) error {
	var fresh []digest.Digest
	for i, m := range image.Manifests {
		inserted, err := insertManifest(ctx, tx, m, graphs[i])
		if err != nil {
			return err
		}
		if inserted {
			fresh = append(fresh, m.Digest)
		}
	}
	var tagged []Companion
	for _, c := range image.Companions {
		res, err := tx.ExecContext(ctx, `INSERT INTO companion (registry, repository, reference, digest, subject) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, image.Registry, image.Path, c.Reference, c.Digest.String(), c.Subject.String())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			tagged = append(tagged, c)
		}
	}
	reach, err := reachable(ctx, tx, image.Digest)
	if err != nil {
		return err
	}
	for _, c := range tagged {
		if _, reached := reach[c.Subject]; reached {
			continue
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM companion WHERE registry = ? AND repository = ? AND reference = ?", image.Registry, image.Path, c.Reference)
		if err != nil {
			return err
		}
	}
	for _, d := range fresh {
		if _, reached := reach[d]; !reached {
			if err := dropManifest(ctx, tx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// insertManifest adds a manifest and its edges unless they are there.
func insertManifest(ctx context.Context, tx *sql.Tx, m Manifest, g Graph) (inserted bool, err error) {
	var subject, artifactType sql.NullString
	if g.Subject != nil {
		subject = sql.NullString{String: g.Subject.Digest.String(), Valid: true}
		artifactType = sql.NullString{String: g.ArtifactType, Valid: true}
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO manifest (digest, media_type, bytes, subject, artifact_type) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`, m.Digest.String(), m.MediaType, m.Bytes, subject, artifactType)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	children := g.Children
	if g.Signed != nil {
		if err := setSigned(ctx, tx, m.Digest, g.Signed.Digest); err != nil {
			return false, err
		}
		children = append(slices.Clip(children), Child{Descriptor: *g.Signed, Kind: KindBlob})
	}
	for i, child := range children {
		platform := FormatPlatform(child.Platform)
		_, err := tx.ExecContext(ctx, `INSERT INTO edge (parent, position, child, size, kind, media_type, platform)
			VALUES (?1, ?2, ?3, iif(?4 < 0, (SELECT size FROM blob WHERE digest = ?3), ?4), ?5, ?6, ?7)`,
			m.Digest.String(), i, child.Digest.String(), child.Size, string(child.Kind), child.MediaType,
			sql.NullString{String: platform, Valid: platform != ""})
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// setPin pins a published digest. platform is that of an image without an index.
func setPin(ctx context.Context, tx *sql.Tx, repo Repository, reference string, d digest.Digest, platform string, move bool) (Pin, error) {
	if platform != "" {
		_, err := tx.ExecContext(ctx, "UPDATE edge SET platform = ? WHERE parent = ? AND kind = 'config'", platform, d.String())
		if err != nil {
			return Pin{}, err
		}
	}
	action, now := "pin", time.Now().Unix()
	pinned, err := selectPin(ctx, tx, repo, reference)
	switch {
	case errors.Is(err, ErrNotFound):
		if err := settle(ctx, tx, repo, reference, d, move); err != nil {
			return Pin{}, err
		}
	case err != nil:
		return Pin{}, err
	case pinned.Digest == d:
		return pinned, nil
	case !move:
		return Pin{}, &ConflictError{Pinned: pinned}
	default:
		action = "move"
	}
	size, err := imageSize(ctx, tx, d)
	if err != nil {
		return Pin{}, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO pin (registry, repository, reference, digest, size, pinned_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (registry, repository, reference) DO UPDATE SET digest = excluded.digest, size = excluded.size, pinned_at = excluded.pinned_at`,
		repo.Registry, repo.Path, reference, d.String(), size, now)
	if err != nil {
		return Pin{}, err
	}
	if action == "move" { // what only the old digest needed is left to gc
		if err := forgetStanding(ctx, tx, repo, reference); err != nil {
			return Pin{}, err
		}
		if _, err := unpublish(ctx, tx, repo, pinned.Digest); err != nil {
			return Pin{}, err
		}
	}
	if err := addHistory(ctx, tx, action, repo, reference, d, now); err != nil {
		return Pin{}, err
	}
	return selectPin(ctx, tx, repo, reference)
}

// PinPublished pins a digest that the store has published already, under
// whatever name: nothing needs to be fetched for it. It returns ErrNotFound if
// it is not published, and a *ConflictError as Publish does.
func (s *Store) PinPublished(ctx context.Context, repo Repository, reference string, d digest.Digest, move bool) (Pin, error) {
	pin, err := s.pinPublished(ctx, repo, reference, d, move)
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", Pin{Repository: repo, Reference: reference}.Name(), err)
	}
	return pin, nil
}

func (s *Store) pinPublished(ctx context.Context, repo Repository, reference string, d digest.Digest, move bool) (pin Pin, err error) {
	if err := checkReference(reference, d); err != nil {
		return Pin{}, err
	}
	m, err := s.Manifest(ctx, repo, d.String())
	if err != nil {
		return Pin{}, err
	}
	graph, err := ParseManifest(m.MediaType, m.Bytes)
	if err != nil {
		return Pin{}, err
	}
	platform, err := s.readPlatform(ctx, graph)
	if err != nil {
		return Pin{}, err
	}
	err = s.update(ctx, func(tx *sql.Tx) error {
		var published bool
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM manifest WHERE digest = ?)", d.String()).Scan(&published); err != nil {
			return err
		}
		if !published { // any more
			return fmt.Errorf("%s: %w", d, ErrNotFound)
		}
		pin, err = setPin(ctx, tx, repo, reference, d, platform, move)
		return err
	})
	return pin, err
}
