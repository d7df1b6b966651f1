package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"

	"github.com/distribution/reference"

	"mirrorctl/dockerfile"
	"mirrorctl/dockerfile/bake"
	"mirrorctl/dockerfile/compose"
)

// A finding is what was found in one source.
type finding struct {
	uses     []use
	built    []string // the Dockerfiles that a Compose or Bake file builds, and that could be read
	warnings []string
	failed   []error
}

// look looks through a source.
func (p *program) look(ctx context.Context, s source, opts dockerfile.Options) finding {
	var f finding
	switch {
	case s.err != nil:
		f.failed = append(f.failed, s.err)
	case s.kind == composeSource:
		p.lookCompose(ctx, &f, s, opts)
	case s.kind == bakeSource:
		p.lookBake(&f, s, opts)
	default:
		uses, warnings, err := p.readDockerfile(s.files[0], opts)
		f.uses, f.warnings = uses, warnings
		if err != nil {
			f.failed = append(f.failed, err)
		}
	}
	return f
}

// hasFrom tells a Dockerfile with a mistake from another kind of file.
var hasFrom = regexp.MustCompile(`(?mi)^[ \t]*FROM[ \t]`)

// readDockerfile finds the images in a Dockerfile.
func (p *program) readDockerfile(file string, opts dockerfile.Options) ([]use, []string, error) {
	content, err := readFile(file, p.stdin)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, cause(err))
	}
	uses, warnings, err := findUses(content, file, opts, func(line int) int { return line })
	if err != nil && file != "-" && !isDockerfile(filepath.Base(file)) && len(content) > 0 && !hasFrom.Match(content) {
		err = fmt.Errorf("%s: not a file that images are found in: neither a Dockerfile, nor by its name a Compose file (*.yaml) or a Bake file (*.hcl, *.json)", file)
	}
	return uses, warnings, err
}

// findUses finds the images in the text of a Dockerfile. place tells the line in
// file for a line of the text.
func findUses(text []byte, file string, opts dockerfile.Options, place func(line int) int) (uses []use, warnings []string, err error) {
	result, err := dockerfile.Find(text, opts)
	var bad *dockerfile.Error
	if errors.As(err, &bad) {
		bad.Line = place(bad.Line)
	}
	if err != nil {
		return nil, nil, fileError(file, err)
	}
	for _, skipped := range result.Skipped {
		skipped.Line = place(skipped.Line)
		warnings = append(warnings, fmt.Sprintf("%v, so %s is not looked at there", fileError(file, skipped), file))
	}
	for _, image := range result.Images {
		u := newUse(image.Name, file, place(image.Line), string(image.Kind))
		u.Stage, u.Unreachable, u.Context, u.Args = image.Stage, image.Unreachable, image.Context, image.Args
		uses = append(uses, u)
	}
	return uses, warnings, nil
}

func newUse(name reference.Named, file string, line int, kind string) use {
	name = canonical(name)
	return use{place: place{Name: name.String(), File: filepath.ToSlash(file), Line: line, Kind: kind}, named: name}
}

// kindCompose is the kind of use of an image that a service runs as it is.
const kindCompose = "compose"

func (p *program) lookCompose(ctx context.Context, f *finding, s source, opts dockerfile.Options) {
	project, err := compose.Load(ctx, s.files, os.Environ())
	if err != nil {
		f.failed = append(f.failed, err)
		return
	}
	f.failed = append(f.failed, project.Failed...)
	for _, image := range project.Images {
		u := newUse(image.Name, image.File, image.Line, kindCompose)
		u.Via, u.Build = filepath.ToSlash(s.files[0]), image.Service
		f.uses = append(f.uses, u)
	}
	p.lookBuilds(f, s, "service", project.Builds, opts)
}

func (p *program) lookBake(f *finding, s source, opts dockerfile.Options) {
	var files []bake.File
	for _, name := range s.files {
		content, err := readFile(name, p.stdin)
		if err != nil {
			f.failed = append(f.failed, fmt.Errorf("%s: %w", name, cause(err)))
			return
		}
		files = append(files, bake.File{Name: name, Text: content})
	}
	builds, err := bake.Load(files, os.Environ())
	if err != nil {
		f.failed = append(f.failed, err)
		return
	}
	p.lookBuilds(f, s, "target", builds, opts)
}

// lookBuilds finds the images of the builds that a Compose or Bake file
// describes. Flags go before what the file says, but for the stage to build.
func (p *program) lookBuilds(f *finding, s source, what string, builds []dockerfile.Build, flags dockerfile.Options) {
	for _, b := range builds {
		opts := b.Options
		opts.AllStages, opts.OnBuild = flags.AllStages, flags.OnBuild
		opts.BuildArgs = overlay(b.Options.BuildArgs, flags.BuildArgs)
		opts.Contexts = overlay(b.Options.Contexts, flags.Contexts)
		if len(flags.Platforms) > 0 {
			opts.Platforms = flags.Platforms
		}
		at := b.File
		if b.Line > 0 {
			at = fmt.Sprintf("%s:%d", b.File, b.Line)
		}
		var uses []use
		var warnings []string
		var err error
		switch {
		case b.Remote != "":
			warnings = []string{fmt.Sprintf("%s: %s %s is built from %s, which is not looked at; find in a copy of it", at, what, b.Name, b.Remote)}
		case b.Text != nil:
			uses, warnings, err = findUses(b.Text, b.File, opts, b.Place)
		default:
			if uses, warnings, err = p.readDockerfile(b.Dockerfile, opts); err != nil {
				err = fmt.Errorf("%s: %s %s: %w", at, what, b.Name, err)
			} else {
				f.built = append(f.built, b.Dockerfile)
			}
		}
		if err != nil {
			f.failed = append(f.failed, err)
			continue
		}
		f.warnings = append(f.warnings, warnings...)
		for _, u := range uses {
			u.Via, u.Build = filepath.ToSlash(s.files[0]), b.Name
			f.uses = append(f.uses, u)
		}
	}
}

// overlay returns both maps as one; what is in over goes first.
func overlay(under, over map[string]string) map[string]string {
	if len(under) == 0 {
		return over
	}
	out := maps.Clone(under)
	maps.Copy(out, over)
	return out
}
