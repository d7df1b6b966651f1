package dockerfile

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// A Replacement is a new text for the reference of an image in a file.
type Replacement struct {
	Image Image // as Find returned it for this file
	New   string
}

// Replace writes new references into a file and changes no other byte of it:
// comments, spacing and line ends stay. It returns the replacements that could
// not be made because the file does not have the reference as it is: it is put
// together from variables or over several lines, or came from a build context.
//
// The error is that of a file that cannot be parsed.
func Replace(file []byte, replacements []Replacement) (out []byte, left []Replacement, err error) {
	tree, err := parser.Parse(bytes.NewReader(file))
	if err != nil {
		return nil, nil, fromBuildKit(file, err)
	}
	nodes := map[int]*parser.Node{}
	for _, n := range tree.AST.Children {
		nodes[n.StartLine] = n
	}
	starts := lineStarts(file)
	edits := map[span]string{}
	for _, r := range replacements {
		var found []span
		switch at := r.Image.Line; {
		case at < 1 || at > len(starts):
		case r.Image.Kind == KindSyntax:
			found = syntaxReference(file, starts[at-1], r.Image.Reference)
		case nodes[at] != nil:
			in := joinLines(file, starts[at-1], byte(tree.EscapeToken))
			// If these are not the same, what is where is not known.
			if string(in.text) == nodes[at].Original {
				found = in.references(r.Image)
			}
		}
		if len(found) == 0 {
			left = append(left, r)
		}
		for _, s := range found {
			edits[s] = r.New
		}
	}
	at := 0
	for _, s := range slices.SortedFunc(maps.Keys(edits), func(a, b span) int { return a.start - b.start }) {
		out = append(append(out, file[at:s.start]...), edits[s]...)
		at = s.end
	}
	return append(out, file[at:]...), left, nil
}

// A span is a part of a text, by its offsets in bytes.
type span struct{ start, end int }

// lineStarts returns where each line begins.
func lineStarts(file []byte) []int {
	starts := []int{0}
	for i, c := range file {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// syntaxReference finds a reference in the syntax directive that begins at start.
func syntaxReference(file []byte, start int, ref string) []span {
	line, _, _ := bytes.Cut(file[start:], []byte("\n"))
	_, after, ok := bytes.Cut(line, []byte("="))
	if !ok {
		return nil
	}
	word := bytes.TrimLeft(after, " \t")
	at := start + len(line) - len(word)
	if end := bytes.IndexFunc(word, unicode.IsSpace); end >= 0 {
		word = word[:end]
	}
	if string(word) != ref {
		return nil
	}
	return []span{{at, at + len(ref)}}
}

// An instruction is the text of one, with its lines joined, and for each byte
// of it the offset in the file.
type instruction struct {
	text   []byte
	at     []int
	escape byte
}

// joinLines joins the lines of the instruction that begins at an offset as
// BuildKit's parser does: without comments and empty lines between them.
func joinLines(file []byte, offset int, escape byte) instruction {
	in := instruction{escape: escape}
	for first := true; offset < len(file); first = false {
		line, _, _ := bytes.Cut(file[offset:], []byte("\n"))
		start := offset
		offset += len(line) + 1
		line = bytes.TrimRight(line, "\r\n")
		trimmed := bytes.TrimLeftFunc(bytes.TrimPrefix(line, byteOrderMark), unicode.IsSpace)
		if first {
			start += len(line) - len(trimmed)
			line = trimmed
		} else if len(trimmed) == 0 || trimmed[0] == '#' {
			continue
		}
		goesOn := false
		if cut := bytes.TrimRight(line, " \t"); len(cut) > 0 && cut[len(cut)-1] == escape {
			if cut = cut[:len(cut)-1]; len(cut) == 0 || cut[len(cut)-1] != escape {
				line, goesOn = cut, true
			}
		}
		for i, c := range line {
			in.text, in.at = append(in.text, c), append(in.at, start+i)
		}
		if !goesOn {
			break
		}
	}
	return in
}

// references returns where in the file an instruction has the reference of an
// image, as it is: the word after FROM, or the values of flags, as only those
// are one. A RUN may mount one image twice.
func (in instruction) references(image Image) []span {
	name, rest := in.word(0)
	if in.is(name, "onbuild") {
		name, rest = in.word(rest)
	}
	var flags []span
	first, next := in.word(rest)
	for bytes.HasPrefix(in.text[first.start:first.end], []byte("--")) && first.end-first.start > 2 {
		flags = append(flags, first)
		first, next = in.word(next)
	}
	var found []span
	switch {
	case image.Kind == KindFrom && in.is(name, "from"):
		found = in.value(first, image.Reference)
	case image.Kind == KindCopy && in.is(name, "copy"):
		for _, f := range flags {
			if rest, ok := in.cutPrefix(f, "--from="); ok {
				found = append(found, in.value(rest, image.Reference)...)
			}
		}
	case image.Kind == KindMount && in.is(name, "run"):
		for _, f := range flags {
			if rest, ok := in.cutPrefix(f, "--mount="); ok {
				found = append(found, in.mounted(rest, image.Reference)...)
			}
		}
	}
	var places []span
	for _, s := range found {
		start, last := in.at[s.start], in.at[s.end-1]
		if last-start != s.end-1-s.start {
			return nil // it goes over the end of a line
		}
		places = append(places, span{start, last + 1})
	}
	return places
}

// word returns the next word and where it ends. As in the flags of a builder,
// quotes hold one together.
func (in instruction) word(from int) (span, int) {
	for from < len(in.text) && unicode.IsSpace(rune(in.text[from])) {
		from++
	}
	quote := byte(0)
	for i := from; i < len(in.text); i++ {
		switch c := in.text[i]; {
		case c == in.escape:
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case unicode.IsSpace(rune(c)):
			return span{from, i}, i
		}
	}
	return span{from, len(in.text)}, len(in.text)
}

func (in instruction) is(s span, name string) bool {
	return strings.EqualFold(string(in.text[s.start:s.end]), name)
}

func (in instruction) cutPrefix(s span, prefix string) (span, bool) {
	ok := bytes.HasPrefix(in.text[s.start:s.end], []byte(prefix))
	if ok {
		s.start += len(prefix)
	}
	return s, ok
}

// value returns where a word has the reference: it is the word, but for quotes.
func (in instruction) value(s span, ref string) []span {
	for s.start < s.end && strings.IndexByte(`"'`, in.text[s.start]) >= 0 {
		s.start++
	}
	for s.start < s.end && strings.IndexByte(`"'`, in.text[s.end-1]) >= 0 {
		s.end--
	}
	if ref == "" || string(in.text[s.start:s.end]) != ref {
		return nil
	}
	return []span{s}
}

// mounted returns where the value of a mount has the reference: after from=.
func (in instruction) mounted(s span, ref string) []span {
	var found []span
	for s.start < s.end {
		field := s
		if comma := bytes.IndexByte(in.text[s.start:s.end], ','); comma >= 0 {
			field.end = s.start + comma
		}
		s.start = field.end + 1
		key, _, _ := bytes.Cut(in.text[field.start:field.end], []byte("="))
		if strings.EqualFold(strings.Trim(string(key), `"'`), "from") {
			field.start = min(field.start+len(key)+1, field.end)
			found = append(found, in.value(field, ref)...)
		}
	}
	return found
}
