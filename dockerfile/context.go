package dockerfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageContext is what the value of a named context that is an image begins
// with. buildx takes all others for something that is no image: a folder, a
// repository, an archive, a layout of its own, another target.
const imageContext = "docker-image://"

// ContextName returns the key in Options.Contexts for the name that a person
// gives a context with --build-context: as buildx does, docker.io and the tag
// latest are left out of the name of an image.
func ContextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("%q is not the name of a stage or an image: %w", brief(name), err)
	}
	return contextKey(named), nil
}

func contextKey(named reference.Named) string {
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest")
}

// A replacement is a named context in the place of a stage or an image.
type replacement struct {
	key   string // its name in Options.Contexts
	stage bool   // it has the name of a stage, and stands for all of it

	// What it is: an image, or if name is nil and err too, nothing that is
	// looked up. BuildKit reads the value only once it needs it, so that err is
	// one only for what the target reaches.
	ref  string
	name reference.Named
	err  error
}

// replace returns the context for a stage or image name, or nil. One for the
// platform, NAME::OS/ARCH, goes before one for all.
func (g *graph) replace(named reference.Named, p v1.Platform) *replacement {
	if len(g.contexts) == 0 {
		return nil
	}
	key := contextKey(named)
	forPlatform := key + "::" + platforms.FormatAll(platforms.Normalize(p))
	value, ok := g.contexts[forPlatform]
	if ok {
		key = forPlatform
	} else if value, ok = g.contexts[key]; !ok {
		return nil
	}
	r := &replacement{key: key}
	ref, isImage := strings.CutPrefix(value, imageContext)
	if !isImage || ref == scratch {
		return r
	}
	r.ref = ref
	if r.name, r.err = parseName(ref); r.err != nil {
		r.name = nil
	}
	return r
}

// replaceStage looks for a context in the place of a stage. BuildKit looks up
// the name of every stage as that of an image, and takes no stage whose name
// could not be one, even if the build has no contexts.
func (g *graph) replaceStage(n *node, name string) error {
	// These two mean something else, and are never replaced.
	if strings.EqualFold(name, scratch) || strings.EqualFold(name, "context") {
		return nil
	}
	if len(g.contexts) == 0 && plain(name) {
		return nil // which spares a file with many stages the check
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return fmt.Errorf("BuildKit does not take %q as the name of a stage: %w", brief(name), err)
	}
	if n.replaced = g.replace(named, n.platform); n.replaced != nil {
		n.replaced.stage = true
	}
	return nil
}

// plain says that a name is certainly one that an image could have.
func plain(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(name) < 64 // 64 may be a digest
}

// overlook takes the contexts from those images that BuildKit pulls without a
// look at them or at its contexts: what a stage copies or mounts from, where
// that stage is needed only because of an ONBUILD instruction. When BuildKit
// first goes through the images nothing needs such a one, and it never comes
// back to it. images are those that were there before any ONBUILD was read.
func (g *graph) overlook(root *node, images []*node) {
	hasTriggers := g.stored != nil || slices.ContainsFunc(g.nodes, func(n *node) bool { return len(n.onbuild) > 0 })
	if len(g.contexts) == 0 || !hasTriggers {
		return
	}
	seen := map[*node]bool{root: true}
	for todo := []*node{root}; len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		next := make([]*node, 0, len(n.sources)+1)
		if n.base != nil {
			next = append(next, n.base)
		}
		for _, s := range n.sources {
			next = append(next, s.node)
		}
		for _, m := range next {
			if !seen[m] {
				seen[m] = true
				todo = append(todo, m)
			}
		}
	}
	for _, n := range images {
		if n.index < 0 && !seen[n] {
			n.replaced = nil
		}
	}
}

// checkContexts returns an error if the build needs a context whose image has no
// name that is one.
func (g *graph) checkContexts(all bool) *Error {
	for _, n := range g.nodes {
		if r := n.replaced; r != nil && r.err != nil && (n.reached || all) {
			return errorfAt(g.text, n.line, "the context %s: %q is not an image name: %w", brief(r.key), brief(r.ref), r.err)
		}
	}
	return nil
}
