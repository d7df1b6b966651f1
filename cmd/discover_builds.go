package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/dockerfile"
)

// A finding is what was found in one source.
type finding struct {
	uses     []use
	built    []dockerfile.Build // what a Compose or Bake file builds from Dockerfiles that could be read
	warnings []string
	failed   []error
}

// look looks through a source.
func (p *program) look(ctx context.Context, s source, opts dockerfile.Options) finding {
	var f finding
	switch {
	case s.err != nil:
		f.failed = append(f.failed, s.err)
	case s.kind != dockerfileSource:
		p.lookProject(ctx, &f, s, opts)
	default:
		uses, warnings, err := p.lookDockerfile(s, opts)
		f.uses, f.warnings = uses, warnings
		if err != nil {
			f.failed = append(f.failed, err)
		}
	}
	return f
}

// isOther tells another kind of file from a Dockerfile with a mistake. Nothing of
// what is in it is shown.
func isOther(file string, content []byte) bool {
	return file != "-" && !isDockerfile(filepath.Base(file)) && len(content) > 0 && !hasFrom.Match(content)
}

var hasFrom = regexp.MustCompile(`(?mi)^[ \t]*FROM[ \t]`)

// lookDockerfile finds the images in a Dockerfile that is a source.
func (p *program) lookDockerfile(s source, opts dockerfile.Options) ([]use, []string, error) {
	file := s.files[0]
	content, err := p.readSource(s)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, cause(err))
	}
	var made []string
	for _, b := range s.builds {
		opts.Contexts = overlay(b.Options.Contexts, opts.Contexts)
		made = append(made, b.Made...)
	}
	uses, warnings, err := findUses(content, file, withMade(opts, made), sameLine)
	uses = without(uses, made)
	if err != nil && isOther(file, content) {
		err = fmt.Errorf("%s: not a file that images are found in: neither a Dockerfile, nor by its name a Compose file (*.yaml) or a Bake file (*.hcl, *.json)", file)
	}
	return uses, warnings, err
}

func sameLine(line int) int { return line }

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

// lookProject finds the images of what a Compose or Bake file describes.
func (p *program) lookProject(ctx context.Context, f *finding, s source, opts dockerfile.Options) {
	project, err := p.evaluate(ctx, s)
	if err != nil {
		f.failed = append(f.failed, err)
		return
	}
	for _, failed := range project.Failed {
		f.failed = append(f.failed, errors.New(failed))
	}
	for _, image := range project.Images {
		u, err := image.use(filepath.ToSlash(s.files[0]))
		if err != nil {
			f.failed = append(f.failed, err)
			continue
		}
		f.uses = append(f.uses, u)
	}
	what := "service"
	if s.kind == bakeSource {
		what = "target"
	}
	p.lookBuilds(ctx, f, s, what, project.Builds, opts)
}

// maxDescribed bounds the work for one source: the bytes of the Dockerfiles that
// it describes builds of, each time it does.
const maxDescribed = 256 << 20

// lookBuilds finds the images of the builds that a Compose or Bake file
// describes. Flags go before what the file says, but for the stage to build.
func (p *program) lookBuilds(ctx context.Context, f *finding, s source, what string, builds []dockerfile.Build, flags dockerfile.Options) {
	described := 0
	for _, b := range builds {
		at := b.File
		if b.Line > 0 {
			at = fmt.Sprintf("%s:%d", b.File, b.Line)
		}
		if b.Remote != "" {
			f.warnings = append(f.warnings, fmt.Sprintf("%s: %s %s is built from %s, which is not looked at; find in a copy of it", at, what, b.Name, b.Remote))
			continue
		}
		text, file, place := b.Text, b.File, b.Place
		if text == nil {
			var err error
			if text, file, err = readBuilt(b.Dockerfile); err != nil {
				f.failed = append(f.failed, fmt.Errorf("%s: %s %s: %s: %w", at, what, b.Name, b.Dockerfile, cause(err)))
				continue
			}
			b.Dockerfile, place = file, sameLine
			f.built = append(f.built, b)
		}
		if described += len(text); described > maxDescribed || ctx.Err() != nil {
			f.failed = append(f.failed, cmp.Or(ctx.Err(), fmt.Errorf("%s: %s %s: the Dockerfiles of all builds up to here have more than %d MiB, which is too much", at, what, b.Name, maxDescribed>>20)))
			return
		}
		opts := b.Options
		opts.AllStages, opts.OnBuild = flags.AllStages, flags.OnBuild
		opts.BuildArgs = overlay(b.Options.BuildArgs, flags.BuildArgs)
		opts.Contexts = overlay(b.Options.Contexts, flags.Contexts)
		if len(flags.Platforms) > 0 {
			opts.Platforms = flags.Platforms
		}
		uses, warnings, err := findKnown(text, file, opts, place, b, flags)
		if err != nil {
			if b.Text == nil && isOther(file, text) {
				err = fmt.Errorf("%s: not a Dockerfile", file)
			}
			if b.Text == nil {
				err = fmt.Errorf("%s: %s %s: %w", at, what, b.Name, err)
			}
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

// readBuilt reads the Dockerfile of a build. Its usual name may be in lower case.
func readBuilt(file string) (text []byte, name string, err error) {
	text, err = readRegular(file, maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(file) == "Dockerfile" {
		lower := filepath.Join(filepath.Dir(file), "dockerfile")
		if text, again := readRegular(lower, maxDockerfile); again == nil {
			return text, lower, nil
		}
	}
	return text, file, err
}

// findKnown is findUses for a build, of whose arguments some may not be known:
// that is an error if it makes a difference.
func findKnown(text []byte, file string, opts dockerfile.Options, place func(line int) int, b dockerfile.Build, flags dockerfile.Options) ([]use, []string, error) {
	opts = withMade(opts, b.Made)
	uses, warnings, err := findUses(text, file, opts, place)
	other, why := maps.Clone(opts.BuildArgs), ""
	for _, k := range slices.Sorted(maps.Keys(b.Unknown)) {
		if _, given := flags.BuildArgs[k]; !given {
			other[k] += "0"
			why = cmp.Or(why, b.Unknown[k])
		}
	}
	if why != "" {
		opts.BuildArgs = other
		same, _, again := findUses(text, file, opts, place)
		if fmt.Sprint(err) != fmt.Sprint(again) || !slices.EqualFunc(uses, same, func(a, b use) bool { return a.place == b.place }) {
			return nil, nil, fmt.Errorf("build: args: %s", why)
		}
	}
	return without(uses, b.Made), warnings, err
}

// withMade keeps images that are built from being asked for ONBUILD instructions.
func withMade(opts dockerfile.Options, made []string) dockerfile.Options {
	if ask := opts.OnBuild; ask != nil && len(made) > 0 {
		opts.OnBuild = func(name reference.Named, platform v1.Platform) []string {
			if slices.Contains(made, name.String()) {
				return nil
			}
			return ask(name, platform)
		}
	}
	return opts
}

// without returns the uses of all images but those that are built.
func without(uses []use, made []string) []use {
	return slices.DeleteFunc(uses, func(u use) bool { return slices.Contains(made, u.Name) })
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
