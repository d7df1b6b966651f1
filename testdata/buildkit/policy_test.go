// Package buildkit holds the versions of BuildKit's programs that the
// end-to-end tests run, and evaluates the policies that mirrorctl prints with
// buildx's own evaluator. It is a module of its own because both are large:
//
//	cd testdata/buildkit && go test .
package buildkit

import (
	"context"
	"strings"
	"testing"

	"github.com/docker/buildx/policy"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	sourcepolicy "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/tools/txtar"
)

const (
	base  = "sha256:d200251aba9abbdc1336d323ed4667adac7dab94ce4bc24f156d8bfb6df2e625"
	hello = "sha256:76c61cd3b38de53f143be9bcceed785080fd7ed69bcc5d38dbf635ad4f62e1c1"
	tool  = "sha256:56fb95b9f7061a75e7347ea41b6eb5a86abc6612ee9690671c3139b9465fae41"
	other = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
)

const (
	allow   = sourcepolicy.PolicyAction_ALLOW
	deny    = sourcepolicy.PolicyAction_DENY
	convert = sourcepolicy.PolicyAction_CONVERT
)

// TestRego asks the policy in policy_rego.txtar, which is what mirrorctl prints,
// about sources as BuildKit names them.
func TestRego(t *testing.T) {
	archive, err := txtar.ParseFile("../script/policy_rego.txtar")
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, part := range archive.Files {
		text[part.Name] = string(part.Data)
	}
	strict := text["want.rego"]
	lax := strings.Replace(strict, "default allow := false", "default allow := true", 1)
	if strict == lax {
		t.Fatal("policy_rego.txtar has no policy in want.rego")
	}
	const image = "docker-image://docker.io/library/"
	for _, test := range []struct {
		source    string
		action    sourcepolicy.PolicyAction // and with --allow-unlocked allow instead of deny
		converted string
	}{
		{image + "tool:1", convert, image + "tool:1@" + tool},
		{image + "tool:1@" + tool, allow, ""},
		{image + "tool@" + tool, allow, ""},
		{image + "tool:2@" + tool, allow, ""},
		{image + "tool:1@" + other, deny, ""},
		{image + "tool@" + other, deny, ""},
		{image + "tool@" + base, deny, ""}, // locked, but for another repository
		{image + "too@" + tool, deny, ""},
		{image + "tool:2", deny, ""},
		{image + "tool:latest", deny, ""},
		{image + "hello:1.0@" + hello, allow, ""},
		{image + "hello:1.0", deny, ""}, // no file needs it without the digest
		{image + "hello@" + hello, allow, ""},
		{"docker-image://ghcr.io/library/tool:1", deny, ""},
		{"docker-image://buildbox:5000/tool:1", convert, "docker-image://buildbox:5000/tool:1@" + tool},
		{"docker-image://buildbox:5000/tool@" + tool, allow, ""},
		{"docker-image://buildbox:5000/docker.io/library/tool:1", convert, "docker-image://buildbox:5000/docker.io/library/tool:1@" + tool},
		{"docker-image://buildbox:5000/hub/tool:1", convert, "docker-image://buildbox:5000/hub/tool:1@" + tool},
		{"docker-image://buildbox:5000/tool:2", deny, ""},
		{"docker-image://buildbox:5001/tool:1", deny, ""},
		{"local://context", allow, ""},
		{"git://github.com/owner/repository.git#main", allow, ""},
		{"https://example.com/file", allow, ""},
	} {
		for _, variant := range []struct{ name, text string }{{"strict", strict}, {"allow-unlocked", lax}} {
			t.Run(variant.name+"/"+test.source, func(t *testing.T) {
				p := policy.NewPolicy(policy.Opt{
					Files:           []policy.File{{Filename: "Dockerfile.rego", Data: []byte(variant.text)}},
					DefaultPlatform: &v1.Platform{OS: "linux", Architecture: "amd64"},
				})
				decision, lookup, err := p.CheckPolicy(context.Background(), &policysession.CheckPolicyRequest{
					Source: &gateway.ResolveSourceMetaResponse{Source: &pb.SourceOp{Identifier: test.source}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if lookup != nil {
					t.Fatalf("wants to look up %v before it decides", lookup)
				}
				want := test.action
				if want == deny && variant.name == "allow-unlocked" {
					want = allow
				}
				if decision.Action != want {
					t.Fatalf("%v, want %v", decision.Action, want)
				}
				if got := decision.Update.GetIdentifier(); want == convert && got != test.converted {
					t.Errorf("converts to %s, want %s", got, test.converted)
				}
				if want != deny {
					return
				}
				name := strings.TrimPrefix(test.source, "docker-image://")
				if len(decision.DenyMessages) != 1 || !strings.HasPrefix(decision.DenyMessages[0].Message, name+" is not in mirror.lock; ") {
					t.Errorf("says %v", decision.DenyMessages)
				}
			})
		}
	}
}
