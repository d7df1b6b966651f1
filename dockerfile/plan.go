package dockerfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// scratch is the base that is no image. Only this spelling is.
const scratch = "scratch"

// A node is a stage, or an image that a COPY or a mount takes files from.
type node struct {
	ref      string          // the base or the image, expanded
	name     reference.Named // nil if ref is a stage or scratch
	platform v1.Platform
	kind     Kind
	line     int
	stage    string // the stage it is, or is used in
	onBuild  reference.Named
	args     map[string]string // the variables that ref and platform are made of

	index   int   // the place among the stages; -1 if it is none
	base    *node // the stage it builds on
	sources []source

	// replaced is the named context in its place. The instructions of a stage
	// that has one are not run, but BuildKit still reads them, and looks up what
	// they take files from.
	replaced *replacement

	onbuild []*instructions.OnbuildCommand

	// triggers are the sources of what onbuild holds, once some stage builds
	// on this one. They are kept here and not with each such stage, of which
	// there may be thousands.
	triggers    []source
	lastTrigger *source // the one whose stage comes last
	fired       bool

	reached bool
}

// replacedStage says that a context stands for the stage that n is.
func (n *node) replacedStage() bool { return n.replaced != nil && n.replaced.stage }

// A source is a use of a node by COPY --from or a mount.
type source struct {
	node *node
	line int
	text string // how the file says it; "" for a mount without from
}

// image returns the use of an image that n is; without a Name if n is none.
func (n *node) image() Image {
	img := Image{Reference: n.ref, Name: n.name, Line: n.line, Stage: n.stage, Kind: n.kind, OnBuild: n.onBuild, Args: n.args, Unreachable: !n.reached}
	if r := n.replaced; r != nil {
		img.Reference, img.Name, img.Context = r.ref, r.name, r.key
	}
	return img
}

// A graph is what one build for one platform needs.
type graph struct {
	*file
	scope    *scope
	contexts map[string]string

	// stored is Options.OnBuild; the images and instructions of it so far.
	stored      func(reference.Named, v1.Platform) []string
	storedSeen  map[string]bool
	storedCount int

	// nodes are the stages and behind them, in the order of the file, the
	// images. COPY --from=N counts through all of them, as it does in BuildKit.
	nodes  []*node
	byName map[string]*node

	target, build v1.Platform

	// nothing is the source of a mount without from. It takes a place in nodes
	// each time.
	nothing *node
}

// plan resolves the names of a file and marks what the target reaches. The
// steps and their order are BuildKit's, so that the same files fail.
func plan(f *file, opts Options, target, build v1.Platform) (*graph, *Error) {
	scope, err := newScope(f, opts, target, build)
	if err != nil {
		return nil, err
	}
	g := &graph{
		file:     f,
		scope:    scope,
		contexts: opts.Contexts,
		stored:   opts.OnBuild,
		byName:   make(map[string]*node),
		target:   target,
		build:    build,
		nothing:  &node{ref: scratch, index: -1},
	}
	if err := g.addStages(); err != nil {
		return nil, err
	}
	root := g.nodes[len(g.nodes)-1]
	if opts.Target != "" {
		var ok bool
		if root, ok = g.byName[strings.ToLower(opts.Target)]; !ok {
			return nil, g.noTarget(opts.Target)
		}
	}
	if err := g.connect(); err != nil {
		return nil, err
	}
	if err := g.checkCycles(); err != nil {
		return nil, err
	}
	for _, n := range g.nodes {
		if err := g.resolve(n); err != nil {
			return nil, err
		}
	}
	if !opts.AllStages {
		g.overlook(root, g.nodes)
	}
	if err := g.reach(root); err != nil {
		return nil, err
	}
	if err := g.checkContexts(opts.AllStages); err != nil {
		return nil, err
	}
	return g, nil
}

// addStages makes a node of each stage. The base is compared with the names of
// earlier stages only, letter by letter, and those are in lower case.
func (g *graph) addStages() *Error {
	for i, st := range g.stages {
		n := &node{
			platform: g.target,
			kind:     KindFrom,
			line:     startLine(st.Location),
			stage:    st.Name,
			index:    i,
		}
		if n.stage == "" {
			n.stage = strconv.Itoa(i)
		}
		w, err := g.scope.expand(st.BaseName)
		if err != nil {
			return errorfAt(g.text, n.line, "FROM %s: %w", brief(st.BaseName), err)
		}
		n.ref = w.Result
		n.args = g.scope.used(n.args, w)
		if n.ref == "" {
			why := g.scope.explain(w)
			if why == "" {
				why = "the image name is empty"
			}
			return errorfAt(g.text, n.line, "FROM %s: %s", brief(st.BaseName), why)
		}
		if st.Platform != "" {
			if n.platform, err = g.parsePlatform(st.Platform, n); err != nil {
				return errorfAt(g.text, n.line, "FROM --platform=%s: %w", brief(st.Platform), err)
			}
		}
		for _, cmd := range st.Commands {
			if c, ok := cmd.(*instructions.OnbuildCommand); ok {
				n.onbuild = append(n.onbuild, c)
			}
		}
		if st.Name != "" {
			if err := g.replaceStage(n, st.Name); err != nil {
				return errorfAt(g.text, n.line, "%w", err)
			}
		}
		if n.replaced == nil {
			n.base = g.byName[n.ref]
		}
		g.nodes = append(g.nodes, n)
		if st.Name != "" {
			g.byName[st.Name] = n
		}
	}
	return nil
}

// parsePlatform expands and reads the platform of a FROM. One that is only a
// system or only an architecture takes the rest from the machine that builds,
// which need not be this one. The variables in it are added to those of n.
func (g *graph) parsePlatform(word string, n *node) (v1.Platform, error) {
	w, err := g.scope.expand(word)
	if err != nil {
		return v1.Platform{}, err
	}
	n.args = g.scope.used(n.args, w)
	if w.Result == "" {
		if why := g.scope.explain(w); why != "" {
			return v1.Platform{}, errors.New(why)
		}
		return v1.Platform{}, errors.New("the platform is empty")
	}
	p, err := platforms.Parse(w.Result)
	if err != nil || strings.Contains(w.Result, "/") {
		return p, err
	}
	full, err := platforms.Parse(w.Result + "/" + g.build.Architecture)
	switch {
	case err != nil:
		return v1.Platform{}, err
	case full.OS == p.OS: // so the word is a system
		p.Architecture, p.Variant = g.build.Architecture, g.build.Variant
	default:
		p.OS = g.build.OS
	}
	return p, nil
}

// connect finds the sources of all stages, also of those that the target does
// not reach, because a bad one is an error anywhere.
func (g *graph) connect() *Error {
	for i, st := range g.stages {
		n := g.nodes[i]
		for _, cmd := range st.Commands {
			found, err := g.sources(cmd, n, startLine(cmd.Location()))
			if err != nil {
				return err
			}
			n.sources = append(n.sources, found...)
		}
	}
	return nil
}

// sources returns what an instruction of a stage takes files from, and makes
// nodes of the images among it.
func (g *graph) sources(cmd instructions.Command, stage *node, line int) ([]source, *Error) {
	switch c := cmd.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			return nil, nil
		}
		text := "COPY --from=" + brief(c.From)
		ok, err := g.literal(c.From)
		if err != nil {
			return nil, errorfAt(g.text, line, "%s: %w", text, err)
		}
		if !ok {
			return nil, errorfAt(g.text, line, "%s: variables and quotes are not expanded here: name a stage with FROM %s AS NAME, and copy from that", text, brief(c.From))
		}
		// Whatever is a number counts, with a sign or leading zeros too.
		i, err := strconv.Atoi(c.From)
		if err != nil {
			return []source{{g.lookup(c.From, KindCopy, stage, line), line, text}}, nil
		}
		if i < 0 || i >= len(g.nodes) {
			return nil, errorfAt(g.text, line, "%s: there is no stage %d", text, i)
		}
		return []source{{g.nodes[i], line, text}}, nil
	case *instructions.RunCommand:
		var found []source
		for _, from := range mounts(c) {
			// The type of a mount does not matter: it may be a variable, and
			// BuildKit looks up the image of a tmpfs too.
			text := "RUN --mount=from=" + brief(from)
			if from == "" {
				from, text = scratch, ""
			}
			found = append(found, source{g.lookup(from, KindMount, stage, line), line, text})
		}
		return found, nil
	}
	return nil, nil
}

// lookup returns the stage with a name, in any letter case and anywhere in the
// file, or else a new node for an image.
func (g *graph) lookup(ref string, kind Kind, stage *node, line int) *node {
	if n, ok := g.byName[strings.ToLower(ref)]; ok {
		return n
	}
	n := g.nothing
	if ref != scratch {
		n = &node{ref: ref, platform: g.target, kind: kind, line: line, stage: stage.stage, index: -1}
	}
	g.nodes = append(g.nodes, n)
	return n
}

// resolve gives a node its image name, unless it is a stage or scratch, and a
// named context for that name its place.
func (g *graph) resolve(n *node) *Error {
	if n.base != nil || n.ref == scratch || n.name != nil {
		return nil
	}
	var err error
	if n.name, err = parseName(n.ref); err == nil {
		if n.replaced == nil {
			n.replaced = g.replace(n.name, n.platform)
		}
		return nil
	}
	switch n.kind {
	case KindCopy:
		return errorfAt(g.text, n.line, "COPY --from=%s: not a stage, and not an image name: %w", brief(n.ref), err)
	case KindMount:
		return errorfAt(g.text, n.line, "RUN --mount=from=%s: not a stage, and not an image name: %w", brief(n.ref), err)
	}
	word := g.stages[n.index].BaseName
	if word == n.ref {
		return errorfAt(g.text, n.line, "FROM %s: not an image name: %w", brief(word), err)
	}
	// The word was expanded once without an error, so it is again.
	if w, again := g.scope.expand(word); again == nil {
		if why := g.scope.explain(w); why != "" {
			err = fmt.Errorf("%w (%s)", err, why)
		}
	}
	return errorfAt(g.text, n.line, "FROM %s: %q is not an image name: %w", brief(word), brief(n.ref), err)
}

func (g *graph) noTarget(name string) *Error {
	var names []string
	for _, st := range g.stages {
		if st.Name == "" || slices.Contains(names, st.Name) {
			continue
		}
		if len(names) == 10 {
			names = append(names, "...")
			break
		}
		names = append(names, brief(st.Name))
	}
	if len(names) == 0 {
		return errorfAt(g.text, 0, "there is no stage %q: no stage in the file has a name", brief(name))
	}
	return errorfAt(g.text, 0, "there is no stage %q: the file has %s", brief(name), strings.Join(names, ", "))
}
