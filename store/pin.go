package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Pin says what a reference of a repository means, from the moment it was
// pinned until it is removed.
type Pin struct {
	Repository
	Reference string // a tag or a digest
	Digest    digest.Digest
	MediaType string
	Size      int64 // bytes over all platforms, each blob once; without referrers
	PinnedAt  time.Time
	// Platforms are the manifests that the image offers, in its own order, with
	// digest and platform; attestations are not among them.
	Platforms []v1.Descriptor
}

// Name returns the fully qualified name, docker.io/library/debian:bookworm or
// docker.io/library/debian@sha256:....
func (p Pin) Name() string { return p.Repository.String() + separator(p.Reference) + p.Reference }

func separator(reference string) string {
	if strings.Contains(reference, ":") { // tags have none
		return "@"
	}
	return ":"
}

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
// blobs are missing. Publishing what is pinned already changes nothing but adds
// new referrers and companions.
func (l *Lease) Publish(ctx context.Context, image Image, move bool) (Pin, error) {
	s := l.store
	name := Pin{Repository: image.Repository, Reference: image.Reference}.Name()
	graphs := make([]Graph, len(image.Manifests))
	for i, m := range image.Manifests {
		if got := m.Digest.Algorithm().FromBytes(m.Bytes); got != m.Digest {
			return Pin{}, fmt.Errorf("%s: manifest %s: %w", name, m.Digest, ErrMismatch)
		}
		var err error
		if graphs[i], err = ParseManifest(m.MediaType, m.Bytes); err != nil {
			return Pin{}, fmt.Errorf("%s: %s: %w", name, m.Digest, err)
		}
	}
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := checkComplete(ctx, tx, image, graphs); err != nil {
			return err
		}
		for i, m := range image.Manifests {
			platform := ""
			if m.Digest == image.Digest && !IsIndex(m.MediaType) {
				platform = s.readPlatform(graphs[i])
			}
			if err := insertManifest(ctx, tx, m, graphs[i], platform); err != nil {
				return err
			}
		}
		for _, c := range image.Companions {
			_, err := tx.ExecContext(ctx, `INSERT INTO companion (registry, repository, reference, digest, subject) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT DO NOTHING`, image.Registry, image.Path, c.Reference, c.Digest.String(), c.Subject.String())
			if err != nil {
				return err
			}
		}
		return setPin(ctx, tx, image, move)
	})
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", name, err)
	}
	return s.Pin(ctx, image.Repository, image.Reference)
}

// checkComplete finds the blobs that the image needs and the store lacks, and
// sizes that are not what a manifest says.
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
		if checked[d] != size {
			return fmt.Errorf("%w: %s is listed with %d bytes, but has %d", ErrMismatch, d, size, checked[d])
		}
		return nil
	}
	for i, m := range image.Manifests {
		if err := check(m.Digest, int64(len(m.Bytes))); err != nil {
			return err
		}
		for _, child := range graphs[i].Children {
			if child.Kind == KindForeign {
				continue
			}
			if err := check(child.Digest, child.Size); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		return &IncompleteError{Missing: missing}
	}
	return nil
}

// readPlatform finds the platform of an image that is not in an index, which
// only its configuration tells.
func (s *Store) readPlatform(g Graph) string {
	for _, child := range g.Children {
		if child.Kind == KindConfig && child.Size <= MaxManifestSize {
			if config, err := os.ReadFile(s.blobPath(child.Digest)); err == nil {
				return configPlatform(config)
			}
		}
	}
	return ""
}

func insertManifest(ctx context.Context, tx *sql.Tx, m Manifest, g Graph, platform string) error {
	var subject, artifactType sql.NullString
	if g.Subject != nil {
		subject = sql.NullString{String: g.Subject.Digest.String(), Valid: true}
		artifactType = sql.NullString{String: g.ArtifactType, Valid: true}
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO manifest (digest, media_type, bytes, subject, artifact_type) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`, m.Digest.String(), m.MediaType, m.Bytes, subject, artifactType)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 { // there already, and so are its edges
		return setConfigPlatform(ctx, tx, m.Digest, platform)
	}
	for i, child := range g.Children {
		p := FormatPlatform(child.Platform)
		if child.Kind == KindConfig {
			p = platform
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO edge (parent, position, child, size, kind, media_type, platform) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			m.Digest.String(), i, child.Digest.String(), child.Size, string(child.Kind), child.MediaType,
			sql.NullString{String: p, Valid: p != ""})
		if err != nil {
			return err
		}
	}
	return nil
}

// setConfigPlatform fills in the platform of a manifest that was stored as part
// of an index, which needs none, and is now pinned by itself.
func setConfigPlatform(ctx context.Context, tx *sql.Tx, d digest.Digest, platform string) error {
	if platform == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, "UPDATE edge SET platform = ? WHERE parent = ? AND kind = 'config'", platform, d.String())
	return err
}

func setPin(ctx context.Context, tx *sql.Tx, image Image, move bool) error {
	action, now := "pin", time.Now().Unix()
	pinned, err := selectPin(ctx, tx, image.Repository, image.Reference)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	case pinned.Digest == image.Digest:
		return nil
	case !move:
		return &ConflictError{Pinned: pinned}
	default:
		action = "move"
	}
	size, err := imageSize(ctx, tx, image.Digest)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO pin (registry, repository, reference, digest, size, pinned_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (registry, repository, reference) DO UPDATE SET digest = excluded.digest, size = excluded.size, pinned_at = excluded.pinned_at`,
		image.Registry, image.Path, image.Reference, image.Digest.String(), size, now)
	if err != nil {
		return err
	}
	if action == "move" { // what only the old digest needed is left to gc
		if _, err := unpublish(ctx, tx, pinned.Digest); err != nil {
			return err
		}
	}
	return addHistory(ctx, tx, action, image.Repository, image.Reference, image.Digest, now)
}

func addHistory(ctx context.Context, tx *sql.Tx, action string, repo Repository, reference string, d digest.Digest, at int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO history (at, action, registry, repository, reference, digest) VALUES (?, ?, ?, ?, ?, ?)`,
		at, action, repo.Registry, repo.Path, reference, d.String())
	return err
}

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// reachable returns what d reaches, itself included, with the size of each
// blob in bytes: children, referrers and companions, theirs too.
func reachable(ctx context.Context, q querier, d digest.Digest) (map[digest.Digest]int64, error) {
	// Three recursive terms, not one over a union: each finds its rows by index.
	reach := map[digest.Digest]int64{}
	_, err := list(ctx, q, func(rows *sql.Rows) (none struct{}, err error) {
		var d digest.Digest
		var size int64
		err = rows.Scan(&d, &size)
		reach[d] = size
		return none, err
	}, `WITH RECURSIVE reach (digest) AS (
			SELECT ?
			UNION SELECT edge.child FROM reach CROSS JOIN edge ON edge.parent = reach.digest
			UNION SELECT manifest.digest FROM reach CROSS JOIN manifest ON manifest.subject = reach.digest
			UNION SELECT companion.digest FROM reach CROSS JOIN companion ON companion.subject = reach.digest
		) SELECT reach.digest, blob.size FROM reach CROSS JOIN blob ON blob.digest = reach.digest`, d.String())
	return reach, err
}

// imageSize is the size in bytes of what an image consists of over all
// platforms, each blob once. Referrers and foreign layers do not count, so that
// it depends on the digest alone.
func imageSize(ctx context.Context, q querier, d digest.Digest) (int64, error) {
	var size int64
	err := q.QueryRowContext(ctx, `WITH RECURSIVE part (digest, size) AS (
			SELECT digest, size FROM blob WHERE digest = ?
			UNION SELECT edge.child, edge.size FROM part CROSS JOIN edge ON edge.parent = part.digest WHERE edge.kind <> 'foreign'
		) SELECT sum(size) FROM part`, d.String()).Scan(&size)
	return size, err
}

// PinPublished pins a digest that the store has published already, under
// whatever name: nothing needs to be fetched for it. It returns ErrNotFound if
// it is not published, and a *ConflictError as Publish does.
func (s *Store) PinPublished(ctx context.Context, repo Repository, reference string, d digest.Digest, move bool) (Pin, error) {
	name := Pin{Repository: repo, Reference: reference}.Name()
	err := s.update(ctx, func(tx *sql.Tx) error {
		var published bool
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM manifest WHERE digest = ?)", d.String()).Scan(&published); err != nil {
			return err
		}
		if !published {
			return fmt.Errorf("%s: %w", d, ErrNotFound)
		}
		return setPin(ctx, tx, Image{Repository: repo, Reference: reference, Digest: d}, move)
	})
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", name, err)
	}
	return s.Pin(ctx, repo, reference)
}

// Pins returns all pinned images, sorted by name.
func (s *Store) Pins(ctx context.Context) ([]Pin, error) {
	pins, err := selectPins(ctx, s.reader, "")
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	return pins, nil
}

// PinnedIn reports whether a digest is pinned under some reference of a
// repository, so that its companions are there too.
func (s *Store) PinnedIn(ctx context.Context, repo Repository, d digest.Digest) (bool, error) {
	var there bool
	err := s.reader.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pin WHERE digest = ? AND registry = ? AND repository = ?)",
		d.String(), repo.Registry, repo.Path).Scan(&there)
	return there, err
}

// Pin returns what is pinned under a reference, or ErrNotFound.
func (s *Store) Pin(ctx context.Context, repo Repository, reference string) (Pin, error) {
	return selectPin(ctx, s.reader, repo, reference)
}

func selectPin(ctx context.Context, q querier, repo Repository, reference string) (Pin, error) {
	pins, err := selectPins(ctx, q, "WHERE pin.registry = ? AND pin.repository = ? AND pin.reference = ?", repo.Registry, repo.Path, reference)
	if err != nil {
		return Pin{}, err
	}
	if len(pins) == 0 {
		return Pin{}, fmt.Errorf("%s: %w", Pin{Repository: repo, Reference: reference}.Name(), ErrNotFound)
	}
	return pins[0], nil
}

func selectPins(ctx context.Context, q querier, where string, args ...any) ([]Pin, error) {
	pins, err := list(ctx, q, func(rows *sql.Rows) (p Pin, err error) {
		var at int64
		err = rows.Scan(&p.Registry, &p.Path, &p.Reference, &p.Digest, &p.MediaType, &p.Size, &at)
		p.PinnedAt = time.Unix(at, 0).UTC()
		return p, err
	}, `SELECT pin.registry, pin.repository, pin.reference, pin.digest, manifest.media_type, pin.size, pin.pinned_at
		FROM pin JOIN manifest ON manifest.digest = pin.digest `+where+`
		ORDER BY pin.registry, pin.repository, pin.reference`, args...)
	if err != nil {
		return nil, err
	}
	for i := range pins {
		if pins[i].Platforms, err = selectPlatforms(ctx, q, pins[i].Digest); err != nil {
			return nil, err
		}
	}
	return pins, nil
}

// selectPlatforms lists the platforms of an image, those of nested indexes too.
func selectPlatforms(ctx context.Context, q querier, d digest.Digest) ([]v1.Descriptor, error) {
	return list(ctx, q, func(rows *sql.Rows) (d v1.Descriptor, err error) {
		var platform string
		err = rows.Scan(&d.Digest, &platform)
		d.Platform = parsePlatform(platform)
		return d, err
	}, `WITH RECURSIVE list (digest, kind, platform, place) AS (
			SELECT CASE kind WHEN 'config' THEN parent ELSE child END, kind, platform, printf('%06d', position)
			FROM edge WHERE parent = ? AND kind IN ('manifest', 'config')
		UNION ALL
			SELECT edge.child, edge.kind, edge.platform, list.place || printf('%06d', edge.position)
			FROM list JOIN edge ON edge.parent = list.digest WHERE list.kind = 'manifest' AND edge.kind = 'manifest' AND length(list.place) < 60
		) SELECT digest, platform FROM list WHERE platform IS NOT NULL AND platform <> 'unknown/unknown' ORDER BY place`, d.String())
}
