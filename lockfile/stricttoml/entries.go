package stricttoml

import (
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Entry is a key of a file that has a value other than a table.
type Entry struct {
	Key   string // as it is written: registry."ghcr.io".url
	Line  int    // from 1
	Value any    // string, int64, bool, []any and what else TOML has
}

// Entries returns all keys with their values, in the order of the file. A value may
// be a password: who shows it decides by the key.
func (d *Document) Entries() []Entry {
	var all []Entry
	seen := map[string]bool{}
	// The text was scanned once already, so there is no error to look at.
	_, _ = scan(d.text, func(path []string, offset int) {
		value := any(d.root)
		for _, name := range path {
			table, ok := value.(map[string]any)
			if !ok {
				return // an element of an array, which is shown as a whole
			}
			value = table[name]
		}
		key := toml.Key(slices.Clone(path)).String()
		if _, table := value.(map[string]any); table || value == nil || seen[key] {
			return
		}
		seen[key] = true
		all = append(all, Entry{key, 1 + strings.Count(d.text[:offset], "\n"), value})
	})
	return all
}
