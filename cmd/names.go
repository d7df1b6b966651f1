package cmd

import (
	"strings"

	"github.com/agext/levenshtein"
	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"
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

// imagesAndLock reads what the commands take that work on images by name.
func imagesAndLock(c *cli.Context) ([]reference.Named, openedLock, error) {
	if !c.Args().Present() {
		return nil, openedLock{}, usageErrorf("%[1]s takes one image or more; see mirrorctl %[1]s --help", c.Command.Name)
	}
	names, err := parseNames(c.Args().Slice())
	if err != nil {
		return nil, openedLock{}, err
	}
	lock, err := openLock(c.String("lockfile"))
	return names, lock, err
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
	best, bestScore := "", 0.0
	for _, c := range candidates {
		enough := 0.6 // below it, a suggestion only confuses
		if s != "" && strings.HasPrefix(c, s[:1]) {
			enough = 0.5 // two letters of four are snyc for sync
		}
		score := levenshtein.Similarity(strings.ToLower(s), c, nil)
		if score >= enough && score > bestScore {
			best, bestScore = c, score
		}
	}
	return best
}
