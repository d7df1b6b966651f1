package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

func parseTOML(text []byte) (map[string]any, error) {
	document := map[string]any{}
	if err := toml.Unmarshal(text, &document); err != nil {
		if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
			row, column := at.Position()
			return nil, fmt.Errorf("%d:%d: %w", row, column, err)
		}
		return nil, err
	}
	return document, nil
}

// editTOML adds keys to the tables of a text, and tables to the text.
func editTOML(text string, settings []setting) (string, error) {
	var tables [][]string
	for _, s := range settings {
		table := s.path[:len(s.path)-1]
		if !slices.ContainsFunc(tables, func(t []string) bool { return slices.Equal(t, table) }) {
			tables = append(tables, table)
		}
	}
	for _, table := range tables {
		var missing []setting
		for _, s := range settings {
			if !slices.Equal(s.path[:len(s.path)-1], table) {
				continue
			}
			layout, err := readTOML(text)
			if err != nil {
				return "", err
			}
			if k := layout.key(s.path); k != nil {
				text = k.set(text, s.value)
			} else {
				missing = append(missing, s)
			}
		}
		if len(missing) == 0 {
			continue
		}
		layout, err := readTOML(text)
		if err != nil {
			return "", err
		}
		text = layout.insert(text, table, missing)
	}
	return text, nil
}

// tomlLayout is where things are in a text.
type tomlLayout struct {
	tables []tomlTable // the first is what stands before all headers
	keys   []tomlKey
}

type tomlTable struct {
	path       []string
	start, end int // of the header's line
}

type tomlKey struct {
	path  []string
	start int // of the key
	value int // where the value begins
	end   int // where a value that is one word ends, else 0
}

func readTOML(text string) (tomlLayout, error) {
	layout := tomlLayout{tables: []tomlTable{{}}}
	var p unstable.Parser
	p.Reset([]byte(text))
	var current []string
	for p.NextExpression() {
		e := p.Expression()
		var path []string
		first, last := -1, 0
		for it := e.Key(); it.Next(); {
			n := it.Node()
			path = append(path, string(n.Data))
			if first < 0 {
				first = int(n.Raw.Offset)
			}
			last = int(n.Raw.Offset + n.Raw.Length)
		}
		switch e.Kind {
		case unstable.Table:
			current = path
			start := strings.LastIndexByte(text[:first], '\n') + 1
			layout.tables = append(layout.tables, tomlTable{path, start, nextLine(text, last)})
		case unstable.ArrayTable:
			current = []string{"\x00"} // no setting is in one
		case unstable.KeyValue:
			value := last + strings.IndexByte(text[last:], '=') + 1
			value += blank(text[value:])
			k := tomlKey{path: slices.Concat(current, path), start: first, value: value}
			if v := e.Value(); v.Kind == unstable.Bool || v.Kind == unstable.String {
				k.end = value + int(v.Raw.Length)
			}
			layout.keys = append(layout.keys, k)
		}
	}
	return layout, p.Error()
}

func (l tomlLayout) key(path []string) *tomlKey {
	for i := range l.keys {
		if slices.Equal(l.keys[i].path, path) {
			return &l.keys[i]
		}
	}
	return nil
}

// set changes the value of a key.
func (k *tomlKey) set(text string, value any) string {
	if list, ok := value.([]string); ok && text[k.value] == '[' {
		return intoList(text, k.value, list, quoteTOML)
	}
	if k.end == 0 {
		return text // and what is wrong shows when the result is read
	}
	return splice(text, k.value, k.end, valueTOML(value))
}

// insert adds keys to a table, which is made if it is not there.
func (l tomlLayout) insert(text string, table []string, missing []setting) string {
	end := eol(text)
	lines := func(indent string) string {
		var b strings.Builder
		for _, s := range missing {
			b.WriteString(indent + keyTOML(s.path[len(s.path)-1]) + " = " + valueTOML(s.value) + end)
		}
		return b.String()
	}
	if len(table) == 0 {
		at := len(text)
		if len(l.tables) > 1 {
			at = l.tables[1].start
		}
		if len(l.keys) > 0 {
			at = min(at, strings.LastIndexByte(text[:l.keys[0].start], '\n')+1)
		}
		return splice(text, at, at, lines(""))
	}
	for _, t := range l.tables[1:] {
		if !slices.Equal(t.path, table) {
			continue
		}
		header := text[t.start:t.end]
		indent := header[:blank(header)] + "  "
		if i := slices.IndexFunc(l.keys, func(k tomlKey) bool { return k.start >= t.end }); i >= 0 && slices.Equal(l.keys[i].path[:len(l.keys[i].path)-1], table) {
			line := text[strings.LastIndexByte(text[:l.keys[i].start], '\n')+1:]
			indent = line[:blank(line)]
		}
		if !strings.HasSuffix(header, "\n") {
			indent = end + indent
		}
		return splice(text, t.end, t.end, lines(indent))
	}
	block := "[" + joinTOML(table) + "]" + end + lines("  ")
	for _, t := range l.tables[1:] {
		if missing[0].first && len(t.path) >= len(table) && slices.Equal(t.path[:len(table)-1], table[:len(table)-1]) {
			at := aboveComments(text, t.start)
			return splice(text, at, at, block+end)
		}
	}
	if !strings.HasSuffix(text, "\n") {
		text += end
	}
	return text + end + block
}

// aboveComments is where the comments directly above a line begin.
func aboveComments(text string, line int) int {
	for line > 0 {
		above := strings.LastIndexByte(text[:line-1], '\n') + 1
		if !strings.HasPrefix(strings.TrimSpace(text[above:line]), "#") {
			break
		}
		line = above
	}
	return line
}

func valueTOML(value any) string {
	switch value := value.(type) {
	case string:
		return quoteTOML(value)
	case []string:
		var quoted []string
		for _, element := range value {
			quoted = append(quoted, quoteTOML(element))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case map[string]string:
		var members []string
		for _, k := range slices.Sorted(maps.Keys(value)) {
			members = append(members, keyTOML(k)+" = "+quoteTOML(value[k]))
		}
		return "{ " + strings.Join(members, ", ") + " }"
	}
	return fmt.Sprint(value)
}

// quoteTOML quotes as JSON does, which TOML's basic strings understand.
func quoteTOML(s string) string { return quoteJSON(s) }

func keyTOML(s string) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !bare(r) }) < 0 {
		return s
	}
	return quoteTOML(s)
}

func joinTOML(path []string) string {
	var keys []string
	for _, k := range path {
		keys = append(keys, keyTOML(k))
	}
	return strings.Join(keys, ".")
}
