package dockerfile

import (
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// syntaxArg is the build argument that names the frontend in place of the file.
const syntaxArg = "BUILDKIT_SYNTAX"

// findSyntax returns the image that BuildKit would run to read the file, or
// nil. Variables are not expanded in it, and named stages do not matter.
//
// It also says whether the file is foreign: written in some language that is
// not a Dockerfile. BuildKit takes a syntax from a // comment or a JSON object
// too, and neither can begin a Dockerfile.
func findSyntax(file []byte, buildArgs map[string]string) (img *Image, foreign bool, err error) {
	ref, _, loc, ok := parser.ParseDirective("syntax", file)
	if !ok {
		ref, _, loc, ok = parser.DetectSyntax(file)
		foreign = ok
	}
	line := 0
	if ok {
		line = 1 // a JSON object has no line of its own
		if len(loc) > 0 {
			line = max(line, loc[0].Start.Line)
		}
	}
	what := "syntax=" + ref
	if arg, given := buildArgs[syntaxArg]; given {
		ref, _, _ = strings.Cut(strings.TrimSpace(arg), " ")
		line = 0
		what = syntaxArg + "=" + arg
	} else if !ok {
		return nil, false, nil
	}
	name, err := parseName(ref)
	if err != nil {
		return nil, foreign, errorfAt(file, line, "%s: %q is not an image name: %w", brief(what), brief(ref), err)
	}
	return &Image{Reference: ref, Name: name, Line: line, Kind: KindSyntax}, foreign, nil
}

// parseName qualifies a reference as BuildKit does before it asks a registry.
func parseName(ref string) (reference.Named, error) {
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	return reference.TagNameOnly(name), nil
}
