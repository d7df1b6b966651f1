// Package compose finds the images and the builds in Compose files.
//
// It reads them with the Compose specification's own library, as docker compose
// does: several files merged, variables of the environment and of .env put in,
// includes and extends followed, all profiles on. Nothing is fetched, and no
// file is read but these: an env_file of a service need not be there. What only
// matters when containers run is not checked.
package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/dockerfile"
)

// An Image is an image that a service uses as it is.
type Image struct {
	Reference string // what the file says, with variables replaced

	// Name is the fully qualified name, with the tag latest added to a
	// reference that has neither tag nor digest.
	Name reference.Named

	Service string

	// File is the path of the file that says it, as it was given, and Line
	// where, from 1; 0 if another file says it that this one includes.
	File string
	Line int

	Platforms []v1.Platform // what the service asks for; often nothing
}

// A Project is what was found in the files of one project, in the order of the
// files' lines.
type Project struct {
	Images []Image
	Builds []dockerfile.Build

	// Failed has one error for each service whose image or build cannot be
	// made sense of. Each begins with file and line.
	Failed []error
}

// Load reads the files of one project: the first, and those that override it.
// Paths in them are relative to the folder of the first. environ has the
// variables of the environment, each as KEY=VALUE; those in a file .env beside
// the first file come second, as with docker compose.
//
// An image that a service of the project builds is not one that it uses: with
// both build and image, image is the name for what is built.
func Load(ctx context.Context, files []string, environ []string) (*Project, error) {
	if len(files) == 0 {
		return nil, errors.New("no Compose file")
	}
	l, err := newLoader(files, environ)
	if err != nil {
		return nil, err
	}
	model, err := l.load(ctx)
	if err != nil {
		return nil, err
	}
	p := &Project{}
	var all []workload
	for _, name := range slices.Sorted(maps.Keys(model.Services)) {
		s := model.Services[name]
		all = append(all, workload{"services", name, s.ContainerSpec, s.Build, s.PreStart, s.Provider != nil})
	}
	for _, name := range slices.Sorted(maps.Keys(model.Jobs)) {
		j := model.Jobs[name]
		all = append(all, workload{"jobs", name, j.ContainerSpec, j.Build, nil, false})
	}
	built := map[string]bool{}
	for _, w := range all {
		if w.build != nil && w.spec.Image != "" {
			built[fullName(w.spec.Image)] = true
		}
	}
	for _, w := range all {
		l.add(p, w, built)
	}
	for i, b := range p.Builds {
		own := fullName(model.Services[b.Name].Image)
		for _, name := range slices.Sorted(maps.Keys(built)) {
			if name != own {
				p.Builds[i].Made = append(p.Builds[i].Made, name)
			}
		}
	}
	sortByPlace(p, files)
	return p, nil
}

// A workload is a service or a job.
type workload struct {
	section, name string // services and jobs are the sections
	spec          types.ContainerSpec
	build         *types.BuildConfig
	before        []types.PreStartHook
	provided      bool // by a plugin, and not by an image
}

// add adds what a service or a job needs.
func (l *loader) add(p *Project, w workload, built map[string]bool) {
	wanted, err := parsePlatforms(w.spec.Platform)
	if because := l.because(w.spec.Platform); because != nil {
		err = because
	}
	if err != nil {
		p.Failed = append(p.Failed, l.failure(w, "platform", err))
		return
	}
	if w.build != nil {
		b, err := l.build(w, wanted)
		if err != nil {
			p.Failed = append(p.Failed, l.failure(w, "build", err))
		} else {
			p.Builds = append(p.Builds, b)
		}
	}
	use := func(ref, key string) {
		if built[fullName(ref)] {
			return
		}
		if ref == "" {
			p.Failed = append(p.Failed, l.failure(w, key, l.empty(w, key)))
			return
		}
		img := Image{Reference: ref, Service: w.name, Platforms: wanted}
		img.File, img.Line = l.place(w.section, w.name, key)
		named, err := reference.ParseNormalizedNamed(ref)
		if because := l.because(ref); because != nil {
			err = because
		} else if err != nil {
			err = fmt.Errorf("%q is not an image name: %w%s", ref, err, l.hint(ref))
		}
		if err != nil {
			p.Failed = append(p.Failed, l.failure(w, key, err))
			return
		}
		img.Name = reference.TagNameOnly(named)
		p.Images = append(p.Images, img)
	}
	if w.build == nil && (w.spec.Image != "" || l.needsImage(w)) {
		use(w.spec.Image, "image")
	}
	for _, hook := range w.before {
		if hook.Image != "" && hook.Image != w.spec.Image { // which it has if it says none
			use(hook.Image, "pre_start")
		}
	}
	for _, v := range w.spec.Volumes {
		if v.Type == types.VolumeTypeImage {
			use(v.Source, "volumes")
		}
	}
}

// needsImage reports whether a service with neither image nor build must have
// an image: an empty one is written down, or nothing shows that none is. A file
// that overrides others has services without.
func (l *loader) needsImage(w workload) bool {
	if w.provided {
		return false
	}
	known := false
	for _, f := range slices.Backward(l.files) {
		e, ok := f.workloads[w.section][w.name]
		known = known || ok
		if k, value := find(e.value, "image"); k != nil {
			return value.Tag != "!reset"
		}
		if k, _ := find(e.value, "extends"); k != nil {
			return true
		}
	}
	return !known // it is in a file that one of these includes
}

// empty says what is empty, and what to do about it.
func (l *loader) empty(w workload, key string) error {
	what := "it"
	for _, f := range slices.Backward(l.files) {
		if k, value := find(f.workloads[w.section][w.name].value, key); k != nil {
			if strings.Contains(value.Value, "$") {
				what = value.Value
			}
			break
		}
	}
	return fmt.Errorf("%s is empty; if that is for a variable, set it in the environment or in %s", what, filepath.Join(l.folder, ".env"))
}

// notFolder is what contexts begin with that are neither a folder nor fetched.
var notFolder = regexp.MustCompile(`^[a-z][a-z-]*://`)

// build describes how a service is built.
func (l *loader) build(w workload, wanted []v1.Platform) (dockerfile.Build, error) {
	c := w.build
	b := dockerfile.Build{Name: w.name}
	b.File, b.Line = l.place(w.section, w.name, "build")
	decide := append([]string{c.Context, c.Dockerfile, c.DockerfileInline, c.Target}, c.Platforms...)
	decide = slices.AppendSeq(decide, maps.Values(c.AdditionalContexts))
	for _, text := range decide {
		if because := l.because(text); because != nil {
			return b, because
		}
	}
	opts := dockerfile.Options{Target: c.Target, BuildArgs: map[string]string{}, Platforms: wanted}
	for k, v := range c.Args {
		// Without a value it is that of the environment, and none if it has none.
		if v == nil {
			if value, ok := l.env[k]; ok {
				v = &value
			}
		}
		if v == nil {
			continue
		}
		if because := l.because(*v); because != nil {
			if b.Unknown == nil {
				b.Unknown = map[string]string{}
			}
			b.Unknown[k] = because.Error()
		}
		opts.BuildArgs[k] = *v
	}
	if len(c.AdditionalContexts) > 0 {
		opts.Contexts = maps.Clone(c.AdditionalContexts) // service:NAME is no image
	}
	if len(c.Platforms) > 0 {
		var err error
		if opts.Platforms, err = parsePlatforms(c.Platforms...); err != nil {
			return b, err
		}
	}
	b.Options = opts

	context := cmp.Or(c.Context, ".")
	switch {
	case dockerfile.IsRemoteContext(context):
		b.Context = context
	case notFolder.MatchString(context):
		return b, fmt.Errorf("the context %s is neither a folder nor a repository; an image goes into additional_contexts", context)
	default:
		b.Context = l.resolve(context)
	}
	if c.DockerfileInline != "" {
		b.Text = []byte(c.DockerfileInline)
		b.TextLine = l.textLine(w, c.DockerfileInline)
		return b, nil
	}
	if dockerfile.IsRemoteContext(context) {
		b.Remote = context
		return b, nil
	}
	b.Dockerfile = cmp.Or(c.Dockerfile, "Dockerfile")
	if !filepath.IsAbs(b.Dockerfile) {
		b.Dockerfile = filepath.Join(b.Context, b.Dockerfile)
	}
	return b, nil
}

// failure says what is wrong with a service, and where.
func (l *loader) failure(w workload, key string, err error) error {
	file, line := l.place(w.section, w.name, key)
	if line > 0 {
		file = fmt.Sprintf("%s:%d", file, line)
	}
	return fmt.Errorf("%s: %s %s: %s: %w", file, strings.TrimSuffix(w.section, "s"), w.name, key, err)
}

func parsePlatforms(words ...string) ([]v1.Platform, error) {
	var out []v1.Platform
	for _, word := range words {
		if word == "" {
			continue
		}
		p, err := platforms.Parse(word)
		if err != nil {
			return nil, fmt.Errorf("%q is not a platform such as linux/arm64: %w", word, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// fullName is for comparing references.
func fullName(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.TagNameOnly(named).String()
}

func sortByPlace(p *Project, files []string) {
	place := func(file string, line int) int { return slices.Index(files, file)<<32 + line }
	slices.SortStableFunc(p.Images, func(a, b Image) int {
		return cmp.Compare(place(a.File, a.Line), place(b.File, b.Line))
	})
	slices.SortStableFunc(p.Builds, func(a, b dockerfile.Build) int {
		return cmp.Compare(place(a.File, a.Line), place(b.File, b.Line))
	})
	slices.SortStableFunc(p.Failed, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
}
