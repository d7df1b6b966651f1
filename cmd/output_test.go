package cmd

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// hostile is what a stranger may have put into a name: colours, a title for the
// window, another line, a line that is written over, text from right to left.
const hostile = "a\x1b[31mEVIL\x1b]0;t\x07\nb\tc\rd\u202ee\u0085f\u009b"

// TestPrintable holds that nothing of it reaches a terminal, whatever prints it.
func TestPrintable(t *testing.T) {
	node := store.Node{Kind: store.Kind(hostile), Children: []store.Node{
		{Kind: store.KindManifest, Platform: hostile}, {Descriptor: v1.Descriptor{ArtifactType: hostile}}, {Tags: []string{hostile}},
	}}
	image, err := parseName("a")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		print func(p *program, w io.Writer) error
		lines int
	}{
		"table": {func(p *program, w io.Writer) error {
			table := newTable(w, "NAME", "PLATFORMS")
			table.row("x", hostile)
			return table.flush()
		}, 2},
		"inspect": {func(p *program, w io.Writer) error {
			var b strings.Builder
			writeNode(&b, node, "")
			_, err := io.WriteString(w, b.String())
			return err
		}, 4},
		"message": {func(p *program, w io.Writer) error { p.say("%s", hostile); return nil }, 2},
		"error":   {func(p *program, w io.Writer) error { p.printError(errors.New(hostile)); return nil }, 2},
		"errors": {func(p *program, w io.Writer) error {
			p.printError(errors.Join(errors.New(hostile), withCode(1, "%s", hostile)))
			return nil
		}, 4},
		"lines": {func(p *program, w io.Writer) error {
			(&lines{w: w}).done(&job{name: image, outcome: outcomeFailed, err: errors.New(hostile)})
			return nil
		}, 2},
	}
	for name, tt := range tests {
		var out strings.Builder
		if err := tt.print(&program{stdout: &out, stderr: &out}, &out); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n != tt.lines {
			t.Errorf("%s: %d lines, want %d: %q", name, n, tt.lines, out.String())
		}
		for _, r := range out.String() {
			if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
				t.Errorf("%s: %q in %q", name, r, out.String())
			}
		}
		if !strings.Contains(out.String(), "EVIL") {
			t.Errorf("%s: %q lost what can be shown", name, out.String())
		}
	}
}

func TestPrintableKeepsText(t *testing.T) {
	for in, want := range map[string]string{
		"übung 日本 ✓": "übung 日本 ✓", "a\nb": "a\ufffdb", "\xff": "\ufffd", "": "",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := printableLines("FROM a\r\n\tb\x1b"); got != "FROM a\n\tb\ufffd" {
		t.Errorf("%q", got)
	}
}
