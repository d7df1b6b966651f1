package dockerfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A few ARGs that each repeat the one before fill any memory, and a pattern in
// ${X//pattern/} costs its length times that of X. A word with variables may
// therefore have maxWord bytes, together with the values that go into it, and
// maxExpansion bounds the sum of the squares of that. A word without variables
// may have any length.
const (
	maxWord      = 8 << 10
	maxExpansion = 1 << 29
)

var errExpansion = errors.New("the variables in this line expand to too much text")

// scope holds the variables that FROM sees: the predefined ones, and the ARGs
// before the first FROM. It expands words with them.
type scope struct {
	lex      *shell.Lex
	values   map[string]string
	declared map[string]bool // the ARGs, with or without a value

	word  int // bytes in the word being expanded and its values so far
	spent int
}

// newScope evaluates the ARGs before the first FROM, in order.
func newScope(f *file, opts Options, target, build v1.Platform) (*scope, *Error) {
	stage := opts.Target
	if stage == "" {
		stage = f.stages[len(f.stages)-1].Name
	}
	if stage == "" {
		stage = "default"
	}
	s := &scope{
		lex: shell.NewLex(f.escape),
		values: map[string]string{
			"BUILDPLATFORM":   platforms.Format(build),
			"BUILDOS":         build.OS,
			"BUILDOSVERSION":  build.OSVersion,
			"BUILDARCH":       build.Architecture,
			"BUILDVARIANT":    build.Variant,
			"TARGETPLATFORM":  platforms.FormatAll(target),
			"TARGETOS":        target.OS,
			"TARGETOSVERSION": target.OSVersion,
			"TARGETARCH":      target.Architecture,
			"TARGETVARIANT":   target.Variant,
			"TARGETSTAGE":     stage,
		},
		declared: make(map[string]bool),
	}
	for k := range s.values {
		if v, ok := opts.BuildArgs[k]; ok {
			s.values[k] = v
		}
	}
	for _, cmd := range f.args {
		for _, arg := range cmd.Args {
			s.declared[arg.Key] = true
			if v, ok := opts.BuildArgs[arg.Key]; ok {
				s.values[arg.Key] = v // as it is: only defaults are expanded
				continue
			}
			if arg.Value == nil {
				continue
			}
			w, err := s.expand(*arg.Value)
			if err != nil {
				return nil, errorfAt(f.text, startLine(cmd.Location()), "ARG %s: %w", brief(arg.Key), err)
			}
			s.values[arg.Key] = w.Result
		}
	}
	s.normalizeEpoch(opts.BuildArgs)
	return s, nil
}

// normalizeEpoch writes SOURCE_DATE_EPOCH as BuildKit does before it expands
// any FROM: a number loses its leading zeros and plus sign. Another value names
// a source whose time is asked for during the build; without a build there is
// none.
func (s *scope) normalizeEpoch(buildArgs map[string]string) {
	const key = "SOURCE_DATE_EPOCH"
	v, declared := s.values[key]
	if !declared {
		return
	}
	if _, given := buildArgs[key]; v == "" && !given {
		return
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		s.values[key] = strconv.FormatInt(n, 10)
	} else {
		delete(s.values, key)
	}
}

// expand replaces the variables in a word and removes its quotes.
func (s *scope) expand(word string) (shell.ProcessWordResult, error) {
	if !strings.Contains(word, "$") {
		return s.lex.ProcessWordWithMatches(word, s)
	}
	s.word = len(word)
	if s.word > maxWord {
		return shell.ProcessWordResult{}, errExpansion
	}
	w, err := s.lex.ProcessWordWithMatches(word, s)
	s.spent += s.word * s.word
	if s.word > maxWord || s.spent > maxExpansion {
		return shell.ProcessWordResult{}, errExpansion
	}
	return w, err
}

// Get returns the value of a variable to BuildKit's lexer. Once a word is too
// long, values are empty, and expand returns an error in the end.
func (s *scope) Get(key string) (string, bool) {
	v, ok := s.values[key]
	if s.word+len(v) > maxWord {
		s.word = maxWord + 1
		return "", ok
	}
	s.word += len(v)
	return v, ok
}

// Keys is not used by the lexer, but by the linter, which is off.
func (s *scope) Keys() []string { return nil }

// used adds the variables in an expanded word, with their values, to args.
func (s *scope) used(args map[string]string, w shell.ProcessWordResult) map[string]string {
	for k := range w.Matched {
		if args == nil {
			args = make(map[string]string)
		}
		args[k] = s.values[k]
	}
	return args
}

// explain says which variables of an expanded word are empty, and what to do
// about it. It returns "" if there are none.
func (s *scope) explain(w shell.ProcessWordResult) string {
	names := slices.Sorted(maps.Keys(w.Unmatched))
	for _, k := range slices.Sorted(maps.Keys(w.Matched)) {
		if s.values[k] == "" {
			names = append(names, k)
		}
	}
	var why []string
	for _, k := range names {
		_, set := s.values[k]
		name := brief(k)
		switch {
		case set && !s.declared[k]:
			why = append(why, fmt.Sprintf("%s is empty for %s", name, brief(s.values["TARGETPLATFORM"])))
		case set:
			why = append(why, fmt.Sprintf("%s is empty: pass --build-arg %s=VALUE", name, name))
		case s.declared[k]:
			why = append(why, fmt.Sprintf("%s is not set and has no default: pass --build-arg %s=VALUE", name, name))
		default:
			why = append(why, fmt.Sprintf("%s is not declared: put ARG %s=VALUE before the first FROM", name, name))
		}
	}
	return strings.Join(why, "; ")
}

// noVariables is the scope of COPY --from, which may have none.
type noVariables struct{}

func (noVariables) Get(string) (string, bool) { return "", false }
func (noVariables) Keys() []string            { return nil }

// literal says whether a word is free of variables, quotes and escapes.
func (f *file) literal(word string) (bool, error) {
	w, err := shell.NewLex(f.escape).ProcessWordWithMatches(word, noVariables{})
	return w.Result == word, err
}

// mounts returns the sources of the mounts of a RUN, "" for one without.
func mounts(cmd *instructions.RunCommand) []string {
	list := instructions.GetMounts(cmd)
	from := make([]string, len(list))
	for i, m := range list {
		from[i] = m.From
	}
	return from
}
