package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
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

// Names returns the names of the images that are pinned in a repository, in any
// if it is zero, sorted.
func (s *Store) Names(ctx context.Context, repo Repository) ([]string, error) {
	query := `SELECT registry || '/' || repository || iif(instr(reference, ':'), '@', ':') || reference FROM pin`
	var args []any
	if repo != (Repository{}) {
		query, args = query+" WHERE registry = ? AND repository = ?", []any{repo.Registry, repo.Path}
	}
	names, err := list(ctx, s.reader, scanString, query+" ORDER BY registry, repository, reference", args...)
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	return names, nil
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

// selectPins takes two queries, however many pins there are, and a third if some
// are of schema 1.
func selectPins(ctx context.Context, q querier, where string, args ...any) ([]Pin, error) {
	pins, err := list(ctx, q, func(rows *sql.Rows) (p Pin, err error) {
		var at int64
		err = rows.Scan(&p.Registry, &p.Path, &p.Reference, &p.Digest, &p.MediaType, &p.Size, &at)
		p.PinnedAt = time.Unix(at, 0).UTC()
		return p, err
	}, `SELECT pin.registry, pin.repository, pin.reference, pin.digest, manifest.media_type, pin.size, pin.pinned_at
		FROM pin JOIN manifest ON manifest.digest = pin.digest `+where+`
		ORDER BY pin.registry, pin.repository, pin.reference`, args...)
	if err != nil || len(pins) == 0 {
		return nil, err
	}
	offers, err := selectOffers(ctx, q, where, args...)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(pins, func(p Pin) bool { return IsSchema1(p.MediaType) }) {
		if err := offers.addSchema1(ctx, q, where, args...); err != nil {
			return nil, err
		}
	}
	for i := range pins {
		pins[i].Platforms = offers.platforms(pins[i].Digest)
	}
	return pins, nil
}

// offers are the entries with a platform, and the nested indexes, of manifests.
type offers map[digest.Digest][]v1.Descriptor

// selectOffers reads them for what the pins mean and for the indexes below that.
func selectOffers(ctx context.Context, q querier, where string, args ...any) (offers, error) {
	all := offers{}
	known := map[string]*v1.Platform{} // most images have the same few
	_, err := list(ctx, q, func(rows *sql.Rows) (none struct{}, err error) {
		var parent digest.Digest
		var d v1.Descriptor
		var platform sql.NullString
		err = rows.Scan(&parent, &d.Digest, &d.MediaType, &platform)
		if platform.Valid && platform.String != "unknown/unknown" { // which attestations have
			if known[platform.String] == nil {
				known[platform.String] = parsePlatform(platform.String)
			}
			d.Platform = known[platform.String]
		}
		all[parent] = append(all[parent], d)
		return none, err
	}, `WITH RECURSIVE offer (digest) AS (
			SELECT pin.digest FROM pin `+where+`
			UNION SELECT edge.child FROM offer CROSS JOIN edge ON edge.parent = offer.digest
				WHERE edge.kind = 'manifest' AND edge.media_type IN ('`+v1.MediaTypeImageIndex+`', '`+MediaTypeDockerIndex+`')
		) SELECT parent, CASE kind WHEN 'config' THEN parent ELSE child END, media_type, platform
		FROM offer CROSS JOIN edge ON edge.parent = offer.digest
		WHERE kind IN ('manifest', 'config') ORDER BY parent, position`, args...)
	return all, err
}

// addSchema1 adds what no edge tells: the platforms of images of schema 1.
func (o offers) addSchema1(ctx context.Context, q querier, where string, args ...any) error {
	_, err := list(ctx, q, func(rows *sql.Rows) (none struct{}, err error) {
		var m Manifest
		if err := rows.Scan(&m.Digest, &m.MediaType, &m.Bytes); err != nil {
			return none, err
		}
		graph, err := ParseManifest(m.MediaType, m.Bytes)
		if err == nil { // else it is damaged, which is told where it is read
			o[m.Digest] = []v1.Descriptor{{Digest: m.Digest, Platform: graph.Platform}}
		}
		return none, nil
	}, `SELECT digest, media_type, bytes FROM manifest WHERE media_type IN ('`+MediaTypeSchema1+`', '`+MediaTypeSchema1Signed+`')
		AND digest IN (SELECT pin.digest FROM pin `+where+`)`, args...)
	return err
}

// platforms lists the platforms of an image, those of nested indexes too, each
// index once: one that lists another a thousand times would have a thousand times
// as many otherwise, and with ten levels of them no end.
func (o offers) platforms(root digest.Digest) []v1.Descriptor {
	var platforms []v1.Descriptor
	seen := map[digest.Digest]bool{}
	var walk func(digest.Digest)
	walk = func(parent digest.Digest) {
		if seen[parent] {
			return
		}
		seen[parent] = true
		for _, entry := range o[parent] {
			if entry.Platform != nil {
				platforms = append(platforms, v1.Descriptor{Digest: entry.Digest, Platform: entry.Platform})
			}
			if IsIndex(entry.MediaType) {
				walk(entry.Digest)
			}
		}
	}
	walk(root)
	return platforms
}
