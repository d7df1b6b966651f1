package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// file is a parsed Dockerfile. It is the same for all platforms, and nothing
// changes it.
type file struct {
	text   []byte
	escape rune
	args   []instructions.ArgCommand // those before the first FROM
	stages []instructions.Stage
}

// quiet is a linter without rules. BuildKit's parser follows a nil one when a
// comment in the file has a check directive (# check=skip=all, anywhere but at
// the top), and panics.
func quiet() *linter.Linter { return linter.New(&linter.Config{}) }

// parse reads a Dockerfile as far as its syntax goes.
func parse(text []byte) (*file, error) {
	if len(text) == 0 {
		return nil, errorfAt(text, 0, "the file is empty")
	}
	if check, _, loc, ok := parser.ParseDirective("check", text); ok {
		if _, err := linter.ParseLintOptions(check); err != nil {
			return nil, errorfAt(text, startLine(loc), "check directive: %w", err)
		}
	}
	tree, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fromBuildKit(text, err)
	}
	stages, args, err := instructions.Parse(tree.AST, quiet())
	if err != nil {
		return nil, fromBuildKit(text, err)
	}
	if len(stages) == 0 {
		return nil, errorfAt(text, 0, "the file has no FROM")
	}
	return &file{text: text, escape: tree.EscapeToken, args: args, stages: stages}, nil
}

// parseTrigger reads the instruction that an ONBUILD stores. BuildKit does so
// only when another stage builds on that one, and then as a file of its own:
// an escape directive at the top of the Dockerfile has no say in it.
func parseTrigger(trigger string) (instructions.Command, error) {
	tree, err := parser.Parse(strings.NewReader(trigger))
	if err != nil {
		return nil, err
	}
	if len(tree.AST.Children) != 1 {
		return nil, errors.New("ONBUILD takes a single instruction")
	}
	v, err := instructions.ParseInstructionWithLinter(tree.AST.Children[0], quiet())
	if err != nil {
		return nil, err
	}
	cmd, ok := v.(instructions.Command)
	if !ok {
		return nil, fmt.Errorf("%s may not be used in ONBUILD", cut(tree.AST.Children[0].Value, maxSource))
	}
	return cmd, nil
}

// startLine returns the first line of an instruction.
func startLine(loc []parser.Range) int {
	if len(loc) == 0 {
		return 0
	}
	return loc[0].Start.Line
}
