package stricttoml

import (
	"errors"
	"strconv"
	"strings"
)

// maxDepth bounds how deeply arrays, inline tables and dotted keys may nest.
// The TOML parser recurses per level, and a Go stack that overflows cannot be
// recovered from; no file of ours needs more than five levels.
const maxDepth = 32

var (
	errTooDeep = errors.New("nested too deeply")
	// errStop ends a scan at text that is not TOML; telling so is the parser's job.
	errStop = errors.New("not toml")
)

// scanner walks TOML text and tells where each key and each array element
// stands. It does not judge the text: it stops, without an error, where it
// cannot go on. On text that the TOML parser accepts it reaches the end.
type scanner struct {
	text string
	at   int // offset of the next byte
	// visit, if set, gets every key in file order. An element of an array is a
	// key too: its decimal number. The path is only valid during the call.
	visit  func(path []string, offset int)
	table  []string       // path of the table that the last header opened
	arrays map[string]int // how many [[tables]] each path has so far
}

// scan returns errTooDeep with the offset where it happened, or nil.
func scan(text string, visit func(path []string, offset int)) (int, error) {
	s := &scanner{text: text, visit: visit, arrays: map[string]int{}}
	err := s.document()
	if errors.Is(err, errStop) {
		err = nil
	}
	return s.at, err
}

func (s *scanner) document() error {
	for {
		s.skipBlank()
		if s.at == len(s.text) {
			return nil
		}
		var err error
		if s.text[s.at] == '[' {
			err = s.header()
		} else {
			err = s.keyValue(s.table, 0)
		}
		if err != nil {
			return err
		}
	}
}

// header reads [a.b] or [[a.b]] and makes it the current table.
func (s *scanner) header() error {
	array := s.accept("[[")
	if !array {
		s.accept("[")
	}
	parts, err := s.key()
	if err != nil {
		return err
	}
	end := "]"
	if array {
		end = "]]"
	}
	if !s.accept(end) {
		return errStop
	}
	var path []string
	for i, part := range parts {
		path = s.enter(path, part.name, part.offset)
		id := joinPath(path)
		count, repeated := s.arrays[id]
		switch {
		case array && i == len(parts)-1:
			s.arrays[id] = count + 1
			path = s.enter(path, strconv.Itoa(count), part.offset)
		case repeated: // [a.b] belongs to the last [[a]]
			path = append(path, strconv.Itoa(count-1))
		}
	}
	s.table = path
	return nil
}

// keyValue reads a.b = value inside the table at path.
func (s *scanner) keyValue(path []string, depth int) error {
	parts, err := s.key()
	if err != nil {
		return err
	}
	if !s.accept("=") {
		return errStop
	}
	for _, part := range parts {
		path = s.enter(path, part.name, part.offset)
	}
	return s.value(path, depth)
}

func (s *scanner) value(path []string, depth int) error {
	s.skipSpace()
	if s.at == len(s.text) {
		return errStop
	}
	switch s.text[s.at] {
	case '"', '\'':
		return s.skipString()
	case '[':
		return s.list(']', depth, func(i int) error {
			return s.value(s.enter(path, strconv.Itoa(i), s.at), depth+1)
		})
	case '{':
		return s.list('}', depth, func(int) error {
			return s.keyValue(path, depth+1)
		})
	}
	n := strings.IndexAny(s.text[s.at:], ",]}#\n")
	if n < 0 {
		n = len(s.text) - s.at
	}
	if n == 0 {
		return errStop
	}
	s.at += n
	return nil
}

// list reads the items of an array or an inline table up to its end byte.
func (s *scanner) list(end byte, depth int, item func(i int) error) error {
	if depth == maxDepth {
		return errTooDeep
	}
	s.at++
	for i := 0; ; i++ {
		s.skipBlank()
		if s.accept(string(end)) {
			return nil
		}
		if err := item(i); err != nil {
			return err
		}
		s.skipBlank()
		if !s.accept(",") && (s.at == len(s.text) || s.text[s.at] != end) {
			return errStop
		}
	}
}

type keyPart struct {
	name   string
	offset int
}

// key reads a dotted key with the blanks around it.
func (s *scanner) key() ([]keyPart, error) {
	var parts []keyPart
	for {
		s.skipSpace()
		part := keyPart{offset: s.at}
		var err error
		if part.name, err = s.keyName(); err != nil {
			return nil, err
		}
		if parts = append(parts, part); len(parts) > maxDepth {
			return nil, errTooDeep
		}
		s.skipSpace()
		if !s.accept(".") {
			return parts, nil
		}
	}
}

func (s *scanner) keyName() (string, error) {
	start := s.at
	if s.at < len(s.text) && (s.text[s.at] == '"' || s.text[s.at] == '\'') {
		if err := s.skipString(); err != nil {
			return "", err
		}
		quoted := s.text[start:s.at]
		// Go knows all of TOML's escapes but \e. A key with one keeps its raw
		// spelling, so a mistake in it is shown at its table instead.
		if name, err := strconv.Unquote(quoted); err == nil && quoted[0] == '"' {
			return name, nil
		}
		return quoted[1 : len(quoted)-1], nil
	}
	for s.at < len(s.text) && isBare(s.text[s.at]) {
		s.at++
	}
	if s.at == start {
		return "", errStop
	}
	return s.text[start:s.at], nil
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// skipString passes a string of any of the four kinds.
func (s *scanner) skipString() error {
	quote := s.text[s.at : s.at+1]
	long := strings.Repeat(quote, 3)
	end := quote
	if s.accept(long) {
		end = long
	} else {
		s.at++
	}
	for s.at < len(s.text) {
		switch {
		case quote == `"` && s.text[s.at] == '\\':
			s.at = min(s.at+2, len(s.text))
		case s.accept(end):
			// Up to two quotes may stand right before the closing three.
			for n := 0; end == long && n < 2 && s.accept(quote); n++ {
			}
			return nil
		case end == quote && s.text[s.at] == '\n':
			return errStop
		default:
			s.at++
		}
	}
	return errStop
}

// enter tells of a key and returns its path, which never shares memory with
// that of a sibling.
func (s *scanner) enter(path []string, name string, offset int) []string {
	path = append(path[:len(path):len(path)], name)
	if s.visit != nil {
		s.visit(path, offset)
	}
	return path
}

func (s *scanner) accept(prefix string) bool {
	if !strings.HasPrefix(s.text[s.at:], prefix) {
		return false
	}
	s.at += len(prefix)
	return true
}

func (s *scanner) skipSpace() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t') {
		s.at++
	}
}

// skipBlank passes white space, line ends and comments.
func (s *scanner) skipBlank() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		case '#':
			n := strings.IndexByte(s.text[s.at:], '\n')
			if n < 0 {
				n = len(s.text) - s.at
			}
			s.at += n
		default:
			return
		}
	}
}

// joinPath makes one map key of a path. TOML allows no NUL in a file, and a
// key that writes one with an escape only blurs its own position.
func joinPath(path []string) string { return strings.Join(path, "\x00") }
