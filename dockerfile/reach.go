package dockerfile

import (
	"fmt"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
)

// reach marks all nodes that a build of root needs. What it needs it also has
// to be able to use: BuildKit builds stages in the order of the file, so that
// a source must come before its use. A stage that a context replaces is there
// from the beginning.
func (g *graph) reach(root *node) *Error {
	var todo []*node
	visit := func(n *node) {
		if !n.reached {
			n.reached = true
			todo = append(todo, n)
		}
	}
	visit(root)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, s := range n.sources {
			if !n.replacedStage() {
				if err := g.checkOrder(s, n); err != nil {
					return err
				}
			}
			visit(s.node)
		}
		if n.base == nil {
			found, err := g.fireStored(n)
			if err != nil {
				return err
			}
			for _, s := range found {
				visit(s.node)
			}
			continue
		}
		visit(n.base)
		if !n.base.fired {
			if err := g.fire(n.base); err != nil {
				return err
			}
			for _, s := range n.base.triggers {
				visit(s.node)
			}
		}
		// The sources are the same for all stages on one base, and if the last
		// of them comes before this stage, all do.
		if s := n.base.lastTrigger; s != nil {
			if err := g.checkOrder(*s, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkOrder returns an error if stage n uses a stage that comes after it. By
// an ONBUILD it may use itself as far as it got; otherwise that is a cycle.
func (g *graph) checkOrder(s source, n *node) *Error {
	if s.text == "" || s.node.index <= n.index || s.node.replacedStage() {
		return nil
	}
	return errorfAt(g.text, s.line, "%s: stage %s comes after stage %s, which needs it", s.text, s.node.stage, n.stage)
}

// fire finds the sources of the ONBUILD instructions of a stage. They run in
// the stages that build on it, and only then are they read.
func (g *graph) fire(n *node) *Error {
	if n.fired {
		return nil
	}
	n.fired = true
	for _, cmd := range n.onbuild {
		found, err := g.trigger(cmd.Expression, n, startLine(cmd.Location()), nil)
		if err != nil {
			return err
		}
		n.triggers = append(n.triggers, found...)
		for _, s := range found {
			if s.text != "" && !s.node.replacedStage() && (n.lastTrigger == nil || s.node.index > n.lastTrigger.node.index) {
				n.lastTrigger = &s
			}
		}
	}
	return nil
}

// fireStored finds the sources of the ONBUILD instructions in the image that a
// node has. They run in that stage, before its own. BuildKit also looks up what
// those of an image need that files are only taken from, though they do not run.
func (g *graph) fireStored(n *node) ([]source, *Error) {
	img := n.image()
	if g.stored == nil || img.Name == nil {
		return nil, nil
	}
	// An image that files are taken from has nothing more to say the second
	// time, and images may need each other in a circle.
	key := img.Name.String() + " " + platforms.FormatAll(n.platform)
	if n.index < 0 && g.storedSeen[key] {
		return nil, nil
	}
	if g.storedSeen == nil {
		g.storedSeen = make(map[string]bool)
	}
	g.storedSeen[key] = true
	var all []source
	for _, expression := range g.stored(img.Name, n.platform) {
		if g.storedCount++; g.storedCount > maxStored {
			return nil, errorfAt(g.text, n.line, "ONBUILD in %s: more than %d instructions in all", img.Name, maxStored)
		}
		found, err := g.trigger(expression, n, n.line, img.Name)
		if err != nil {
			err.Err = fmt.Errorf("ONBUILD in %s: %w", img.Name, err.Err)
			return nil, err
		}
		for _, s := range found {
			if n.index < 0 || n.replacedStage() {
				continue
			}
			if err := g.checkOrder(s, n); err != nil {
				return nil, err
			}
		}
		all = append(all, found...)
	}
	return all, nil
}

// trigger finds the sources of one ONBUILD instruction of a stage. stored is the
// image that has it, or nil.
func (g *graph) trigger(expression string, n *node, line int, stored reference.Named) ([]source, *Error) {
	cmd, err := parseTrigger(expression)
	if err != nil {
		// The lines in it are those of the trigger.
		return nil, errorAt(g.text, line, fromBuildKit(nil, err).Err)
	}
	before := len(g.nodes)
	found, ferr := g.sources(cmd, n, line)
	if ferr != nil {
		return nil, ferr
	}
	for _, made := range g.nodes[before:] {
		if made != g.nothing {
			made.onBuild = stored
		}
		if err := g.resolve(made); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// checkCycles refuses stages that copy or mount from each other in a circle,
// even where the target does not reach them. Bases cannot form one.
func (g *graph) checkCycles() *Error {
	const (
		open = 1 + iota // on the path
		done
	)
	type step struct {
		node *node
		next int // the source to look at
	}
	state := make([]byte, len(g.stages))
	for i := range g.stages {
		if state[i] != 0 {
			continue
		}
		state[i] = open
		// An explicit stack: a file may have a hundred thousand stages in a row.
		for path := []step{{node: g.nodes[i]}}; len(path) > 0; {
			at := &path[len(path)-1]
			if at.next == len(at.node.sources) {
				state[at.node.index] = done
				path = path[:len(path)-1]
				continue
			}
			s := at.node.sources[at.next]
			at.next++
			if s.node.index < 0 {
				continue
			}
			switch state[s.node.index] {
			case open:
				text := s.text
				if text == "" {
					text = "RUN --mount"
				}
				return errorfAt(g.text, s.line, "%s: stage %s needs itself", text, s.node.stage)
			case 0:
				state[s.node.index] = open
				path = append(path, step{node: s.node})
			}
		}
	}
	return nil
}
