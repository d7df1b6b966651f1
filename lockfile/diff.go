package lockfile

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Kind is in what way an entry differs.
type Kind string

const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed" // another digest
	// Edited: the same digest, but other files use the image, or what the lock
	// says about it differs.
	Edited Kind = "edited"
)

// Change is how one entry differs between two locks.
type Change struct {
	Name     string
	Kind     Kind
	Old, New Image    // the entries; zero where there is none
	Gained   []string // files that use the image only in New, sorted
	Lost     []string // files that use the image only in Old, sorted
	// Fields names what else differs: "media type", "size", "platforms".
	Fields []string
}

// Difference is the changes between two locks, sorted by name.
type Difference []Change

// Diff compares two locks. Locks that encode to the same bytes have no
// difference. An image in new may lack its digest (a sync that was not allowed
// to resolve it); it is then shown as not locked.
func Diff(old, new File) Difference {
	before, after := old.byName(), new.byName()
	names := slices.Collect(maps.Keys(before))
	names = sortedSet(slices.AppendSeq(names, maps.Keys(after)))
	var diff Difference
	for _, name := range names {
		a, wasThere := before[name]
		b, isThere := after[name]
		c := Change{Name: name, Old: a, New: b, Gained: missingIn(b.UsedBy, a.UsedBy), Lost: missingIn(a.UsedBy, b.UsedBy)}
		switch {
		case !wasThere:
			c.Kind = Added
		case !isThere:
			c.Kind = Removed
		default:
			c.Fields = differingFields(a, b)
			switch {
			case a.Digest != b.Digest:
				c.Kind = Changed
			case len(c.Gained)+len(c.Lost)+len(c.Fields) > 0:
				c.Kind = Edited
			default:
				continue
			}
		}
		diff = append(diff, c)
	}
	return diff
}

func differingFields(a, b Image) []string {
	var fields []string
	if a.MediaType != b.MediaType {
		fields = append(fields, "media type")
	}
	if a.Size != b.Size {
		fields = append(fields, "size")
	}
	if !maps.Equal(a.Platforms, b.Platforms) {
		fields = append(fields, "platforms")
	}
	return fields
}

// missingIn returns the strings of list that other lacks.
func missingIn(list, other []string) []string {
	return slices.DeleteFunc(sortedSet(list), func(s string) bool { return slices.Contains(other, s) })
}

// String returns the change as one line, with digests cut short for reading.
func (c Change) String() string {
	s := fmt.Sprintf("%-7s  %s", c.Kind, c.Name)
	switch c.Kind {
	case Added:
		return s + "  " + shortDigest(c.New.Digest) + inFiles(c.New.UsedBy)
	case Removed:
		return s + "  " + shortDigest(c.Old.Digest) + inFiles(c.Old.UsedBy)
	case Changed:
		s += "  " + shortDigest(c.Old.Digest) + " -> " + shortDigest(c.New.Digest) + inFiles(c.New.UsedBy)
	case Edited:
		if len(c.Fields) > 0 {
			s += "  other " + strings.Join(c.Fields, ", ")
		}
	}
	if len(c.Gained) > 0 {
		s += "  now used by " + strings.Join(c.Gained, ", ")
	}
	if len(c.Lost) > 0 {
		s += "  no longer used by " + strings.Join(c.Lost, ", ")
	}
	return s
}

// String returns one line per change, each ended by a line feed; it is empty for
// no difference.
func (d Difference) String() string {
	var b strings.Builder
	for _, c := range d {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

// Write writes what String returns.
func (d Difference) Write(w io.Writer) error {
	_, err := io.WriteString(w, d.String())
	return err
}

// shortDigest is the algorithm and twelve digits, enough for people.
func shortDigest(d digest.Digest) string {
	if d == "" {
		return "(not locked)"
	}
	algorithm, hex, found := strings.Cut(d.String(), ":")
	if !found || len(hex) <= 12 {
		return d.String()
	}
	return algorithm + ":" + hex[:12]
}

func inFiles(files []string) string {
	if len(files) == 0 {
		return ""
	}
	return "  (" + strings.Join(files, ", ") + ")"
}
