package store

import (
	"context"
	"database/sql"
	"fmt"
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

// selectPlatforms lists the platforms of an image, those of nested indexes too,
// each index once: one that lists another a thousand times would have a thousand
// times as many otherwise, and with ten levels of them no end.
func selectPlatforms(ctx context.Context, q querier, root digest.Digest) ([]v1.Descriptor, error) {
	var platforms []v1.Descriptor
	seen := map[digest.Digest]bool{}
	var walk func(digest.Digest) error
	walk = func(parent digest.Digest) error {
		if seen[parent] {
			return nil
		}
		seen[parent] = true
		entries, err := list(ctx, q, func(rows *sql.Rows) (d v1.Descriptor, err error) {
			var platform sql.NullString
			err = rows.Scan(&d.Digest, &d.MediaType, &platform)
			if platform.Valid && platform.String != "unknown/unknown" { // which attestations have
				d.Platform = parsePlatform(platform.String)
			}
			return d, err
		}, `SELECT CASE kind WHEN 'config' THEN parent ELSE child END, media_type, platform
			FROM edge WHERE parent = ? AND kind IN ('manifest', 'config') ORDER BY position`, parent.String())
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if entry.Platform != nil {
				platforms = append(platforms, v1.Descriptor{Digest: entry.Digest, Platform: entry.Platform})
			}
			if IsIndex(entry.MediaType) {
				if err := walk(entry.Digest); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return platforms, walk(root)
}
