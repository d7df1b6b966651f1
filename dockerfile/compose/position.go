package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The library's model has no lines, so each file is also read as plain YAML.

type node = yaml.Node

// parse reads the first document of a file. Further ones are merged into it by
// the library; what they say has no lines here.
func parse(text []byte) (*node, error) {
	var root node
	switch err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the file is empty")
	case err != nil:
		return nil, fmt.Errorf("not YAML: %s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
	}
	if err := checkAliases(&root, map[*node]bool{}); err != nil {
		return nil, err
	}
	return &root, nil
}

// checkAliases refuses what contains itself. The library would go round in it
// for long.
func checkAliases(n *node, around map[*node]bool) error {
	if n.Kind == yaml.AliasNode {
		if around[n.Alias] {
			return fmt.Errorf("line %d: *%s is within what it stands for", n.Line, n.Value)
		}
		return nil
	}
	around[n] = true
	defer delete(around, n)
	for _, child := range n.Content {
		if err := checkAliases(child, around); err != nil {
			return err
		}
	}
	return nil
}

// hasServices tells a Compose file from other YAML.
func (l *loader) hasServices() bool {
	for _, f := range l.files {
		for _, key := range []string{"services", "include", "jobs"} {
			if _, value := find(f.root, key); value != nil {
				return true
			}
		}
	}
	return false
}

// place returns the file and the line of a key, or of the innermost of those
// around it that is written down. The last file that has it decides, as it does
// when they are merged.
func (l *loader) place(path ...string) (name string, line int) {
	for n := len(path); n > 1; n-- {
		for i := len(l.files) - 1; i >= 0; i-- {
			if key, _ := find(l.files[i].root, path[:n]...); key != nil {
				return l.files[i].name, key.Line
			}
		}
	}
	return l.files[0].name, 0
}

// textLine returns the line at which a Dockerfile in a file begins, or 0.
func (l *loader) textLine(w workload, text string) int {
	for i := len(l.files) - 1; i >= 0; i-- {
		_, value := find(l.files[i].root, w.section, w.name, "build", "dockerfile_inline")
		if value == nil {
			continue
		}
		// In a literal block the lines are those of the file, and begin below
		// its sign. Variables do not change their number.
		if value.Style&yaml.LiteralStyle != 0 && strings.Count(value.Value, "\n") == strings.Count(text, "\n") {
			return value.Line + 1
		}
		return 0
	}
	return 0
}

// find returns a key and its value in nested mappings. It follows aliases and
// merge keys, but not without end: a mapping may well be merged into itself.
func find(n *node, path ...string) (key, value *node) {
	steps := 10000
	return search(n, path, &steps)
}

func search(n *node, path []string, steps *int) (key, value *node) {
	if *steps--; *steps < 0 || n == nil {
		return nil, nil
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil, nil
		}
		return search(n.Content[0], path, steps)
	case yaml.AliasNode:
		return search(n.Alias, path, steps)
	case yaml.MappingNode:
	default:
		return nil, nil
	}
	var merged []*node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Value == path[0] && len(path) == 1:
			return k, v
		case k.Value == path[0]:
			return search(v, path[1:], steps)
		case k.Value == "<<" && v.Kind == yaml.SequenceNode:
			merged = append(merged, v.Content...)
		case k.Value == "<<":
			merged = append(merged, v)
		}
	}
	for _, m := range merged {
		if k, v := search(m, path, steps); k != nil {
			return k, v
		}
	}
	return nil, nil
}
