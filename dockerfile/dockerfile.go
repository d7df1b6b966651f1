// Package dockerfile finds the images that a Dockerfile needs.
//
// It answers one question: for a given target, platform and set of build
// arguments, which images would BuildKit look up? The grammar is BuildKit's own
// (its parser, instructions and shell packages), and what BuildKit does with it
// (frontend/dockerfile/dockerfile2llb) is the measure: a module under
// testdata/oracle compares the two.
//
// It reads bytes and returns values. It opens no file, needs no network, and
// knows nothing of what images exist. ONBUILD instructions that are stored in an
// image it sees only if it is given them.
//
// Input may be hostile: time and memory are bounded, and what goes over the
// bounds is an error (see limits.go).
package dockerfile

import (
	"maps"
	"slices"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say which build of a file is meant. The zero value is a build of the
// last stage for linux/amd64 and linux/arm64, without build arguments.
type Options struct {
	// Target is the stage to build, in any letter case. Empty is the last one.
	Target string

	// AllStages also returns the images of stages that Target does not need,
	// marked as unreachable.
	AllStages bool

	// BuildArgs are the values given with --build-arg. As in BuildKit they
	// reach a FROM only through an ARG before the first FROM, except for the
	// predefined ones such as TARGETARCH. BUILDKIT_SYNTAX replaces the syntax
	// image of the file.
	BuildArgs map[string]string

	// Contexts are the named contexts of the build, what --build-context
	// NAME=VALUE and its like in Compose and Bake files give. A context takes
	// the place of the stage, or of the image, that has its name; the key is
	// what ContextName returns, with ::OS/ARCH at its end if it is for one
	// platform only. Where the value is docker-image://REFERENCE, that image is
	// needed instead; any other value (a folder, a repository, another target)
	// needs none.
	Contexts map[string]string

	// OnBuild returns the ONBUILD instructions that are stored in the
	// configuration of an image, in their order. They run in the stage whose
	// base the image is, and may need further images: their Kind is that of the
	// instruction, their Line that of the FROM. Nil is no instructions; so is
	// the answer for an image that is not known. It may be called from several
	// goroutines if Find is.
	OnBuild func(name reference.Named, platform v1.Platform) []string

	// Platforms are the platforms to build for. Empty is linux/amd64 and
	// linux/arm64.
	Platforms []v1.Platform

	// BuildPlatform is the platform that builds, which BUILDPLATFORM and its
	// siblings name. Nil is a native build: each of Platforms builds itself.
	BuildPlatform *v1.Platform
}

// A Kind is the way in which a file uses an image.
type Kind string

// The kinds of use.
const (
	KindFrom   Kind = "from"   // FROM image
	KindCopy   Kind = "copy"   // COPY --from=image
	KindMount  Kind = "mount"  // RUN --mount=from=image
	KindSyntax Kind = "syntax" // # syntax=image
)

// An Image is one use of an image in a file.
type Image struct {
	// Reference is what the file says, with variables expanded, or what
	// Context says instead.
	Reference string

	// Name is the fully qualified name, such as
	// docker.io/library/debian:bookworm. The tag latest is added to a
	// reference with neither tag nor digest; one that has both keeps both.
	Name reference.Named

	// Line is where the instruction begins, from 1. It is 0 for a syntax image
	// that comes from the build argument BUILDKIT_SYNTAX. The use in an ONBUILD
	// instruction is where that instruction is.
	Line int

	// Stage is the name of the stage that the line is in, or its number from 0
	// if it has no name. A syntax image has none.
	Stage string

	Kind Kind

	// Context is the key of the named context that put this image in the place
	// of what the file says, or "".
	Context string

	// Args are the variables that the reference and platform of a FROM are put
	// together from, with their values; nil if there are none. A variable that
	// differs among Platforms is left out.
	Args map[string]string

	// OnBuild is the image whose stored ONBUILD instruction needs this one, or
	// nil.
	OnBuild reference.Named

	// Platforms are the platforms that the image is needed for: those of
	// Options.Platforms, unless FROM --platform says otherwise. A name like
	// base-${TARGETARCH} makes one Image for each expansion, each with the
	// platforms that lead to it.
	Platforms []v1.Platform

	// Unreachable says that no build of the target needs the image, on any
	// platform. It is only ever set with Options.AllStages.
	Unreachable bool
}

// A Result is what Find found in one file.
type Result struct {
	// Images are in the order of the file, each use once.
	Images []Image

	// Skipped has one error for each of the platforms asked for that the file
	// cannot be built for, while it can for others: Images is then complete
	// for those others. Each has its Platform set.
	Skipped []*Error
}

// Find returns the images that a build of the Dockerfile in file needs.
//
// The error is an *Error if the file is at fault, which is so whenever BuildKit
// would refuse the file because of a syntax error, a stage or an image name: a
// bad FROM is an error even where the target does not need it, and an unknown
// target is one. What a build would refuse later, such as a bad --chmod, is not
// looked at. A file that is written for another frontend, with its syntax in a
// comment beginning with // or in JSON, yields its syntax image alone.
//
// Find is safe for concurrent use and keeps nothing of file or opts.
func Find(file []byte, opts Options) (*Result, error) {
	if len(file) > maxFile {
		return nil, errorfAt(file, 0, "the file has %d bytes, and BuildKit reads up to %d", len(file), maxFile)
	}

	build := opts.BuildPlatform
	targets := opts.Platforms
	if len(targets) == 0 {
		targets = []v1.Platform{
			{OS: "linux", Architecture: "amd64"},
			{OS: "linux", Architecture: "arm64"},
		}
	}

	var c collector
	syntax, foreign, err := findSyntax(file, opts.BuildArgs)
	if err != nil {
		return nil, err
	}
	if syntax != nil {
		// The frontend runs where the build runs.
		for _, p := range targets {
			if build != nil {
				p = *build
			}
			c.add(*syntax, platforms.Normalize(p))
		}
	}
	if foreign {
		return c.result(), nil
	}

	if err := checkLimits(file); err != nil {
		return nil, err
	}
	f, err := parse(file)
	if err != nil {
		return nil, err
	}
	var failed []*Error
	for _, target := range targets {
		p := platforms.Normalize(target)
		b := p
		if build != nil {
			b = platforms.Normalize(*build)
		}
		g, err := plan(f, opts, p, b)
		if err != nil {
			err.Platform = &p
			failed = append(failed, err)
			continue
		}
		for _, n := range g.nodes {
			if img := n.image(); img.Name != nil && (n.reached || opts.AllStages) {
				c.add(img, n.platform)
			}
		}
	}
	if len(failed) == len(targets) {
		// Every build fails, so the platform is not what is wrong.
		err := *failed[0]
		err.Platform = nil
		return nil, &err
	}
	res := c.result()
	res.Skipped = failed
	return res, nil
}

// use identifies an Image in a Result.
type use struct {
	kind  Kind
	line  int
	stage string
	name  string
}

// A collector merges what the builds for several platforms need.
type collector struct {
	images []Image
	at     map[use]int
}

// add records that img is needed for p. A use that some build reaches has the
// platforms of those builds only.
func (c *collector) add(img Image, p v1.Platform) {
	if c.at == nil {
		c.at = make(map[use]int)
	}
	key := use{img.Kind, img.Line, img.Stage, img.Name.String()}
	i, ok := c.at[key]
	if !ok {
		i = len(c.images)
		c.at[key] = i
		img.Args = maps.Clone(img.Args)
		c.images = append(c.images, img)
	}
	have := &c.images[i]
	switch {
	case have.Unreachable && !img.Unreachable:
		have.Unreachable = false
		have.Platforms = nil
		have.Args = maps.Clone(img.Args)
	case !have.Unreachable && img.Unreachable:
		return
	}
	maps.DeleteFunc(have.Args, func(k, v string) bool { return img.Args[k] != v })
	same := func(q v1.Platform) bool { return platforms.FormatAll(p) == platforms.FormatAll(q) }
	if !slices.ContainsFunc(have.Platforms, same) {
		have.Platforms = append(have.Platforms, p)
	}
}

func (c *collector) result() *Result {
	slices.SortStableFunc(c.images, func(a, b Image) int { return a.Line - b.Line })
	return &Result{Images: c.images}
}
