package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"mirrorctl/dockerfile"
	"mirrorctl/serve"
	"mirrorctl/store"
)

// use is one place where a file needs an image. Its JSON is what find prints.
type use struct {
	place
	Args map[string]string `json:"args,omitempty"` // the variables that Name is made of

	named reference.Named
}

// place is what tells one use from another.
type place struct {
	Name  string `json:"name"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Stage string `json:"stage"`
	Kind  string `json:"kind"`

	Unreachable bool   `json:"unreachable,omitempty"`
	Context     string `json:"context,omitempty"` // the named context that is this image
	Via         string `json:"via,omitempty"`     // the Compose or Bake file that says how File is built
	Build       string `json:"build,omitempty"`   // the service or target in Via
}

// root is the file that was looked through: the one that a lock names.
func (u use) root() string {
	if u.Via != "" {
		return u.Via
	}
	return u.File
}

// detail is the kind of use for people, with what else is to be known.
func (u use) detail() string {
	kind := u.Kind
	if u.Context != "" {
		kind += " (context " + u.Context + ")"
	}
	if u.Unreachable {
		kind += " (unreachable)"
	}
	if u.Via != "" && u.Via != u.File {
		kind += " (" + u.Via + ": " + u.Build + ")"
	}
	return kind
}

// args are the variables as an ARG instruction would give them.
func (u use) args() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(u.Args)) {
		all = append(all, k+"="+u.Args[k])
	}
	return strings.Join(all, " ")
}

func (u use) where() string {
	if u.Line == 0 {
		return u.File
	}
	return fmt.Sprintf("%s:%d", u.File, u.Line)
}

// discovery is what was found in the files and folders of a command line.
type discovery struct {
	uses    []use
	files   []string // those that could be read and parsed
	folders []string // those that were searched
	failed  []error  // one per file that could not

	warnings []string
}

// discoverFlags are the flags that say which build is meant.
func discoverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "target", Usage: "find what `STAGE` needs (default: the last stage); Compose and Bake files have their own"},
		&cli.BoolFlag{Name: "all-stages", Usage: "find what any stage needs"},
		&cli.StringSliceFlag{Name: "platform", Usage: "find what a build for `OS/ARCH` needs, where names depend on it (default: linux/amd64 and linux/arm64)"},
		&cli.StringSliceFlag{Name: "build-arg", Usage: "set a build argument, `KEY=VALUE`, or KEY to take it from the environment"},
		&cli.StringSliceFlag{Name: "build-context", Usage: "put `NAME=VALUE` in the place of a stage or an image, as buildx does; docker-image://REF is an image"},
		&cli.BoolFlag{Name: "with-builder-images", Usage: "also take the images that a builder itself needs: BuildKit, and its SBOM scanner"},
	}
}

func (p *program) discoverOptions(c *cli.Context) (dockerfile.Options, error) {
	opts := dockerfile.Options{Target: c.String("target"), AllStages: c.Bool("all-stages"), BuildArgs: map[string]string{}}
	for _, arg := range c.StringSlice("build-arg") {
		key, value, given := strings.Cut(arg, "=")
		if key == "" {
			return opts, usageErrorf("--build-arg %q: must be KEY=VALUE", arg)
		}
		if !given {
			value = p.getenv(key)
		}
		opts.BuildArgs[key] = value
	}
	for _, arg := range c.StringSlice("build-context") {
		name, value, given := strings.Cut(arg, "=")
		key, err := dockerfile.ContextName(name)
		if !given || err != nil {
			return opts, usageErrorf("--build-context %q: must be NAME=VALUE, such as base=docker-image://alpine:3.20", arg)
		}
		if opts.Contexts == nil {
			opts.Contexts = map[string]string{}
		}
		opts.Contexts[key] = value
	}
	for _, s := range c.StringSlice("platform") {
		platform, err := platforms.Parse(s)
		if err != nil {
			return opts, usageErrorf("--platform %q: must be OS/ARCH, such as linux/arm64", s)
		}
		opts.Platforms = append(opts.Platforms, platform)
	}
	return opts, nil
}

// onBuild is dockerfile.Options.OnBuild, nil where the triggers of images do not
// count.
type onBuild = func(reference.Named, v1.Platform) []string

// discover looks through the files and folders that paths name, the current
// folder if there are none. What is wrong with single files is in the result.
func (p *program) discover(c *cli.Context, paths []string, triggers onBuild) (discovery, error) {
	opts, err := p.discoverOptions(c)
	if err != nil {
		return discovery{}, err
	}
	opts.OnBuild = triggers
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var d discovery
	sources, err := d.sources(paths)
	if err != nil {
		return d, err
	}
	// Projects first: Dockerfiles beside them may be what they build.
	found := make([]finding, len(sources))
	err = p.lookAll(c.Context, sources, found, opts, func(s source) bool { return s.kind != dockerfileSource })
	if err != nil {
		return d, err
	}
	describe(sources, found)
	err = p.lookAll(c.Context, sources, found, opts, func(s source) bool { return s.kind == dockerfileSource })
	if err != nil {
		return d, err
	}
	p.merge(&d, sources, found)
	if c.Bool("with-builder-images") && len(d.files) > 0 {
		for _, image := range builderImages {
			name, err := parseName(image)
			if err != nil {
				return d, err
			}
			d.uses = append(d.uses, use{place: place{Name: name.String(), Kind: "builder"}, named: name})
		}
	}
	if err := p.behindMirror(d.uses); err != nil {
		return d, err
	}
	return d, nil
}

// lookAll looks through those sources that are picked, several at a time. When
// ctx ends it returns at once, whatever is still under way.
func (p *program) lookAll(ctx context.Context, sources []source, found []finding, opts dockerfile.Options, pick func(source) bool) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		slots := make(chan struct{}, runtime.GOMAXPROCS(0))
		for i, s := range sources {
			if !pick(s) || ctx.Err() != nil {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				found[i] = p.look(ctx, s, opts)
			})
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// describe gives Dockerfiles that were come across the builds of them that
// Compose and Bake files describe. What these put in the place of an image, or
// make themselves, is none that a registry has.
func describe(sources []source, found []finding) {
	byFile := map[string][]dockerfile.Build{}
	for _, f := range found {
		for _, b := range f.built {
			byFile[b.Dockerfile] = append(byFile[b.Dockerfile], b)
		}
	}
	for i, s := range sources {
		if s.kind == dockerfileSource && !s.named {
			sources[i].builds = byFile[s.files[0]]
		}
	}
}

// builderImages are what a builder pulls for itself, whatever it builds: buildx
// starts the first as a container, and runs the second where an SBOM is wanted.
var builderImages = []string{"moby/buildkit:buildx-stable-1", "docker/buildkit-syft-scanner:stable-1"}

// merge puts together what was found, in the order of the sources.
func (p *program) merge(d *discovery, sources []source, found []finding) {
	for i, f := range found {
		s := sources[i]
		// A Dockerfile that was come across, and that only builds with what
		// another file says, has been looked at with that.
		if len(f.failed) > 0 && len(s.builds) > 0 {
			continue
		}
		d.warnings = append(d.warnings, f.warnings...)
		d.failed = append(d.failed, f.failed...)
		d.uses = append(d.uses, f.uses...)
		if len(f.failed) == 0 {
			d.files = append(d.files, s.files[0])
		}
	}
}

// behindMirror puts the image behind it in the place of each that is named by an
// address of this mirror.
func (p *program) behindMirror(uses []use) error {
	for i, u := range uses {
		behind, err := p.behind(u.named)
		if errors.As(err, new(*codedError)) {
			return err
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", u.where(), u.Name, err)
		}
		uses[i].named, uses[i].Name = behind, behind.String()
	}
	return nil
}

// behind returns the image that is meant by a name with an address of this
// mirror, and any other name as it is.
func (p *program) behind(name reference.Named) (reference.Named, error) {
	host := reference.Domain(name)
	if !slices.ContainsFunc(p.config.MirrorHosts, func(h string) bool { return strings.EqualFold(h, host) }) {
		return name, nil
	}
	names := serve.Options{DefaultRegistry: p.config.Serve.one("default_registry"), Aliases: p.config.Serve.Aliases, Hosts: p.config.Serve.Hosts}
	repo, ok, err := names.Behind(host, reference.Path(name))
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	if !ok {
		return name, nil // no mirror has it; the sync will say so
	}
	behind, err := reference.ParseNormalizedNamed(repo.Registry + "/" + repo.Path + strings.TrimPrefix(name.String(), name.Name()))
	if err != nil {
		return nil, err
	}
	return canonical(behind), nil
}

// cause is the reason in an error about a file or an address that has been said.
func cause(err error) error {
	var inPath *fs.PathError
	var inNet *net.OpError
	switch {
	case errors.As(err, &inPath):
		return inPath.Err
	case errors.As(err, &inNet):
		return inNet.Err
	}
	return err
}

// canonical gives Docker Hub its one name.
func canonical(name reference.Named) reference.Named {
	repo, _ := store.Locate(name)
	if repo.Registry != "registry-1.docker.io" {
		return name
	}
	renamed, err := reference.ParseNormalizedNamed("docker.io" + strings.TrimPrefix(name.String(), repo.Registry))
	if err != nil {
		return name
	}
	return renamed
}
