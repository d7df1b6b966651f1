package lockfile

import (
	"bytes"
	"fmt"
	"slices"
)

// Merge joins two locks that have grown apart from base, which is empty if it is
// not known. It keeps every entry that only one of them has, and every entry on
// whose digest both agree, with the files of both; where only one of them has
// moved a digest since base, its entry. The names that both moved apart are left
// out and returned, sorted.
//
// What one side dropped and the other still has is kept, because the next sync
// drops what no file uses; only what was added by hand, which no sync drops, goes
// if one side removed it.
func Merge(base, ours, theirs File) (merged File, disputed []string) {
	was, a, b := base.byName(), ours.byName(), theirs.byName()
	all := map[string]Image{}
	for _, name := range sortedSet(append(ours.names(), theirs.names()...)) {
		mine, inOurs := a[name]
		other, inTheirs := b[name]
		before, inBase := was[name]
		switch {
		case !inOurs || !inTheirs:
			entry := mine
			if !inOurs {
				entry = other
			}
			byHand := len(before.UsedBy)+len(entry.UsedBy) == 0
			if !inBase || !byHand || before.Digest != entry.Digest {
				all[name] = entry
			}
		case mine.Digest == other.Digest:
			all[name] = mine.usedByBoth(other)
		case inBase && other.Digest == before.Digest:
			all[name] = mine.usedByBoth(other)
		case inBase && mine.Digest == before.Digest:
			all[name] = other.usedByBoth(mine)
		default:
			disputed = append(disputed, name)
		}
	}
	return sortedFile(all), disputed
}

// usedByBoth returns the image with the files of another entry as well, and with
// none if one of them was added by hand.
func (image Image) usedByBoth(other Image) Image {
	if len(image.UsedBy) == 0 || len(other.UsedBy) == 0 {
		image.UsedBy = nil
	} else {
		image.UsedBy = sortedSet(slices.Concat(image.UsedBy, other.UsedBy))
	}
	return image
}

func (f File) names() []string {
	names := make([]string, len(f.Images))
	for i, image := range f.Images {
		names[i] = image.Name
	}
	return names
}

// DecodeConflicted reads the text of a lock in which git left merge conflicts:
// the two sides as whole locks, for [Merge]. The base that git shows with diff3
// is passed over. A lock without conflicts gives the same File twice.
//
// git merges by lines and knows nothing of entries: it may take the name and the
// digest from one side, without a word, and leave a conflict in the platforms
// alone. Then the text does not have the sides any more. So every conflict has to
// begin and end between entries; any other is an error that wraps
// [ErrConflictMarkers].
func DecodeConflicted(file string, data []byte) (ours, theirs File, err error) {
	if len(data) > MaxSize {
		return File{}, File{}, fmt.Errorf("%s: larger than %d MiB, this is not a lock", file, MaxSize>>20)
	}
	left, right, line := sides(data)
	if line > 0 {
		return File{}, File{}, marked{fmt.Errorf("%s:%d: %v that cuts an entry in two, so that the sides cannot be told apart: put the lock of one side there, with git checkout BRANCH -- %[1]s, and run mirrorctl sync",
			file, line, ErrConflictMarkers), ErrConflictMarkers}
	}
	if ours, err = Decode(file+" (ours)", left); err != nil {
		return File{}, File{}, err
	}
	if theirs, err = Decode(file+" (theirs)", right); err != nil {
		return File{}, File{}, err
	}
	return ours, theirs, nil
}

// sides takes a conflicted text apart. cut is the line, from 1, of the first
// conflict that does not begin and end between entries; 0 if there is none.
func sides(data []byte) (ours, theirs []byte, cut int) {
	const (
		both = iota
		first
		base
		second
	)
	var (
		side, number, begin int
		left, right         bytes.Buffer
		// Whether the next line that says something has to begin an entry, on
		// each side.
		fresh = map[*bytes.Buffer]bool{}
	)
	write := func(to *bytes.Buffer, line []byte) {
		to.Write(line)
		text := bytes.TrimSpace(line)
		if len(text) == 0 {
			return
		}
		if fresh[to] && !bytes.Equal(text, []byte("[[image]]")) && cut == 0 {
			cut = begin
		}
		fresh[to] = false
	}
	for line := range bytes.Lines(data) {
		number++
		switch {
		case bytes.HasPrefix(line, []byte("<<<<<<< ")):
			side, begin = first, number
			fresh[&left], fresh[&right] = true, true
		case side == first && bytes.HasPrefix(line, []byte("||||||| ")):
			side = base
		case side != both && bytes.HasPrefix(line, []byte("=======")):
			side = second
		case side == second && bytes.HasPrefix(line, []byte(">>>>>>> ")):
			side = both
			fresh[&left], fresh[&right] = true, true
		default:
			if side == both || side == first {
				write(&left, line)
			}
			if side == both || side == second {
				write(&right, line)
			}
		}
	}
	return left.Bytes(), right.Bytes(), cut
}
