package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
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
	if err := check(&root, map[*node]bool{}); err != nil {
		return nil, err
	}
	return &root, nil
}

// maxNesting bounds how deeply a file may be nested. The library takes a time
// that grows with the square of it, and more.
const maxNesting = 100

// check refuses what is nested too deeply, and what contains itself: the library
// would go round in it for long. around is what a node is in.
func check(n *node, around map[*node]bool) error {
	if n.Kind == yaml.AliasNode {
		if around[n.Alias] {
			return fmt.Errorf("line %d: *%s is within what it stands for", n.Line, n.Value)
		}
		return nil
	}
	if len(around) > maxNesting {
		return fmt.Errorf("line %d: more than %d lists and mappings within each other", n.Line, maxNesting)
	}
	around[n] = true
	defer delete(around, n)
	for _, child := range n.Content {
		if err := check(child, around); err != nil {
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
func (l *loader) place(section, name, key string) (file string, line int) {
	for _, f := range slices.Backward(l.files) {
		if k, _ := find(f.workloads[section][name].value, key); k != nil {
			return f.name, k.Line
		}
	}
	for _, f := range slices.Backward(l.files) {
		if e, ok := f.workloads[section][name]; ok {
			return f.name, e.key.Line
		}
	}
	return l.files[0].name, 0
}

// An entry is a key of a mapping and its value.
type entry struct{ key, value *node }

// entries returns what is in the mapping under a key of a file. Of a key that is
// there more than once, by merging, it is the one that find finds.
func entries(root *node, key string) map[string]entry {
	all := map[string]entry{}
	_, mapping := find(root, key)
	steps := 10000
	addEntries(all, mapping, &steps)
	return all
}

func addEntries(all map[string]entry, n *node, steps *int) {
	if *steps--; *steps < 0 || n == nil {
		return
	}
	if n.Kind == yaml.AliasNode {
		addEntries(all, n.Alias, steps)
		return
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if _, ok := all[k.Value]; !ok && k.Value != "<<" {
			all[k.Value] = entry{k, n.Content[i+1]}
		}
	}
	for _, m := range mergedInto(n) {
		addEntries(all, m, steps)
	}
}

// mergedInto returns what the merge keys of a mapping name.
func mergedInto(n *node) []*node {
	var merged []*node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch k, v := n.Content[i], n.Content[i+1]; {
		case k.Value != "<<":
		case v.Kind == yaml.SequenceNode:
			merged = append(merged, v.Content...)
		default:
			merged = append(merged, v)
		}
	}
	return merged
}

// textLine returns the line at which a Dockerfile in a file begins, or 0.
func (l *loader) textLine(w workload, text string) int {
	for i := len(l.files) - 1; i >= 0; i-- {
		_, value := find(l.files[i].workloads[w.section][w.name].value, "build", "dockerfile_inline")
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
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Value == path[0] && len(path) == 1:
			return k, v
		case k.Value == path[0]:
			return search(v, path[1:], steps)
		}
	}
	for _, m := range mergedInto(n) {
		if k, v := search(m, path, steps); k != nil {
			return k, v
		}
	}
	return nil, nil
}
