package stricttoml

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/BurntSushi/toml"
)

// Key names a place below a table: {"digest"}, or {"used_by", "0"} for the
// first element of an array. The empty Key is the table itself.
type Key []string

// Table reads one table. A method that asks for a key makes the key known; Done
// reports those nobody asked for. All methods of a nil *Table act as on an
// empty table, so that optional tables need no special case.
type Table struct {
	doc    *Document
	path   []string // from the root, with the numbers of array elements
	shown  toml.Key // the same without the numbers, for messages
	values map[string]any
	known  map[string]bool
}

// Errorf reports a mistake at a place of the table.
func (t *Table) Errorf(at Key, format string, args ...any) {
	t.doc.report(slices.Concat(t.path, at), fmt.Sprintf(format, args...))
}

// Has tells whether the table has the key, of whatever type.
func (t *Table) Has(key string) bool {
	_, ok := t.get(key)
	return ok
}

// Require reports those of the keys that the table does not have.
func (t *Table) Require(keys ...string) {
	for _, key := range keys {
		if !t.Has(key) {
			t.Errorf(nil, "missing key %s", t.show(key))
		}
	}
}

// Keys returns all keys of a table whose keys are data, sorted, and makes them
// known.
func (t *Table) Keys() []string {
	if t == nil {
		return nil
	}
	keys := slices.Sorted(maps.Keys(t.values))
	for _, key := range keys {
		t.known[key] = true
	}
	return keys
}

// String returns a string. As with the other types, a key that is absent or has
// another type, which is reported, gives false.
func (t *Table) String(key string) (string, bool) { return value[string](t, key, "a string") }

// Int returns an integer.
func (t *Table) Int(key string) (int64, bool) { return value[int64](t, key, "a whole number") }

// Bool returns a truth value.
func (t *Table) Bool(key string) (bool, bool) { return value[bool](t, key, "true or false") }

// Strings returns an array of strings.
func (t *Table) Strings(key string) ([]string, bool) {
	const want = "an array of strings"
	list, ok := value[[]any](t, key, want)
	if !ok {
		return nil, false
	}
	out := make([]string, len(list))
	for i, v := range list {
		s, isString := v.(string)
		if !isString {
			t.Errorf(Key{key, strconv.Itoa(i)}, "%s must be %s, not hold %s", t.show(key), want, kindOf(v))
			ok = false
		}
		out[i] = s
	}
	return out, ok
}

// OneOrMore returns the elements of an array of strings, or a string alone.
func (t *Table) OneOrMore(key string) ([]string, bool) {
	if v, ok := t.get(key); ok {
		if s, isString := v.(string); isString {
			return []string{s}, true
		}
	}
	return t.Strings(key)
}

// Table returns the table at key; nil if there is none.
func (t *Table) Table(key string) *Table {
	values, ok := value[map[string]any](t, key, "a table")
	if !ok {
		return nil
	}
	return t.child(values, key)
}

// Tables returns the tables of a [[key]], in file order.
func (t *Table) Tables(key string) []*Table {
	v, ok := t.get(key)
	if !ok {
		return nil
	}
	// An array of inline tables has the one type or the other, as it likes.
	var tables []*Table
	switch list := v.(type) {
	case []map[string]any:
		for i, values := range list {
			tables = append(tables, t.child(values, key, strconv.Itoa(i)))
		}
		return tables
	case []any:
		for i, v := range list {
			values, isTable := v.(map[string]any)
			if !isTable {
				t.Errorf(Key{key, strconv.Itoa(i)}, "%s must hold tables, not %s", t.show(key), kindOf(v))
				continue
			}
			tables = append(tables, t.child(values, key, strconv.Itoa(i)))
		}
		return tables
	}
	t.Errorf(Key{key}, "%s must be written [[%s]], and is %s", t.show(key), t.show(key), kindOf(v))
	return nil
}

// Done reports every key that no method asked for, with the nearest known one.
func (t *Table) Done() {
	if t == nil {
		return
	}
	known := slices.Sorted(maps.Keys(t.known))
	for _, key := range slices.Sorted(maps.Keys(t.values)) {
		if t.known[key] {
			continue
		}
		hint := ""
		if near := nearest(key, known); near != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		t.Errorf(Key{key}, "unknown key %s%s", t.show(key), hint)
	}
}

func (t *Table) get(key string) (any, bool) {
	if t == nil {
		return nil, false
	}
	t.known[key] = true
	v, ok := t.values[key]
	return v, ok
}

func (t *Table) child(values map[string]any, key string, element ...string) *Table {
	return &Table{
		doc:    t.doc,
		path:   slices.Concat(t.path, []string{key}, element),
		shown:  slices.Concat(t.shown, toml.Key{key}),
		values: values,
		known:  map[string]bool{},
	}
}

func (t *Table) show(key string) string { return slices.Concat(t.shown, toml.Key{key}).String() }

func value[T any](t *Table, key, want string) (T, bool) {
	v, ok := t.get(key)
	if !ok {
		var none T
		return none, false
	}
	typed, ok := v.(T)
	if !ok {
		t.Errorf(Key{key}, "%s must be %s, not %s", t.show(key), want, kindOf(v))
	}
	return typed, ok
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64, float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	}
	return "a date or time"
}

// nearest returns the word with the fewest edits to s, if it is near enough to
// be what was meant; the first of the words where several are.
func nearest(s string, words []string) string {
	best, near := len(s)/3+2, ""
	for _, w := range words {
		// The table of edits is len(s) by len(w): a key that long is no typo.
		if len(s) > 64 || len(w) > 64 {
			continue
		}
		if d := edits(s, w); d < best {
			best, near = d, w
		}
	}
	return near
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
