package oracle

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	fstypes "github.com/tonistiigi/fsutil/types"
)

var errNotHere = errors.New("the oracle has no builder")

// newClient returns what the frontend has of a builder: the named contexts, and
// images that r remembers. The folders in it are empty.
func newClient(r *recorder, contexts map[string]string) (*dockerui.Client, error) {
	opts := make(map[string]string)
	for name, value := range contexts {
		if !strings.HasPrefix(value, "docker-image://") {
			value = "local:" + name // as buildx gives a folder
		}
		opts["context:"+name] = value
	}
	return dockerui.NewClient(&builder{recorder: r, opts: opts})
}

// builder is a gateway client that can look up images and read empty folders.
type builder struct {
	*recorder
	opts map[string]string
}

func (b *builder) BuildOpts() gateway.BuildOpts {
	caps := pb.Caps.CapSet(pb.Caps.All())
	return gateway.BuildOpts{Opts: b.opts, LLBCaps: caps, Caps: gatewaypb.Caps.CapSet(gatewaypb.Caps.All()), SessionID: "session"}
}

func (b *builder) Solve(context.Context, gateway.SolveRequest) (*gateway.Result, error) {
	res := gateway.NewResult()
	res.SetRef(empty{})
	return res, nil
}

func (b *builder) ResolveSourceMetadata(context.Context, *pb.SourceOp, sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return nil, errNotHere
}

func (b *builder) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

func (b *builder) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, errNotHere
}

func (b *builder) Warn(context.Context, digest.Digest, string, gateway.WarnOpts) error { return nil }

// empty is a folder without files.
type empty struct{}

func (empty) ToState() (llb.State, error)    { return llb.Scratch(), nil }
func (empty) Evaluate(context.Context) error { return nil }

func (empty) ReadFile(context.Context, gateway.ReadRequest) ([]byte, error) {
	return nil, fs.ErrNotExist
}

func (empty) StatFile(context.Context, gateway.StatRequest) (*fstypes.Stat, error) {
	return nil, fs.ErrNotExist
}

func (empty) ReadDir(context.Context, gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	return nil, nil
}
