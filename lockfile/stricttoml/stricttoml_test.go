package stricttoml

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const sample = `top = "a" # [comment]
"quoted.key" = 'it''s'

[a."b.c"]
list = ["x]", """
two
lines""", 3]
date = 1979-05-27 07:32:00Z
inline = { k = 1, "l\u0041" = [ {m = 2}, {n = 3} ] }

[[item]]
name = "one"
[item.sub]
k = 1
[[item]]
name = "two"
[item.sub]
k = 2
[[item.deep]]
z = 1
`

func TestScanFindsEveryKey(t *testing.T) {
	text := strings.Replace(sample, "'it''s'", "'its'", 1)
	var got []string
	if at, err := scan(text, func(path []string, offset int) {
		got = append(got, strings.Join(path, "/")+"@"+text[offset:min(offset+2, len(text))])
	}); err != nil || at != len(text) {
		t.Fatalf("scan stopped at %d of %d: %v", at, len(text), err)
	}
	want := []string{
		`top@to`, `quoted.key@"q`, `a@a.`, `a/b.c@"b`, `a/b.c/list@li`, `a/b.c/list/0@"x`, `a/b.c/list/1@""`,
		`a/b.c/list/2@3]`, `a/b.c/date@da`, `a/b.c/inline@in`, `a/b.c/inline/k@k `, `a/b.c/inline/lA@"l`,
		`a/b.c/inline/lA/0@{m`, `a/b.c/inline/lA/0/m@m `, `a/b.c/inline/lA/1@{n`, `a/b.c/inline/lA/1/n@n `,
		`item@it`, `item/0@it`, `item/0/name@na`, `item@it`, `item/0/sub@su`, `item/0/sub/k@k `,
		`item@it`, `item/1@it`, `item/1/name@na`, `item@it`, `item/1/sub@su`, `item/1/sub/k@k `,
		`item@it`, `item/1/deep@de`, `item/1/deep/0@de`, `item/1/deep/0/z@z `,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMistakesAreToldAllAtOnceInOrder(t *testing.T) {
	doc, err := Parse("f.toml", []byte("\ufeffjbos = 3\r\nname = 7\r\nlist = [\r\n \"a\",\r\n 2]\r\n[[item]]\r\n[[item]]\r\nx = true\r\n[odd.sub]\r\nk = 1\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	root := doc.Root()
	root.Int("jobs")
	root.String("name")
	root.Strings("list")
	for _, item := range root.Tables("item") {
		item.Require("x")
		item.Int("x")
		item.Done()
	}
	root.Done()
	root.Table("none").Done() // a table that is not there is an empty one
	want := `f.toml:1:1: unknown key jbos (did you mean jobs?)
f.toml:2:1: name must be a string, not a number
f.toml:5:2: list must be an array of strings, not hold a number
f.toml:6:3: missing key item.x
f.toml:8:1: item.x must be a whole number, not true or false
f.toml:9:2: unknown key odd`
	if got := doc.Err(); got == nil || got.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", got, want)
	}
	var first *Error
	if !errors.As(doc.Err(), &first) || first.Line != 1 {
		t.Errorf("no *Error in %v", doc.Err())
	}
}

func TestTooManyMistakesAreCounted(t *testing.T) {
	doc, err := Parse("f", []byte(strings.Repeat("[[x]]\n", 60)))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range doc.Root().Tables("x") {
		x.Require("y")
	}
	got := doc.Err().Error()
	if strings.Count(got, "\n") != maxErrors || !strings.HasSuffix(got, "f: and 10 more mistakes") {
		t.Error(got)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a = 1\nb = \n":                     "f:2:5: ",
		"a = 1\n\na = 2\n":                  "f:3:1: ",
		"x = " + strings.Repeat("[", 1<<20): "f:1:37: nested too deeply",
		"x" + strings.Repeat(".x", 1<<20):   "nested too deeply",
		"[x" + strings.Repeat(".x", 1<<20):  "nested too deeply",
		"a = \"\xff\"\n":                    "f:1:",
		"a = \"\\\n\"":                      `f:1:6: invalid escape in string '\\n'`,
	} {
		_, err := Parse("f", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
}

func TestSyntaxErrorShowsNoPassword(t *testing.T) {
	for _, text := range []string{
		"password = hunter2", "password = 12hunter2", "password = \"\\hunter2\"", "password = \"hunter2",
		"[r]\npassword = [\n hunter2 ]", "password hunter2", "password = \"\"\"\nhunter2\\q\"\"\"", "x = {password = 1hunter2}",
	} {
		_, err := Parse("f", []byte(text))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What the parser accepts, the scanner must read to its end and see the same
// keys: its depth limit guards the parser, and its places go into messages.
func FuzzScanAgreesWithParser(f *testing.F) {
	f.Add(sample)
	f.Add("a.b.\"c\" = '''x''''\nd = \"\"\"\\\n \"\"\"\"\" # c\n[x]\n[x.y]\nz = [[1,2,],{}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := Parse("f", []byte(text))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		at, err := scan(doc.text, func(path []string, _ int) { seen[joinPath(path)] = true })
		if err != nil || at != len(doc.text) {
			t.Fatalf("scan stopped at %d of %d: %v", at, len(doc.text), err)
		}
		if strings.ContainsAny(text, `\`) {
			return // a key with an escape may keep its raw spelling
		}
		var root map[string]any
		if _, err := toml.Decode(doc.text, &root); err != nil {
			t.Fatal(err)
		}
		for key := range root {
			if !seen[key] {
				t.Errorf("key %q not seen in %q", key, text)
			}
		}
	})
}
