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
	lower := []rune(strings.ToLower(s))
	for _, c := range candidates {
		enough := 0.6 // below it, a suggestion only confuses
		if s != "" && strings.HasPrefix(c, s[:1]) {
			enough = 0.5 // two letters of four are snyc for sync
		}
		// The similarity is one minus the edits for each letter of the longer
		// one. There may be many candidates, so the edits are counted only where
		// the letters, in whatever order, leave a chance.
		letters := []rune(c)
		longer := float64(max(len(lower), len(letters)))
		possible := 1 - float64(fewestEdits(lower, letters))/longer
		if possible < enough || possible <= bestScore {
			continue
		}
		edits, _, _ := levenshtein.Calculate(lower, letters, 0, 1, 1, 1) // its maximum of edits does not work
		if score := 1 - float64(edits)/longer; score >= enough && score > bestScore {
			best, bestScore = c, score
		}
	}
	return best
}

// fewestEdits is how many edits it takes at least to make a of b: each changes
// one letter to another, or adds or drops one.
func fewestEdits(a, b []rune) int {
	var counts [64]int // letters that share a place only make the result smaller
	for _, r := range a {
		counts[r&63]++
	}
	for _, r := range b {
		counts[r&63]--
	}
	more, less := 0, 0
	for _, n := range counts {
		if n > 0 {
			more += n
		} else {
			less -= n
		}
	}
	return max(more, less)
}
