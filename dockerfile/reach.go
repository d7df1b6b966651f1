package dockerfile

// reach marks all nodes that a build of root needs. What it needs it also has
// to be able to use: BuildKit builds stages in the order of the file, so that
// a source must come before its use.
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
			if err := g.checkOrder(s, n); err != nil {
				return err
			}
			visit(s.node)
		}
		if n.base == nil {
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
	if s.text == "" || s.node.index <= n.index {
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
		line := startLine(cmd.Location())
		trigger, err := parseTrigger(cmd.Expression)
		if err != nil {
			// The lines in it are those of the trigger.
			return errorAt(g.text, line, fromBuildKit(nil, err).Err)
		}
		before := len(g.nodes)
		found, ferr := g.sources(trigger, n, line)
		if ferr != nil {
			return ferr
		}
		for _, made := range g.nodes[before:] {
			if err := g.resolve(made); err != nil {
				return err
			}
		}
		n.triggers = append(n.triggers, found...)
		for _, s := range found {
			if s.text != "" && (n.lastTrigger == nil || s.node.index > n.lastTrigger.node.index) {
				n.lastTrigger = &s
			}
		}
	}
	return nil
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
