package lockfile

import (
	"bytes"
	"fmt"
)

// Merge joins two locks that have grown apart. It keeps every entry that only
// one of them has, and every entry on whose digest both agree, with the files of
// both. The names on which they do not agree are left out and returned, sorted.
func Merge(ours, theirs File) (merged File, disputed []string) {
	a, b := ours.byName(), theirs.byName()
	for name, entry := range b {
		mine, both := a[name]
		switch {
		case !both:
			a[name] = entry
		case mine.Digest != entry.Digest:
			delete(a, name)
			disputed = append(disputed, name)
		case len(mine.UsedBy) > 0 && len(entry.UsedBy) > 0:
			mine.UsedBy = sortedSet(append(mine.UsedBy[:len(mine.UsedBy):len(mine.UsedBy)], entry.UsedBy...))
			a[name] = mine
		default: // one side added it by hand
			mine.UsedBy = nil
			a[name] = mine
		}
	}
	return sortedFile(a), sortedSet(disputed)
}

// DecodeConflicted reads a lock in which git left merge conflicts: the two sides
// as whole locks, for [Merge]. The base that git shows with diff3 is passed
// over. A lock without conflicts gives the same File twice.
func DecodeConflicted(file string, data []byte) (ours, theirs File, err error) {
	if len(data) > MaxSize {
		return File{}, File{}, fmt.Errorf("%s: larger than %d MiB, this is not a lock", file, MaxSize>>20)
	}
	const (
		both = iota
		first
		base
		second
	)
	var left, right bytes.Buffer
	side := both
	for line := range bytes.Lines(data) {
		switch {
		case bytes.HasPrefix(line, []byte("<<<<<<< ")):
			side = first
		case side == first && bytes.HasPrefix(line, []byte("||||||| ")):
			side = base
		case side != both && bytes.HasPrefix(line, []byte("=======")):
			side = second
		case side == second && bytes.HasPrefix(line, []byte(">>>>>>> ")):
			side = both
		default:
			if side == both || side == first {
				left.Write(line)
			}
			if side == both || side == second {
				right.Write(line)
			}
		}
	}
	if ours, err = Decode(file+" (ours)", left.Bytes()); err != nil {
		return File{}, File{}, err
	}
	if theirs, err = Decode(file+" (theirs)", right.Bytes()); err != nil {
		return File{}, File{}, err
	}
	return ours, theirs, nil
}
