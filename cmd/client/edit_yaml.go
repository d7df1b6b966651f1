package client

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

func parseYAML(text []byte) (map[string]any, error) {
	document := map[string]any{}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if document == nil {
		document = map[string]any{} // a file with comments alone
	}
	return document, nil
}

// editYAML adds keys to the mappings of a text.
func editYAML(text string, settings []setting) (string, error) {
	for _, s := range settings {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += eol(text)
		}
		var document yaml.Node
		if err := yaml.Unmarshal([]byte(text), &document); err != nil {
			return "", err
		}
		if len(document.Content) == 0 {
			text += blockYAML(0, s.path, s.value, eol(text))
			continue
		}
		var err error
		if text, err = addYAML(text, document.Content[0], s); err != nil {
			return "", err
		}
	}
	return text, nil
}

// addYAML adds a setting below the outermost mapping.
func addYAML(text string, mapping *yaml.Node, s setting) (string, error) {
	for i, name := range s.path {
		if mapping.Kind != yaml.MappingNode || len(mapping.Content) == 0 {
			return "", errUnfaithful
		}
		key, value := child(mapping, name)
		if key == nil && mapping.Style&yaml.FlowStyle != 0 {
			return "", errUnfaithful
		}
		if key == nil {
			at := lineStart(text, lastLine(mapping)+1)
			return splice(text, at, at, blockYAML(mapping.Content[0].Column-1, s.path[i:], s.value, eol(text))), nil
		}
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
			if i == len(s.path)-1 || value.Value != "" {
				return "", errUnfaithful
			}
			at := lineStart(text, key.Line+1)
			return splice(text, at, at, blockYAML(key.Column+1, s.path[i+1:], s.value, eol(text))), nil
		}
		mapping = value
	}
	at := lineStart(text, mapping.Line) + mapping.Column - 1
	list, isList := s.value.([]string)
	switch {
	case isList && mapping.Kind == yaml.SequenceNode && mapping.Style&yaml.FlowStyle != 0:
		return intoList(text, at, list, quoteJSON), nil
	case isList && mapping.Kind == yaml.SequenceNode:
		var items strings.Builder
		for _, element := range list {
			items.WriteString(strings.Repeat(" ", mapping.Column-1) + "- " + quoteJSON(element) + eol(text))
		}
		at = lineStart(text, mapping.Line)
		return splice(text, at, at, items.String()), nil
	case !isList && mapping.Kind == yaml.ScalarNode:
		// The word as it is written; a comment after it stays.
		word := text[at : at+len(strings.TrimRight(text[at:nextLine(text, at)], "\r\n"))]
		if i := strings.Index(word, " #"); i >= 0 {
			word = word[:i]
		}
		return splice(text, at, at+len(strings.TrimRight(word, " ")), scalarYAML(s.value)), nil
	}
	return "", errUnfaithful
}

// child returns a key of a mapping and its value, or nil.
func child(mapping *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i], mapping.Content[i+1]
		}
	}
	return nil, nil
}

// lastLine is the last line on which something below a node begins.
func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}

// lineStart is where a line begins, counted from 1.
func lineStart(text string, line int) int {
	at := 0
	for range line - 1 {
		at = nextLine(text, at)
	}
	return at
}

// blockYAML is a value below keys, each on a line of its own.
func blockYAML(column int, path []string, value any, end string) string {
	var b strings.Builder
	for _, name := range path[:len(path)-1] {
		fmt.Fprintf(&b, "%s%s:%s", strings.Repeat(" ", column), keyYAML(name), end)
		column += 2
	}
	indent := strings.Repeat(" ", column)
	fmt.Fprintf(&b, "%s%s:", indent, keyYAML(path[len(path)-1]))
	if list, ok := value.([]string); ok {
		for _, element := range list {
			fmt.Fprintf(&b, "%s%s  - %s", end, indent, quoteJSON(element))
		}
	} else {
		b.WriteString(" " + scalarYAML(value))
	}
	return b.String() + end
}

func scalarYAML(value any) string {
	if text, ok := value.(string); ok {
		return quoteJSON(text) // which YAML's double quotes understand
	}
	return fmt.Sprint(value)
}

// keyYAML quotes keys that mean something else without: * and addresses.
func keyYAML(s string) string {
	if strings.ContainsAny(s, "*:[]") {
		return quoteJSON(s)
	}
	return s
}
