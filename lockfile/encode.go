package lockfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const header = "# Written by mirrorctl. Commit this file; change it with mirrorctl sync, add and rm.\n"

// Encode returns the text of a lock: always the same bytes for the same images,
// whatever their order. It is an error, and nothing is encoded, if [Decode]
// would not read the text again.
func Encode(f File) ([]byte, error) {
	if err := f.checkAll(); err != nil {
		return nil, fmt.Errorf("encode lock: %w", err)
	}
	images := slices.Clone(f.Images)
	sortImages(images)

	// The TOML library's encoder is not used: its layout may change with its
	// version, and these bytes may not.
	var b strings.Builder
	fmt.Fprintf(&b, "%sversion = %d\n", header, Version)
	for _, image := range images {
		fmt.Fprintf(&b, "\n[[image]]\nname = %s\ndigest = %s\nmedia_type = %s\nsize = %d\n",
			quote(image.Name), quote(image.Digest.String()), quote(image.MediaType), image.Size)
		if files := sortedSet(image.UsedBy); len(files) > 0 {
			for i, file := range files {
				files[i] = quote(file)
			}
			fmt.Fprintf(&b, "used_by = [%s]\n", strings.Join(files, ", "))
		}
		if len(image.Platforms) > 0 {
			b.WriteString("\n[image.platforms]\n")
			for _, key := range slices.Sorted(maps.Keys(image.Platforms)) {
				fmt.Fprintf(&b, "%s = %s\n", quote(key), quote(image.Platforms[key].String()))
			}
		}
	}
	return []byte(b.String()), nil
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
