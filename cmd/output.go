package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// table prints aligned columns; without rows it prints nothing.
type table struct {
	w      *tabwriter.Writer
	out    *bufio.Writer // tabwriter writes each cell for itself
	header []string
	err    error
}

func newTable(w io.Writer, header ...string) *table {
	out := bufio.NewWriter(w)
	return &table{w: tabwriter.NewWriter(out, 0, 0, 3, ' ', 0), out: out, header: header}
}

func (t *table) row(cells ...string) {
	if t.header != nil {
		header := t.header
		t.header = nil
		t.row(header...)
	}
	if t.err == nil {
		shown := make([]string, len(cells))
		for i, cell := range cells {
			shown[i] = printable(cell)
		}
		_, t.err = fmt.Fprintln(t.w, strings.TrimRight(strings.Join(shown, "\t"), "\t"))
	}
}

func (t *table) flush() error {
	if t.err != nil {
		return t.err
	}
	return errors.Join(t.w.Flush(), t.out.Flush())
}

// printable makes text fit for a line that people read. What comes from registries
// and files may have characters that a terminal acts on, or that forge a line: each
// becomes a replacement character. JSON has escapes for them and needs none of this.
func printable(s string) string { return replaceUnprintable(s, "") }

// printableLines is printable for a message, which may have lines and tabs.
func printableLines(s string) string {
	return replaceUnprintable(strings.ReplaceAll(s, "\r\n", "\n"), "\n\t")
}

func replaceUnprintable(s, keep string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// size formats bytes for people, in powers of 1000 as registries do.
func size(n int64) string {
	s := units.HumanSizeWithPrecision(float64(n), 4)
	i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	return s[:i] + " " + s[i:]
}

// short is a digest for people, as docker shows it.
func short(d digest.Digest) string {
	algorithm, hex, _ := strings.Cut(d.String(), ":")
	if len(hex) < 12 {
		return d.String()
	}
	return algorithm + ":" + hex[:12]
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// platformNames lists platforms for people, each once.
func platformNames(platforms []v1.Descriptor) []string {
	names := []string{} // [] in JSON, not null
	seen := map[string]bool{}
	for _, d := range platforms {
		if name := store.FormatPlatform(d.Platform); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}
