package cmd

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/distribution/reference"

	"mirrorctl/store"
)

// parseName makes the fully qualified name of what a person types: ubuntu,
// ubuntu:20.04, docker.io/library/ubuntu@sha256:....
func parseName(s string) (reference.Named, error) {
	name, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, usageErrorf("%q is not an image: %v", s, err)
	}
	return reference.TagNameOnly(name), nil
}

func parseNames(args []string) ([]reference.Named, error) {
	names := make([]reference.Named, len(args))
	for i, arg := range args {
		var err error
		if names[i], err = parseName(arg); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// parsePinName makes the name of a pin, whose parts are known to be valid.
func parsePinName(p store.Pin) (reference.Named, error) {
	name, err := reference.ParseNormalizedNamed(p.Name())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name(), err)
	}
	return name, nil
}

// familiar is the short form of a name that people type, ubuntu:20.04.
func familiar(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

// nearest returns the candidate that s was most likely meant to be, or "".
func nearest(s string, candidates []string) string {
	best, bestScore := "", 0.6 // below it, a suggestion only confuses
	for _, c := range candidates {
		if score := levenshtein.Similarity(strings.ToLower(s), c, nil); score > bestScore {
			best, bestScore = c, score
		}
	}
	return best
}
