// Package oracle asks BuildKit itself which images a Dockerfile needs. It is a
// module of its own because BuildKit's dockerfile2llb is large; the tests in it
// compare package dockerfile with it:
//
//	go test -v . -first 0 -seeds 3000 -dir FOLDER
package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Build is one run of BuildKit's frontend.
type Build struct {
	Target    string
	AllStages bool
	BuildArgs map[string]string
	Contexts  map[string]string   // nil is a frontend without a builder that could have any
	OnBuild   map[string][]string // the ONBUILD instructions in images, by full name
	Platform  v1.Platform
	Host      *v1.Platform // nil is Platform
}

// Images returns the images that BuildKit looks up or pulls for a Dockerfile, each as
// "NAME for PLATFORM", sorted and each once.
func Images(ctx context.Context, file []byte, b Build) (images []string, err error) {
	// It has no place for the mounts in ONBUILD instructions of an image that
	// files are only taken from.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("BuildKit panics: %v", r)
		}
	}()
	r := recorder{onBuild: b.OnBuild}
	caps := pb.Caps.CapSet(pb.Caps.All())
	opt := dockerfile2llb.ConvertOpt{
		Config:         dockerui.Config{Target: b.Target, BuildArgs: maps.Clone(b.BuildArgs)},
		TargetPlatform: &b.Platform,
		MetaResolver:   &r,
		LLBCaps:        &caps,
		AllStages:      b.AllStages,
	}
	if b.Contexts != nil {
		client, err := newClient(&r, b.Contexts)
		if err != nil {
			return nil, err
		}
		opt.Client = client
	}
	if b.Host != nil {
		opt.BuildPlatforms = []v1.Platform{*b.Host}
	}
	res, err := dockerfile2llb.Dockerfile2LLB(ctx, file, opt)
	if err != nil {
		return nil, err
	}

	// What the build then pulls has been looked up before, but for one case: an
	// image that a stage copies or mounts from, where that stage is needed only
	// because of an ONBUILD. BuildKit takes the image for done when it first
	// sees it, as that of a stage nobody needs, and later pulls it unseen.
	def, err := res.State.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.Unmarshal(dt); err != nil {
			return nil, err
		}
		name, ok := strings.CutPrefix(op.GetSource().GetIdentifier(), "docker-image://")
		if !ok {
			continue
		}
		p := v1.Platform{OS: op.Platform.OS, Architecture: op.Platform.Architecture, Variant: op.Platform.Variant, OSVersion: op.Platform.OSVersion}
		r.add(name, p)
	}
	return slices.Sorted(maps.Keys(r.seen)), nil
}

// A recorder is an llb.ImageMetaResolver that knows all images and remembers
// which it was asked for. It returns no digests, so that names stay as they are.
type recorder struct {
	mu   sync.Mutex
	seen map[string]bool

	onBuild map[string][]string
}

func (r *recorder) add(ref string, p v1.Platform) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = make(map[string]bool)
	}
	r.seen[ref+" for "+platforms.FormatAll(p)] = true
}

func (r *recorder) ResolveImageConfig(_ context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	p := opt.ImageOpt.Platform
	r.add(ref, *p)
	var image dockerspec.DockerOCIImage
	image.Platform = *p
	image.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("layer")}}
	image.Config.OnBuild = r.onBuild[ref]
	config, err := json.Marshal(image)
	return ref, "", config, err
}
