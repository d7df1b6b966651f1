// Package stricttoml reads TOML files that people edit: every mistake is
// reported with file, line and column, all of them at once, and a key that the
// reader does not know is a mistake.
//
// It stands on BurntSushi/toml, which parses; this package adds where each key
// is, and reads key by key instead of into a struct, because the parser's own
// decoding stops at the first wrong type and ignores the case of keys. Values
// are never part of a message: a file may hold passwords.
package stricttoml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxErrors is how many mistakes one report lists.
const maxErrors = 50

// Error is one mistake in a file. Line and Column count from 1; a column is a
// byte, as in the go command's messages.
type Error struct {
	File         string
	Line, Column int
	Message      string
}

// Error returns file:line:column: message, the form that editors can follow.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Document is a parsed file and the mistakes found in it so far. It is not safe
// for concurrent use.
type Document struct {
	file     string
	text     string
	root     map[string]any
	index    map[string]int // path -> offset, made when the first mistake is found
	mistakes []mistake
}

// mistake is an Error whose line is not yet counted.
type mistake struct {
	offset  int
	message string
}

// Parse checks the syntax of a file; file is its name in messages. A UTF-8
// byte order mark and CRLF line ends are accepted. The error is an *Error.
func Parse(file string, data []byte) (*Document, error) {
	d := &Document{file: file, text: strings.TrimPrefix(string(data), "\ufeff")}
	for at, r := range d.text {
		if r == utf8.RuneError && !strings.HasPrefix(d.text[at:], string(utf8.RuneError)) {
			return nil, d.errorAt(at, "not valid UTF-8")
		}
	}
	if at, err := scan(d.text, nil); err != nil {
		return nil, d.errorAt(at, err.Error())
	}
	if _, err := toml.Decode(d.text, &d.root); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return nil, d.syntaxError(syntax)
		}
		return nil, &Error{File: file, Line: 1, Column: 1, Message: err.Error()}
	}
	return d, nil
}

// syntaxError turns the parser's error into ours. Its message may quote the
// text it stumbled over, which is left out near anything called a password.
func (d *Document) syntaxError(e toml.ParseError) *Error {
	// Its line and column are off by one at line ends, its offset is right.
	at := min(max(e.Position.Start, 0), len(d.text))
	line := d.text[strings.LastIndexByte(d.text[:at], '\n')+1:]
	line, _, _ = strings.Cut(line, "\n")
	if strings.Contains(e.LastKey+line, "password") {
		return d.errorAt(at, "not valid TOML (a string stands in quotes; the text is not shown here, it may be a password)")
	}
	message, _ := strings.CutSuffix(e.Message, ".")
	return d.errorAt(at, message)
}

// Root returns the table of the whole file.
func (d *Document) Root() *Table {
	return &Table{doc: d, values: d.root, known: map[string]bool{}}
}

// Err returns the mistakes reported so far, joined in the order of the file, or
// nil. Each is an *Error.
func (d *Document) Err() error {
	slices.SortStableFunc(d.mistakes, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.message, b.message))
	})
	var errs []error
	for i, m := range d.mistakes {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more mistakes", d.file, len(d.mistakes)-i))
			break
		}
		errs = append(errs, d.errorAt(m.offset, m.message))
	}
	return errors.Join(errs...)
}

// report notes a mistake at a path, or at the nearest known place around it.
func (d *Document) report(path []string, message string) {
	if d.index == nil {
		d.index = map[string]int{}
		// The text was scanned once already, so there is no error to look at.
		_, _ = scan(d.text, func(path []string, offset int) {
			id := joinPath(path)
			if _, ok := d.index[id]; !ok { // the first place of a key counts
				d.index[id] = offset
			}
		})
	}
	m := mistake{message: message}
	for n := len(path); n > 0; n-- {
		if offset, ok := d.index[joinPath(path[:n])]; ok {
			m.offset = offset
			break
		}
	}
	d.mistakes = append(d.mistakes, m)
}

func (d *Document) errorAt(offset int, message string) *Error {
	before := d.text[:offset]
	return &Error{
		File:    d.file,
		Line:    strings.Count(before, "\n") + 1,
		Column:  offset - strings.LastIndexByte(before, '\n'),
		Message: printable(message),
	}
}

// printable is a message on one line: the parser quotes what it stumbled over as
// it is, and keys may be anything.
func printable(message string) string {
	var b strings.Builder
	for _, r := range message {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
