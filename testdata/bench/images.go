package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// images are what all servers hold: an index of eight platforms, of some 2 kB,
// and an image of one large layer.
type images struct {
	index v1.ImageIndex
	large v1.Image
	layer *layerFile
}

// The repositories they are in, with the tag latest.
const (
	indexRepository = "library/index"
	largeRepository = "library/large"
)

// newImages makes images that are the same in every run. The layer is a file in dir.
func newImages(dir string, size int64) (*images, error) {
	var m images
	var err error
	// Random bytes: neither a file system nor a server makes less of them.
	if m.index, err = random.Index(1024, 2, 8); err != nil {
		return nil, err
	}
	if m.layer, err = newLayerFile(filepath.Join(dir, "layer"), size); err != nil {
		return nil, err
	}
	m.large, err = mutate.AppendLayers(empty.Image, m.layer)
	return &m, err
}

// push sends the images to a registry.
func (m *images) push(ctx context.Context, address string) error {
	for repository, write := range map[string]func(name.Reference) error{
		indexRepository: func(r name.Reference) error { return remote.WriteIndex(r, m.index, remote.WithContext(ctx)) },
		largeRepository: func(r name.Reference) error { return remote.Write(r, m.large, remote.WithContext(ctx)) },
	} {
		ref, err := name.NewTag(address+"/"+repository+":latest", name.Insecure)
		if err == nil {
			err = write(ref)
		}
		if err != nil {
			return fmt.Errorf("push to %s: %w", address, err)
		}
	}
	return nil
}

// source runs a registry with the images in this process; the blobs are in dir.
func (m *images) source(ctx context.Context, dir string) (*httptest.Server, error) {
	server := httptest.NewServer(sourceHandler(dir))
	if err := m.push(ctx, server.Listener.Addr().String()); err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

func sourceHandler(dir string) http.Handler {
	return registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)))
}

// layerFile is an uncompressed layer in a file.
type layerFile struct {
	path   string
	digest v1.Hash
	size   int64
}

func newLayerFile(path string, size int64) (*layerFile, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	hash, out := sha256.New(), bufio.NewWriterSize(f, 1<<20)
	if _, err := io.CopyN(io.MultiWriter(hash, out), rand.NewChaCha8([32]byte{1}), size); err != nil {
		return nil, err
	}
	if err := out.Flush(); err != nil {
		return nil, err
	}
	return &layerFile{path, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}, size}, nil
}

func (l *layerFile) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *layerFile) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *layerFile) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *layerFile) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l *layerFile) Size() (int64, error)                 { return l.size, nil }
func (l *layerFile) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
