package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Error says what is wrong with a file, and where.
type Error struct {
	// Line is where the instruction at fault begins, from 1. It is 0 if the
	// file as a whole or the options are meant.
	Line int

	// Source is the text of that line, without the newline; a long one is cut.
	// It is there to be shown below the message.
	Source string

	// Platform is set if the file is at fault for this platform only.
	Platform *v1.Platform

	// Err is what is wrong, without the line: "unknown instruction: FORM (did
	// you mean FROM?)".
	Err error
}

// Error returns the line and what is wrong with it, in one line of text.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %v", e.Line, e.Err)
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Messages quote the file, and a file may have lines of any length.
const (
	maxMessage = 1000
	maxSource  = 200
)

// errorAt returns err as an Error for a line of file, or for all of it if line
// is 0.
func errorAt(file []byte, line int, err error) *Error {
	if msg := err.Error(); len(msg) > maxMessage {
		err = errors.New(cut(msg, maxMessage))
	}
	return &Error{Line: line, Source: sourceLine(file, line), Err: err}
}

func errorfAt(file []byte, line int, format string, args ...any) *Error {
	return errorAt(file, line, fmt.Errorf(format, args...))
}

// fromBuildKit converts an error of BuildKit's parser. The place it names is
// taken out of it, so that a caller can print the two apart.
func fromBuildKit(file []byte, err error) *Error {
	var located *parser.LocationError
	if !errors.As(err, &located) {
		return errorAt(file, 0, err)
	}
	line := 0
	if len(located.Locations) > 0 && len(located.Locations[0]) > 0 {
		line = located.Locations[0][0].Start.Line
	}
	// The parser counts a line only after it has looked for a directive in it,
	// so that these two errors name the line before.
	msg := located.Error()
	if msg == "file with no instructions" {
		return errorAt(file, 0, errors.New("the file has no instructions"))
	}
	if strings.HasSuffix(msg, " parser directive can be used") || strings.HasPrefix(msg, "invalid escape token ") {
		line++
	}
	return errorAt(file, line, errors.Unwrap(located))
}

// sourceLine returns a line of file for showing it to a person.
func sourceLine(file []byte, line int) string {
	if line == 0 {
		return ""
	}
	file = bytes.TrimPrefix(file, byteOrderMark)
	for i := 1; i < line; i++ {
		_, rest, ok := bytes.Cut(file, []byte("\n"))
		if !ok {
			return ""
		}
		file = rest
	}
	text, _, _ := bytes.Cut(file, []byte("\n"))
	return cut(strings.TrimRight(string(text), "\r"), maxSource)
}

// brief shortens a word of the file for a message.
func brief(s string) string { return cut(s, 150) }

// cut shortens s to about n bytes, and not within a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
