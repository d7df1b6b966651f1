package lockfile

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"mirrorctl/lockfile/stricttoml"
)

// MaxSize is the largest lock, in bytes, that is read.
const MaxSize = 64 << 20

var (
	// ErrNewer is wrapped by the error for a lock of a later format.
	ErrNewer = errors.New("written by a newer mirrorctl")
	// ErrConflictMarkers is wrapped by the error for a lock in which git left a
	// merge conflict.
	ErrConflictMarkers = errors.New("git left a merge conflict here")
)

// Decode reads the text of a lock; file is its name in messages. Every mistake
// is reported, joined, as file:line:column: message; the File is empty then.
func Decode(file string, data []byte) (File, error) {
	if len(data) > MaxSize {
		return File{}, fmt.Errorf("%s: larger than %d MiB, this is not a lock", file, MaxSize>>20)
	}
	if line := conflictMarker(data); line > 0 {
		return File{}, marked{fmt.Errorf("%s:%d: %v: run mirrorctl sync, which joins both sides", file, line, ErrConflictMarkers), ErrConflictMarkers}
	}
	doc, err := stricttoml.Parse(file, data)
	if err != nil {
		return File{}, err
	}
	root := doc.Root()
	root.Require("version")
	if version, ok := root.Int("version"); ok && version > Version {
		// Nothing else is judged: a later format may have other keys.
		root.Errorf(stricttoml.Key{"version"}, "%v (version %d); this one reads version %d: upgrade mirrorctl",
			ErrNewer, version, Version)
		return File{}, marked{doc.Err(), ErrNewer}
	} else if ok && version < Version {
		root.Errorf(stricttoml.Key{"version"}, "unknown version %d", version)
	}
	f := decodeImages(root)
	root.Done()
	if err := doc.Err(); err != nil {
		return File{}, err
	}
	return f, nil
}

func decodeImages(root *stricttoml.Table) File {
	var f File
	seen := map[string]bool{}
	for _, t := range root.Tables("image") {
		image := decodeImage(t)
		if seen[image.Name] && image.Name != "" {
			t.Errorf(stricttoml.Key{"name"}, "image %s is there twice, as a merge may leave it: remove one entry and run mirrorctl sync", image.Name)
		}
		seen[image.Name] = true
		f.Images = append(f.Images, image)
	}
	sortImages(f.Images)
	return f
}

func decodeImage(t *stricttoml.Table) Image {
	t.Require("name", "digest", "media_type", "size")
	reported := map[string]bool{} // keys that are absent or of a wrong type
	text := func(key string) string {
		s, ok := t.String(key)
		reported[key] = !ok
		return s
	}
	image := Image{
		Name:      text("name"),
		Digest:    digest.Digest(text("digest")),
		MediaType: text("media_type"),
	}
	image.Size, _ = t.Int("size")
	if files, ok := t.Strings("used_by"); ok {
		image.UsedBy = files
	}
	platforms := t.Table("platforms")
	for _, key := range platforms.Keys() {
		if d, ok := platforms.String(key); ok {
			if image.Platforms == nil {
				image.Platforms = map[string]digest.Digest{}
			}
			image.Platforms[key] = digest.Digest(d)
		}
	}
	t.Done()
	image.check(func(at stricttoml.Key, err error) {
		if !reported[at[0]] {
			t.Errorf(at, "%v", err)
		}
	})
	image.UsedBy = sortedSet(image.UsedBy)
	return image
}

// conflictMarker returns the first line, from 1, that git wrote to mark a
// conflict; 0 if there is none. In TOML such a line can only stand inside a
// string of several lines, which no lock has.
func conflictMarker(data []byte) int {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		for _, marker := range []string{"<<<<<<< ", "||||||| ", ">>>>>>> "} {
			if bytes.HasPrefix(text, []byte(marker)) {
				return line
			}
		}
	}
	return 0
}

// marked is an error with the text of one and the identity of both.
type marked struct{ err, is error }

func (m marked) Error() string   { return m.err.Error() }
func (m marked) Unwrap() []error { return []error{m.err, m.is} }
