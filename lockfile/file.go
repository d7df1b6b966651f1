package lockfile

import (
	"cmp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Version is the format that this package writes, and the only one it reads.
const Version = 1

// DefaultName is the name of the file.
const DefaultName = "mirror.lock"

// File is the content of mirror.lock. [Decode], [Reconcile], [File.With] and
// [File.Without] return it sorted by name; [Encode] takes it in any order. The
// functions of this package never change a File that they are given.
type File struct {
	Images []Image
}

// Image is one locked image.
type Image struct {
	// Name is the fully qualified name, docker.io/library/debian:bookworm, with
	// @sha256:... when the file that needs the image pinned it.
	Name string
	// Digest is what Name named: the index where there is one.
	Digest digest.Digest
	// MediaType is that of the manifest or index with this digest.
	MediaType string
	// Size is in bytes over all platforms, each blob counted once.
	Size int64
	// UsedBy holds the files that need the image, as sorted, clean,
	// /-separated paths relative to the lock. It is empty for an image that was
	// added by hand.
	UsedBy []string
	// Platforms maps platform keys (see [PlatformKeys]) to manifest digests. It
	// may be empty: a plain manifest whose platform is not known has none.
	Platforms map[string]digest.Digest
}

// Image returns the entry of a name.
func (f File) Image(name string) (Image, bool) {
	for _, image := range f.Images {
		if image.Name == name {
			return image, true
		}
	}
	return Image{}, false
}

// With returns the lock with images added by hand: each replaces the entry of
// its name and has no UsedBy, so that no sync drops it.
func (f File) With(images ...Image) File {
	byName := f.byName()
	for _, image := range images {
		image.UsedBy = nil
		byName[image.Name] = image
	}
	return sortedFile(byName)
}

// Without returns the lock without the entries of these names.
func (f File) Without(names ...string) File {
	byName := f.byName()
	for _, name := range names {
		delete(byName, name)
	}
	return sortedFile(byName)
}

// PutRight returns the lock with what is known of digests: of an entry with the
// name and the digest of one of the images it takes media type, size and
// platforms from that.
func (f File) PutRight(known ...Image) File {
	byName := f.byName()
	for _, image := range known {
		if entry, ok := byName[image.Name]; ok && entry.Digest == image.Digest {
			image.UsedBy = entry.UsedBy
			byName[image.Name] = image
		}
	}
	return sortedFile(byName)
}

// Files returns every file that the lock names in a UsedBy, sorted, each once.
func (f File) Files() []string {
	var files []string
	for _, image := range f.Images {
		files = append(files, image.UsedBy...)
	}
	return sortedSet(files)
}

// Deleted returns the files that the lock names, that lie in one of the searched
// folders (paths relative to the lock, "." is the lock's own folder) and for
// which exists says false. It is what [Sync] wants to know as Deleted; asking
// for existence, rather than for what the search gave, keeps the entries of
// files that a search passes over and of files that could not be parsed.
func (f File) Deleted(folders []string, exists func(path string) bool) []string {
	var deleted []string
	for _, file := range f.Files() {
		inside := func(folder string) bool { return within(folder, file) }
		if slices.ContainsFunc(folders, inside) && !exists(file) {
			deleted = append(deleted, file)
		}
	}
	return deleted
}

func (f File) byName() map[string]Image {
	byName := make(map[string]Image, len(f.Images))
	for _, image := range f.Images {
		byName[image.Name] = image
	}
	return byName
}

func sortedFile(byName map[string]Image) File {
	f := File{Images: make([]Image, 0, len(byName))}
	for _, image := range byName {
		f.Images = append(f.Images, image)
	}
	sortImages(f.Images)
	return f
}

func sortImages(images []Image) {
	slices.SortFunc(images, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
}

// sortedSet returns a sorted copy with each string once; nil for none.
func sortedSet(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// within tells whether a path lies in a folder; both are relative to the lock,
// in the shortest form, as filepath.Rel gives it.
func within(folder, file string) bool {
	up, rest := climb(folder)
	fileUp, _ := climb(file)
	if rest == "" { // the lock's own folder or one above it
		return fileUp <= up
	}
	return strings.HasPrefix(file, folder+"/")
}

// climb splits the leading ../ off a path and counts them; rest is empty for a
// path that only climbs.
func climb(p string) (up int, rest string) {
	for rest = p; strings.HasPrefix(rest, "../"); up++ {
		rest = rest[len("../"):]
	}
	switch rest {
	case "..":
		return up + 1, ""
	case ".":
		return up, ""
	}
	return up, rest
}
