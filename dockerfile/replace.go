package dockerfile

import (
	"bytes"
	"slices"

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
// together from variables, or came from a build context.
//
// The error is that of a file that cannot be parsed.
func Replace(file []byte, replacements []Replacement) (out []byte, left []Replacement, err error) {
	ends, err := instructionEnds(file)
	if err != nil {
		return nil, nil, err
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	for _, r := range replacements {
		at := r.Image.Line
		if at < 1 || at > len(lines) || !replaceIn(lines[at-1:min(max(ends[at], at), len(lines))], r) {
			left = append(left, r)
		}
	}
	return slices.Concat(lines...), left, nil
}

// instructionEnds maps the first line of each instruction to its last.
func instructionEnds(file []byte) (map[int]int, error) {
	tree, err := parser.Parse(bytes.NewReader(file))
	if err != nil {
		return nil, fromBuildKit(file, err)
	}
	ends := map[int]int{}
	for _, n := range tree.AST.Children {
		ends[n.StartLine] = n.EndLine
	}
	return ends, nil
}

// replaceIn replaces a reference in the lines of one instruction, and reports
// whether it is there. Comments between its lines do not count. A FROM has one
// image and the word may come again as its stage; a RUN may mount one twice.
func replaceIn(lines [][]byte, r Replacement) bool {
	old := []byte(r.Image.Reference)
	done := false
	for i, line := range lines {
		if r.Image.Kind != KindSyntax && bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			continue
		}
		for from := 0; ; {
			j := bytes.Index(line[from:], old)
			if j < 0 {
				break
			}
			j += from
			end := j + len(old)
			from = end
			if !introduces(line[:j], r.Image.Kind) || end < len(line) && bytes.IndexByte([]byte(" \t\r\n,\"'`\\"), line[end]) < 0 {
				continue
			}
			line = slices.Concat(line[:j], []byte(r.New), line[end:])
			from = j + len(r.New)
			lines[i], done = line, true
			if r.Image.Kind == KindFrom {
				return true
			}
		}
	}
	return done
}

// introduces reports whether what stands before a reference on its line is what
// stands before one of this kind: a space after FROM, or from= and syntax=.
func introduces(before []byte, kind Kind) bool {
	before = bytes.TrimRight(before, "\"'")
	if kind == KindFrom {
		return len(bytes.TrimRight(before, " \t")) < len(before) || len(before) == 0
	}
	word := []byte("from=")
	if kind == KindSyntax {
		word = []byte("syntax=")
		before = bytes.ReplaceAll(before, []byte(" "), nil)
	}
	return bytes.HasSuffix(bytes.ToLower(before), word)
}
