package store

import "github.com/distribution/reference"

// Locate splits a fully qualified name into the repository and the reference
// that the store pins: the digest where the name has one, because then the tag
// beside it means nothing, or else the tag.
func Locate(name reference.Named) (Repository, string) {
	repo := Repository{Registry: reference.Domain(name), Path: reference.Path(name)}
	switch n := name.(type) {
	case reference.Digested:
		return repo, n.Digest().String()
	case reference.Tagged:
		return repo, n.Tag()
	}
	return repo, "latest"
}
