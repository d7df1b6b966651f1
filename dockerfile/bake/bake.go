// Package bake finds the builds in Bake files, docker-bake.hcl and .json.
//
// It evaluates them with buildx's own parser (github.com/docker/buildx/bake/hclparser):
// variables, functions, matrices and references mean what they mean there. The
// rest of buildx, which merges targets and runs them, is large, and what of it
// decides about images is small: it is written out here.
package bake

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/buildx/bake/hclparser"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/dockerfile"
)

// A File is a Bake file: its name decides whether it is read as HCL or as JSON.
type File struct {
	Name string
	Text []byte
}

// Load returns the builds of the targets in some files, of which later ones
// override earlier ones, in the order of their lines. Paths are relative to the
// folder of the first file, as if bake were run there. environ has the
// variables of the environment, each as KEY=VALUE, which override those in the
// files.
//
// All targets count that a person can build: those in a group, those that
// another target copies from, and those that no other inherits from. A target
// that others inherit from and that is in no group is taken for a template, and
// so is one whose name begins with an underscore.
//
// services are the builds of Compose files that buildx would read before these
// files, for targets to inherit from and to override; they are not in the result
// by themselves.
//
// failed has one error for each target that cannot be made sense of, err says
// that nothing can.
func Load(files []File, services []dockerfile.Build, environ []string) (builds []dockerfile.Build, failed []error, err error) {
	if len(files) == 0 {
		return nil, nil, errors.New("no Bake file")
	}
	c, err := parse(files, environ)
	if err != nil {
		return nil, nil, err
	}
	folder := filepath.Dir(files[0].Name)
	wanted := c.wanted()
	c.addServices(services, folder)
	for _, t := range wanted {
		whole, err := c.resolve(t, map[*target]*target{})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		b, err := whole.build(folder)
		if err != nil {
			failed = append(failed, whole.errorf("%w", err))
			continue
		}
		builds = append(builds, b)
	}
	order := func(name string) int { return slices.IndexFunc(files, func(f File) bool { return f.Name == name }) }
	slices.SortStableFunc(builds, func(a, b dockerfile.Build) int {
		return cmp.Or(cmp.Compare(order(a.File), order(b.File)), cmp.Compare(a.Line, b.Line))
	})
	return builds, failed, nil
}

// parse evaluates the files.
func parse(files []File, environ []string) (c *config, err error) {
	env := make(map[string]string, len(environ))
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	var parsed []*hcl.File
	for _, f := range files {
		if err := checkNesting(f); err != nil {
			return nil, err
		}
		read := hclparse.NewParser().ParseHCL
		if strings.HasSuffix(f.Name, ".json") {
			read = hclparse.NewParser().ParseJSON
		}
		file, diags := read(f.Text, f.Name)
		if diags.HasErrors() {
			return nil, diagnosis(files, diags)
		}
		parsed = append(parsed, file)
	}
	defer func() {
		// It indexes labels that a block may not have.
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: not a valid Bake file (docker buildx bake --print says why)", files[0].Name)
		}
	}()
	c = &config{}
	meta, diags := hclparser.Parse(hclparser.MergeFiles(parsed), hclparser.Opt{
		LookupVar: func(key string) (string, bool) {
			v, ok := env[key]
			return v, ok
		},
		Vars: map[string]string{
			"BAKE_CMD_CONTEXT":    "cwd://",
			"BAKE_LOCAL_PLATFORM": platforms.Format(platforms.DefaultSpec()),
		},
		ValidateLabel: checkName,
	}, &c.blocks)
	if diags.HasErrors() {
		return nil, diagnosis(files, diags)
	}
	if len(c.Targets) == 0 && len(c.Groups) == 0 {
		return nil, fmt.Errorf("%s: not a Bake file: there are no targets in it", files[0].Name)
	}
	c.renamed = meta.Renamed["target"]
	c.files = files
	return c, nil
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("invalid name %q: only letters, digits, - and _ are allowed", name)
	}
	return nil
}

// diagnosis makes one error of what HCL found wrong: the first mistake, as the
// others often follow from it.
func diagnosis(files []File, diags hcl.Diagnostics) error {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		message := strings.ToLower(d.Summary[:min(1, len(d.Summary))]) + d.Summary[min(1, len(d.Summary)):]
		if d.Detail != "" {
			message += ": " + strings.Join(strings.Fields(d.Detail), " ")
		}
		message = strings.TrimSuffix(message, ".")
		if d.Subject == nil || d.Subject.Filename == "" {
			return fmt.Errorf("%s: %s", files[0].Name, message)
		}
		return fmt.Errorf("%s:%d: %s", d.Subject.Filename, d.Subject.Start.Line, message)
	}
	return diags
}

// build describes how a target is built. Its path is joined as buildx does it.
func (t *target) build(folder string) (dockerfile.Build, error) {
	b := dockerfile.Build{Name: t.Name, File: t.file, Line: t.line}
	b.Options = dockerfile.Options{Target: deref(t.Target), BuildArgs: map[string]string{}}
	for k, v := range t.Args {
		if v != nil {
			b.Options.BuildArgs[k] = *v
		}
	}
	if contexts := maps.Clone(t.Contexts); len(contexts) > 0 {
		maps.DeleteFunc(contexts, func(_, v string) bool { return v == "" })
		b.Options.Contexts = contexts
	}
	for _, word := range strings.FieldsFunc(strings.Join(t.Platforms, ","), func(r rune) bool { return r == ',' }) {
		p, err := parsePlatform(word)
		if err != nil {
			return b, fmt.Errorf("%q is not a platform such as linux/arm64: %w", word, err)
		}
		b.Options.Platforms = append(b.Options.Platforms, p)
	}
	if text := deref(t.DockerfileInline); text != "" {
		b.Text, b.TextLine = []byte(text), t.inlineLine
		return b, nil
	}
	path := cmp.Or(deref(t.Dockerfile), "Dockerfile")
	context := cmp.Or(deref(t.Context), ".")
	if path == "-" || context == "-" {
		return b, errors.New("bake builds nothing from standard input")
	}
	path, here := strings.CutPrefix(path, "cwd://")
	switch {
	case dockerfile.IsRemoteContext(path):
		b.Remote = path
		return b, nil
	case !here && dockerfile.IsRemoteContext(context):
		b.Remote = context
		return b, nil
	case !here && !filepath.IsAbs(path):
		path = filepath.Join(strings.TrimPrefix(context, "cwd://"), path)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(folder, path)
	}
	b.Dockerfile = filepath.Clean(path)
	return b, nil
}

func parsePlatform(word string) (v1.Platform, error) {
	if strings.EqualFold(word, "local") {
		return platforms.DefaultSpec(), nil
	}
	return platforms.Parse(word)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
