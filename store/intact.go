package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Lost returns the digests and sizes, sorted, of what a published digest reaches
// whose file is missing or has another size: removed by hand, or not in the
// backup that was restored. It looks at the folder and reads no file, which
// takes some microseconds for each; Verify finds what else may be wrong.
func (s *Store) Lost(ctx context.Context, d digest.Digest) ([]v1.Descriptor, error) {
	reach, err := reachable(ctx, s.reader, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d, err)
	}
	var lost []v1.Descriptor
	for d, size := range reach {
		whole, err := s.Whole(v1.Descriptor{Digest: d, Size: size})
		if err != nil {
			return nil, err
		}
		if !whole {
			lost = append(lost, v1.Descriptor{Digest: d, Size: size})
		}
	}
	slices.SortFunc(lost, func(a, b v1.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return lost, nil
}

// Whole reports whether there is a file for a digest, with the size that desc
// has.
func (s *Store) Whole(desc v1.Descriptor) (bool, error) {
	info, err := os.Stat(s.blobPath(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return info.Mode().IsRegular() && info.Size() == desc.Size, nil
}
