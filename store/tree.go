package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Node is a manifest or blob of an image with what hangs below it.
type Node struct {
	v1.Descriptor
	Kind     Kind   // "" for the root
	Platform string // linux/arm64/v8, where the index or the configuration tells
	Shared   bool   // other manifests in the store list it too
	Children []Node
	// Referrers are manifests that refer to this one, such as signatures.
	Referrers []Node
	Tags      []string // companion tags that lead to this node
}

// Tree returns an image's content as a tree, from the manifest with digest d.
// It returns ErrNotFound if that is not published. What hangs below a manifest is
// there once: where the manifest occurs again, it stands alone.
func (s *Store) Tree(ctx context.Context, d digest.Digest) (Node, error) {
	m, err := s.Manifest(ctx, Repository{}, d.String())
	if err != nil {
		return Node{}, err
	}
	root := Node{Descriptor: m.Descriptor}
	if IsSchema1(m.MediaType) {
		graph, err := ParseManifest(m.MediaType, m.Bytes)
		if err != nil {
			return Node{}, fmt.Errorf("%s: %w", d, err)
		}
		root.Platform = FormatPlatform(graph.Platform)
	}
	if err := s.grow(ctx, &root, map[digest.Digest]bool{}); err != nil {
		return Node{}, fmt.Errorf("%s: %w", d, err)
	}
	return root, nil
}

// grow fills in what is below n, unless that was done elsewhere in the tree:
// subjects can form cycles, and indexes that list one another many times would
// make a tree without end.
func (s *Store) grow(ctx context.Context, n *Node, grown map[digest.Digest]bool) error {
	if grown[n.Digest] {
		return nil
	}
	grown[n.Digest] = true
	var err error
	n.Children, err = list(ctx, s.reader, func(rows *sql.Rows) (c Node, err error) {
		var platform sql.NullString
		err = rows.Scan(&c.Digest, &c.Size, &c.Kind, &c.MediaType, &platform, &c.Shared)
		c.Platform = platform.String
		return c, err
	}, `SELECT child, size, kind, media_type, platform,
			EXISTS (SELECT 1 FROM edge AS other WHERE other.child = edge.child AND other.parent <> edge.parent)
		FROM edge WHERE parent = ? ORDER BY position`, n.Digest.String())
	if err != nil {
		return err
	}
	n.Referrers, err = list(ctx, s.reader, func(rows *sql.Rows) (r Node, err error) {
		return r, rows.Scan(&r.Digest, &r.MediaType, &r.Size, &r.ArtifactType)
	}, `SELECT digest, media_type, length(bytes), artifact_type FROM manifest WHERE subject = ?1
		UNION SELECT manifest.digest, media_type, length(bytes), coalesce(artifact_type, '') FROM companion
			JOIN manifest ON manifest.digest = companion.digest WHERE companion.subject = ?1
		ORDER BY 1`, n.Digest.String())
	if err != nil {
		return err
	}
	for i := range n.Children {
		if n.Children[i].Kind == KindManifest {
			if err := s.grow(ctx, &n.Children[i], grown); err != nil {
				return err
			}
		}
	}
	for i := range n.Referrers {
		r := &n.Referrers[i]
		r.Tags, err = list(ctx, s.reader, scanString,
			"SELECT DISTINCT reference FROM companion WHERE digest = ? AND subject = ? ORDER BY reference", r.Digest.String(), n.Digest.String())
		if err != nil {
			return err
		}
		if err := s.grow(ctx, r, grown); err != nil {
			return err
		}
	}
	return nil
}
