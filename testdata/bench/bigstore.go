package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3" // the index's format
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// bigStore makes a store with n pins: a hundred repositories in each of a hundred
// teams, images of two platforms and ten blobs. It writes the rows of the index
// as a sync does, and no files: a million of them take longer to make than
// everything that is measured here, and none of it reads one.
func (b *bench) bigStore(ctx context.Context, dir string, n int) error {
	// The program makes the tables.
	if _, err := write(dir, "Dockerfile", "FROM scratch\n"); err != nil {
		return err
	}
	if _, err := command(ctx, dir, b.mirrorctl, "--store", dir, "sync"); err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "index.db")+"?_synchronous=OFF&_cache_size=-400000")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	w := bigWriter{tx: tx}
	for i := range n {
		w.image(i)
	}
	if w.err != nil {
		return errors.Join(w.err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// bigName is the i-th pin.
func bigName(i int) (repository, tag string) {
	return fmt.Sprintf("team%d/app%d", i%100, i/100%100), fmt.Sprintf("1.%d", i/10_000)
}

type bigWriter struct {
	tx       *sql.Tx
	prepared map[string]*sql.Stmt
	err      error
}

func (w *bigWriter) exec(query string, args ...any) {
	if w.err != nil {
		return
	}
	stmt := w.prepared[query]
	if stmt == nil {
		if stmt, w.err = w.tx.Prepare(query); w.err != nil {
			return
		}
		if w.prepared == nil {
			w.prepared = map[string]*sql.Stmt{}
		}
		w.prepared[query] = stmt
	}
	_, w.err = stmt.Exec(args...)
}

func (w *bigWriter) blob(d v1.Descriptor) {
	w.exec("INSERT OR IGNORE INTO blob (digest, size) VALUES (?, ?)", d.Digest.String(), d.Size)
}

func (w *bigWriter) manifest(mediaType string, doc any, children []v1.Descriptor, kinds []string) v1.Descriptor {
	text, err := json.Marshal(doc)
	w.err = errors.Join(w.err, err)
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	w.blob(d)
	w.exec("INSERT INTO manifest (digest, media_type, bytes) VALUES (?, ?, ?)", d.Digest.String(), mediaType, text)
	for i, c := range children {
		var platform any
		if c.Platform != nil {
			platform = c.Platform.OS + "/" + c.Platform.Architecture
		} else if kinds[i] == "config" {
			platform = "linux/amd64"
		}
		w.exec("INSERT INTO edge (parent, position, child, size, kind, media_type, platform) VALUES (?, ?, ?, ?, ?, ?, ?)",
			d.Digest.String(), i, c.Digest.String(), c.Size, kinds[i], c.MediaType, platform)
	}
	return d
}

func (w *bigWriter) image(i int) {
	made := 0
	blob := func(mediaType string) v1.Descriptor {
		made++
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", i, made))
		d := v1.Descriptor{MediaType: mediaType, Digest: digest.Digest("sha256:" + hex.EncodeToString(sum[:])), Size: 1000}
		w.blob(d)
		return d
	}
	// All images of a team have the same first layer.
	base := sha256.Sum256(fmt.Appendf(nil, "base %d", i%100))
	first := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digest.Digest("sha256:" + hex.EncodeToString(base[:])), Size: 1000}
	w.blob(first)
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, architecture := range []string{"amd64", "arm64"} {
		m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: blob(v1.MediaTypeImageConfig)}
		m.Layers = []v1.Descriptor{first, blob(v1.MediaTypeImageLayerGzip), blob(v1.MediaTypeImageLayerGzip)}
		d := w.manifest(m.MediaType, m, append([]v1.Descriptor{m.Config}, m.Layers...), []string{"config", "layer", "layer", "layer"})
		d.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
		index.Manifests = append(index.Manifests, d)
	}
	d := w.manifest(index.MediaType, index, index.Manifests, []string{"manifest", "manifest"})
	repository, tag := bigName(i)
	w.exec("INSERT INTO pin (registry, repository, reference, digest, size, pinned_at) VALUES ('docker.io', ?, ?, ?, ?, 1700000000)", repository, tag, d.Digest.String(), 8000)
	w.exec("INSERT INTO history (at, action, registry, repository, reference, digest) VALUES (1700000000, 'pin', 'docker.io', ?, ?, ?)", repository, tag, d.Digest.String())
}
