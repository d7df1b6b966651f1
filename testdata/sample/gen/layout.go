package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is an OCI image layout in memory. Nothing here can fail but writing.
type layout struct {
	blobs map[digest.Digest][]byte
	root  v1.Index
}

func newLayout() *layout {
	return &layout{
		blobs: map[digest.Digest][]byte{},
		root:  v1.Index{Versioned: schema2, MediaType: v1.MediaTypeImageIndex},
	}
}

func (l *layout) blob(mediaType string, data []byte, algorithm digest.Algorithm) v1.Descriptor {
	d := algorithm.FromBytes(data)
	l.blobs[d] = data
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l *layout) json(mediaType string, v any) v1.Descriptor {
	return l.blob(mediaType, marshal(v), digest.SHA256)
}

// tag gives a manifest a name.
func (l *layout) tag(name string, desc v1.Descriptor) {
	desc.Platform = nil
	desc.Annotations = map[string]string{v1.AnnotationRefName: name}
	l.root.Manifests = append(l.root.Manifests, desc)
}

// write replaces the layout in a folder.
func (l *layout) write(folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	files := map[string][]byte{
		v1.ImageLayoutFile: marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion}),
		v1.ImageIndexFile:  marshal(l.root),
	}
	for d, data := range l.blobs {
		files[filepath.Join(v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())] = data
	}
	for name, data := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a mistake in this program, nothing else
	}
	return data
}

type file struct{ name, content string }

// packed is a layer as it is stored, and the tar in it.
type packed struct{ bytes, tar []byte }

func tarball(files ...file) packed {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		must(w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.content)), Format: tar.FormatUSTAR}))
		_, err := w.Write([]byte(f.content))
		must(err)
	}
	must(w.Close())
	return packed{b.Bytes(), b.Bytes()}
}

// gzipped stores instead of compressing: what a compressor makes of its input
// may change with its version.
func gzipped(p packed) packed {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	must(err)
	_, err = w.Write(p.tar)
	must(err)
	must(w.Close())
	return packed{b.Bytes(), p.tar}
}

// zstd is a frame of one raw block (RFC 8878, section 3.1.1), for the same reason.
func zstd(p packed) packed {
	n := uint32(len(p.tar)) // a few kB: the format allows up to 128 kB in a block
	b := []byte{0x28, 0xb5, 0x2f, 0xfd}
	b = append(b, 0b10_1_00000) // the size of the content follows, in four bytes
	b = binary.LittleEndian.AppendUint32(b, n)
	b = append(b, byte(n<<3|1), byte(n>>5), byte(n>>13)) // the last block, raw
	return packed{append(b, p.tar...), p.tar}
}

// must stops at what cannot happen when writing into memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
