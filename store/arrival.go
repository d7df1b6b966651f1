package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Arrival is a reference whose digest is decided and will not change, while its
// content is still arriving: a pin in the making. It becomes a pin when all its
// content is there. Arrivals outlive the process that fetches them.
type Arrival struct {
	Repository
	Reference string // a tag or a digest
	Digest    digest.Digest
	MediaType string
	Since     time.Time
	id        int64
}

// Name returns the fully qualified name, as that of a Pin.
func (a Arrival) Name() string { return a.Pin().Name() }

// Pin is what the arrival will be, without what only its content tells.
func (a Arrival) Pin() Pin {
	return Pin{Repository: a.Repository, Reference: a.Reference, Digest: a.Digest, MediaType: a.MediaType}
}

// Arrive decides, durably, what a reference means before its content is here.
// Who decides first wins: the arrival that is returned has the digest that the
// reference means from now on. It returns ErrExists if the reference is pinned.
func (s *Store) Arrive(ctx context.Context, repo Repository, reference string, root v1.Descriptor) (Arrival, error) {
	var arrival Arrival
	err := checkReference(reference, root.Digest)
	if err == nil {
		err = s.update(ctx, func(tx *sql.Tx) error {
			_, err := selectPin(ctx, tx, repo, reference)
			if err == nil {
				return ErrExists
			}
			if !errors.Is(err, ErrNotFound) {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO arrival (registry, repository, reference, digest, media_type, since) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT DO NOTHING`, repo.Registry, repo.Path, reference, root.Digest.String(), root.MediaType, time.Now().Unix())
			if err == nil {
				arrival, err = selectArrival(ctx, tx, repo, reference)
			}
			return err
		})
	}
	if err != nil {
		return Arrival{}, fmt.Errorf("%s: %w", Pin{Repository: repo, Reference: reference}.Name(), err)
	}
	return arrival, nil
}

// Arrival returns what is arriving under a reference, or ErrNotFound.
func (s *Store) Arrival(ctx context.Context, repo Repository, reference string) (Arrival, error) {
	return selectArrival(ctx, s.reader, repo, reference)
}

// Arrivals returns all that is arriving, sorted by name.
func (s *Store) Arrivals(ctx context.Context) ([]Arrival, error) {
	all, err := selectArrivals(ctx, s.reader, "")
	if err != nil {
		return nil, fmt.Errorf("arrivals: %w", err)
	}
	return all, nil
}

func selectArrival(ctx context.Context, q querier, repo Repository, reference string) (Arrival, error) {
	all, err := selectArrivals(ctx, q, "WHERE registry = ? AND repository = ? AND reference = ?", repo.Registry, repo.Path, reference)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s: %w", Pin{Repository: repo, Reference: reference}.Name(), ErrNotFound)
	}
	if err != nil {
		return Arrival{}, err
	}
	return all[0], nil
}

func selectArrivals(ctx context.Context, q querier, where string, args ...any) ([]Arrival, error) {
	return list(ctx, q, func(rows *sql.Rows) (a Arrival, err error) {
		var since int64
		err = rows.Scan(&a.id, &a.Registry, &a.Path, &a.Reference, &a.Digest, &a.MediaType, &since)
		a.Since = time.Unix(since, 0).UTC()
		return a, err
	}, `SELECT id, registry, repository, reference, digest, media_type, since FROM arrival `+where+`
		ORDER BY registry, repository, reference`, args...)
}

// LeaseFor protects the content of an arrival until that is published or
// removed, also while no process runs. It needs no Close. Once the arrival is
// gone its methods return ErrLeaseEnded.
func (s *Store) LeaseFor(a Arrival) *Lease {
	return &Lease{store: s, id: -a.id, held: map[digest.Digest]bool{}}
}

// PublishArrival is Lease.Publish for an arrival, which becomes a pin. It
// returns ErrLeaseEnded if the arrival is gone: removed, or published by
// another process.
func (s *Store) PublishArrival(ctx context.Context, a Arrival, manifests []Manifest, companions []Companion) (Pin, error) {
	return s.publish(ctx, Image{
		Repository: a.Repository, Reference: a.Reference, Digest: a.Digest,
		Manifests: manifests, Companions: companions,
	}, false, -a.id)
}

// settle ends the arrival of a reference that is being pinned to d: what it held
// and the pin does not need goes to the collector. It returns a *ConflictError
// if another digest is arriving and move is not set.
func settle(ctx context.Context, tx *sql.Tx, repo Repository, reference string, d digest.Digest, move bool) error {
	a, err := selectArrival(ctx, tx, repo, reference)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case a.Digest != d && !move:
		return &ConflictError{Pinned: a.Pin()}
	}
	return dropArrival(ctx, tx, a)
}

func dropArrival(ctx context.Context, tx *sql.Tx, a Arrival) error {
	if err := dropLease(ctx, tx, -a.id); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM arrival WHERE id = ?", a.id)
	return err
}

// removeArrival drops an arrival and returns what it held.
func removeArrival(ctx context.Context, tx *sql.Tx, repo Repository, reference string) (Pin, []digest.Digest, error) {
	a, err := selectArrival(ctx, tx, repo, reference)
	if err != nil {
		return Pin{}, nil, err
	}
	held, err := list(ctx, tx, func(rows *sql.Rows) (d digest.Digest, err error) { return d, rows.Scan(&d) },
		"SELECT digest FROM hold WHERE lease = ?", -a.id)
	if err != nil {
		return Pin{}, nil, err
	}
	return a.Pin(), held, dropArrival(ctx, tx, a)
}

// Arrived says how much of an arrival is here. The totals grow while its
// manifests arrive.
type Arrived struct {
	Blobs, TotalBlobs int   // manifests too
	Bytes, TotalBytes int64 // of the parts of blobs that are here, too
}

// Arrived counts what is here of an arrival, without its referrers.
func (s *Store) Arrived(ctx context.Context, a Arrival) (Arrived, error) {
	var n Arrived
	seen := map[digest.Digest]bool{}
	queue := []Child{{Descriptor: v1.Descriptor{Digest: a.Digest, MediaType: a.MediaType}, Kind: KindManifest}}
	for len(queue) > 0 {
		child := queue[0]
		queue = queue[1:]
		if seen[child.Digest] || child.Kind == KindForeign {
			continue
		}
		seen[child.Digest] = true
		n.TotalBlobs++
		size, err := s.Size(ctx, child.Digest)
		if errors.Is(err, ErrNotFound) {
			here := s.partial(child.Digest)
			n.Bytes += here
			n.TotalBytes += max(child.Size, here) // nothing else tells the size of some
			continue
		}
		if err != nil {
			return Arrived{}, err
		}
		n.Blobs++
		n.Bytes += size
		n.TotalBytes += size
		if child.Kind != KindManifest {
			continue
		}
		m, err := s.ReadManifest(ctx, child.Descriptor)
		if errors.Is(err, ErrNotFound) { // removed a moment ago
			continue
		}
		if err != nil {
			return Arrived{}, err
		}
		graph, err := ParseManifest(m.MediaType, m.Bytes)
		if err != nil {
			return Arrived{}, fmt.Errorf("%s: %s: %w", a.Name(), child.Digest, err)
		}
		queue = slices.Concat(queue, graph.Children)
	}
	return n, nil
}

// partial returns how many bytes of a blob have come so far.
func (s *Store) partial(d digest.Digest) int64 {
	if checkDigest(d) != nil {
		return 0
	}
	info, err := os.Stat(s.ingestPath(d))
	if err != nil {
		return 0
	}
	return info.Size()
}
