package client

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// format is the grammar of a file that holds other things too.
type format int

const (
	formatJSON format = iota + 1
	formatTOML
	formatYAML
)

// A setting is a key that has to be in a file.
type setting struct {
	path []string // tables and the key
	// value is a string, a bool or a map[string]string, which takes the place
	// of another; or a []string, whose elements have to be in the list and go
	// in front of others.
	value any
	first bool // a new table goes before others of its kind
}

func fixed(settings []setting) func(map[string]any) ([]setting, error) {
	return func(map[string]any) ([]setting, error) { return settings, nil }
}

// A RefusedError says that a file cannot be changed without harm, and what a
// person has to add to it.
type RefusedError struct {
	Path string
	Err  error
	Add  string // empty if Err says what to do
}

func (e *RefusedError) Error() string {
	if e.Add == "" {
		return fmt.Sprintf("%s is left as it is: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s is left as it is: %v; add this by hand:\n%s", e.Path, e.Err, e.Add)
}

func (e *RefusedError) Unwrap() error { return e.Err }

var errUnfaithful = errors.New("it is written in a way that mirrorctl cannot change without touching the rest")

// Merge returns what the file has to hold, given what it holds now; nil is no
// file. Nothing but the lines of the settings is changed: comments, order and
// spaces stay. The result has been read again, and says what the old text said
// and the settings, or else there is a *RefusedError. Where nothing is missing,
// the old text comes back.
func (f File) Merge(old []byte) ([]byte, error) {
	if f.settings == nil || len(strings.TrimSpace(string(old))) == 0 {
		return []byte(f.Content), nil
	}
	// dockerd takes a byte order mark, as editors of Windows write it.
	if rest, marked := bytes.CutPrefix(old, []byte("\ufeff")); marked && f.format == formatJSON {
		text, err := f.Merge(rest)
		if err != nil {
			return nil, err
		}
		return append([]byte("\ufeff"), text...), nil
	}
	refuse := func(err error, add string) ([]byte, error) {
		if f.Secret {
			add = ""
		}
		return nil, &RefusedError{Path: f.Path, Err: err, Add: add}
	}
	parse, edit := f.format.functions()
	before, err := parse(old)
	if err != nil {
		return refuse(err, "")
	}
	settings, err := f.settings(before)
	if err != nil {
		return refuse(err, "")
	}
	want, _ := clone(before).(map[string]any)
	var missing []setting
	for _, s := range settings {
		rest, err := s.apply(want)
		if err != nil {
			return refuse(err, f.Content)
		}
		if rest != nil {
			missing = append(missing, setting{s.path, rest, s.first})
		}
	}
	if len(missing) == 0 {
		return old, nil
	}
	text, err := edit(string(old), missing)
	if err != nil {
		return refuse(errUnfaithful, f.Content)
	}
	if after, err := parse([]byte(text)); err != nil || !reflect.DeepEqual(after, want) {
		return refuse(errUnfaithful, f.Content)
	}
	return []byte(text), nil
}

func (f format) functions() (parse func([]byte) (map[string]any, error), edit func(string, []setting) (string, error)) {
	switch f {
	case formatJSON:
		return parseJSON, editJSON
	case formatTOML:
		return parseTOML, editTOML
	}
	return parseYAML, editYAML
}

// find looks up a key below tables.
func find(document map[string]any, path []string) (any, bool) {
	for _, name := range path[:len(path)-1] {
		next, ok := document[name].(map[string]any)
		if !ok {
			return nil, false
		}
		document = next
	}
	value, ok := document[path[len(path)-1]]
	return value, ok
}

// apply puts the setting into a document, and returns what of its value was
// missing, or nil.
func (s setting) apply(document map[string]any) (missing any, err error) {
	for i, name := range s.path[:len(s.path)-1] {
		if document[name] == nil {
			document[name] = map[string]any{}
		}
		next, ok := document[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s is not a table", joinTOML(s.path[:i+1]))
		}
		document = next
	}
	key := s.path[len(s.path)-1]
	now := document[key]
	switch value := s.value.(type) {
	case []string:
		list, ok := now.([]any)
		if now != nil && !ok {
			return nil, fmt.Errorf("%s is not a list", joinTOML(s.path))
		}
		elements := without(value, list)
		if len(elements) == 0 {
			return nil, nil
		}
		all := make([]any, 0, len(elements)+len(list))
		for _, element := range elements {
			all = append(all, element)
		}
		document[key] = append(all, list...)
		return elements, nil
	case map[string]string:
		table := map[string]any{}
		for k, v := range value {
			table[k] = v
		}
		if reflect.DeepEqual(now, table) {
			return nil, nil
		}
		if now != nil {
			return nil, fmt.Errorf("%s says something else already", joinTOML(s.path))
		}
		document[key] = table
		return value, nil
	}
	if reflect.DeepEqual(now, s.value) {
		return nil, nil
	}
	document[key] = s.value
	return s.value, nil
}

// without returns the elements that a list lacks. Docker writes a slash after
// the address of a mirror.
func without(elements []string, list []any) []string {
	return slices.DeleteFunc(slices.Clone(elements), func(element string) bool {
		return slices.ContainsFunc(list, func(have any) bool {
			text, ok := have.(string)
			return ok && strings.TrimSuffix(text, "/") == element
		})
	})
}

// clone copies the tables and lists of a document.
func clone(value any) any {
	switch value := value.(type) {
	case map[string]any:
		copied := make(map[string]any, len(value))
		for k, v := range maps.All(value) {
			copied[k] = clone(v)
		}
		return copied
	case []any:
		copied := make([]any, 0, len(value))
		for _, v := range value {
			copied = append(copied, clone(v))
		}
		return copied
	}
	return value
}

// splice puts text in the place of what stands between two offsets.
func splice(s string, from, to int, text string) string { return s[:from] + text + s[to:] }

// nextLine is the offset after the end of the line that offset i is in.
func nextLine(s string, i int) int {
	if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
		return i + n + 1
	}
	return len(s)
}

// blank is the length of the white space that a text begins with.
func blank(s string) int { return len(s) - len(strings.TrimLeft(s, " \t\r\n")) }

// eol is how lines end in a text.
func eol(s string) string {
	if strings.Contains(s, "\r\n") {
		return "\r\n"
	}
	return "\n"
}
