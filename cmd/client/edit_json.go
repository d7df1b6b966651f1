package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

func parseJSON(text []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has something after the JSON object")
	}
	if document == nil {
		return nil, errors.New("it is not a JSON object: null")
	}
	return document, nil
}

// editJSON adds lists to the outermost object.
func editJSON(text string, settings []setting) (string, error) {
	for _, s := range settings {
		value, ok := s.value.([]string)
		if !ok || len(s.path) != 1 {
			return "", errUnfaithful
		}
		object, err := readObject(text)
		if err != nil {
			return "", err
		}
		if at, exists := object.values[s.path[0]]; exists {
			text = intoList(text, at, value, quoteJSON)
			continue
		}
		var quoted []string
		for _, element := range value {
			quoted = append(quoted, quoteJSON(element))
		}
		member := quoteJSON(s.path[0]) + ": [" + strings.Join(quoted, ", ") + "]"
		open := strings.IndexByte(text, '{') + 1
		if object.end == 0 {
			text = splice(text, open, open+blank(text[open:]), eol(text)+"  "+member+eol(text))
			continue
		}
		// As far from the last member as the first is from the brace.
		text = splice(text, object.end, object.end, ","+text[open:open+blank(text[open:])]+member)
	}
	return text, nil
}

// intoList puts elements in front of the list that begins at an offset, spaced
// as the first one is.
func intoList(text string, at int, elements []string, quote func(string) string) string {
	open := at + 1
	space := text[open : open+blank(text[open:])]
	var quoted []string
	for _, element := range elements {
		quoted = append(quoted, quote(element))
	}
	if text[open+len(space)] == ']' {
		return splice(text, open, open+len(space), strings.Join(quoted, ", "))
	}
	between := space
	if between == "" {
		between = " "
	}
	return splice(text, open, open+len(space), space+strings.Join(quoted, ","+between)+","+between)
}

// object is where the values of an object begin, and where its last one ends; 0
// if it has none.
type object struct {
	values map[string]int
	end    int
}

func readObject(text string) (object, error) {
	o := object{values: map[string]int{}}
	decoder := json.NewDecoder(strings.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		return o, err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return o, err
		}
		name, _ := key.(string)
		after := int(decoder.InputOffset())
		colon := after + strings.IndexByte(text[after:], ':') + 1
		o.values[name] = colon + blank(text[colon:])
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return o, err
		}
		o.end = int(decoder.InputOffset())
	}
	return o, nil
}
