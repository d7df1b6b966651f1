package dockerfile

import (
	"bytes"
	"unicode"
)

// The bounds below are far from what people write. They exist because a mirror
// may be pointed at files that nobody has read, and because BuildKit's lexer
// and parser call themselves: once for each ${ inside a ${, and once for each
// ONBUILD that follows an ONBUILD. A line continuation makes lines of any
// length, so a few megabytes of either would end the process with a stack
// overflow, which cannot be recovered from. Short of that, each level copies
// what the inner ones returned, which takes quadratic time.
const (
	// maxFile is the size up to which BuildKit reads a Dockerfile.
	maxFile = 16 << 20

	// maxLine is the longest line, without its newline, that BuildKit's parser
	// accepts. It is checked here because the parser blames the line before.
	maxLine = 64<<10 - 1

	// maxLines bounds memory: an instruction of a few bytes takes more than a
	// kilobyte once parsed.
	maxLines = 1 << 20

	// maxStored bounds the ONBUILD instructions of images that are run, once for
	// each stage on such an image.
	maxStored = 1 << 16

	// maxWork bounds the copying: the length of an instruction times the
	// number of things in it that may nest, summed over the file. Half a
	// billion are a second or two.
	maxWork = 1 << 29
)

var byteOrderMark = []byte("\xef\xbb\xbf")

// checkLimits refuses files that would cost BuildKit's parser too much. It
// joins lines as the parser does, or more of them: a line that ends in either
// escape character goes on, and the contents of a heredoc count as code.
func checkLimits(file []byte) error {
	var (
		code     []byte // the instruction so far
		start    int    // its first line
		comments int    // lines of comment before and in it
		goesOn   bool
		work     int
	)
	rest := bytes.TrimPrefix(file, byteOrderMark)
	for line := 1; len(rest) > 0; line++ {
		if line > maxLines {
			return errorfAt(file, 0, "the file has more than %d lines", maxLines)
		}
		var text []byte
		text, rest, _ = bytes.Cut(rest, []byte("\n"))
		if len(text) > maxLine {
			return errorfAt(file, line, "a line may not be longer than %d bytes", maxLine)
		}
		text = bytes.TrimRight(text, "\r")
		if trimmed := bytes.TrimLeftFunc(text, unicode.IsSpace); len(trimmed) == 0 || trimmed[0] == '#' {
			comments++
			if len(rest) > 0 {
				continue
			}
		} else {
			if !goesOn {
				start = line
				code = code[:0]
			}
			text, goesOn = cutContinuation(text)
			code = append(code, text...)
			if goesOn && len(rest) > 0 {
				continue
			}
		}
		work += nesting(code, comments)
		if work > maxWork {
			return errorfAt(file, start, "too many nested ${ or ONBUILD in one instruction")
		}
		comments = 0
	}
	return nil
}

// cutContinuation returns text without a trailing escape character, and
// whether it had one.
func cutContinuation(text []byte) ([]byte, bool) {
	trimmed := bytes.TrimRight(text, " \t")
	if n := len(trimmed); n > 0 && (trimmed[n-1] == '\\' || trimmed[n-1] == '`') {
		return trimmed[:n-1], true
	}
	return text, false
}

// nesting returns what one instruction costs at most.
func nesting(code []byte, comments int) int {
	// Each argument of an ARG is looked up in each of the comments above it.
	n := bytes.Count(code, []byte("${")) + comments
	work := 0
	if lower := bytes.ToLower(code); bytes.Contains(lower, []byte("onbuild")) {
		n += bytes.Count(lower, []byte("onbuild"))
		// The parser compiles a regular expression for each ONBUILD.
		work = 1000
	}
	return work + n*len(code)
}
