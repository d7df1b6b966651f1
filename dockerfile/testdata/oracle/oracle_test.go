package oracle

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"mirrorctl/dockerfile"
)

var (
	seeds = flag.Int("seeds", 3000, "how many Dockerfiles to generate")
	first = flag.Uint64("first", 0, "the first seed")
	dir   = flag.String("dir", "", "a folder with Dockerfiles to compare on")
)

// builds are the builds that each file is tried with; targets are added.
var builds = []struct {
	platform, host string
	args, contexts map[string]string
	onBuild        map[string][]string
}{
	{"linux/amd64", "", nil, nil, nil},
	{"linux/arm64", "", nil, nil, nil},
	{"linux/arm/v7", "linux/amd64", nil, nil, nil},
	{"linux/amd64", "", nil, nil, map[string][]string{
		"docker.io/library/debian:latest":  {"COPY --from=stored:1 / /", "RUN make"},
		"docker.io/library/golang:1.26":    {"RUN --mount=from=stored:2,target=/s --mount=target=/t true"},
		"docker.io/library/busybox:latest": {"COPY --from=s0 / /"},
		"docker.io/library/stored:1":       {"COPY --from=stored:3 / /"},
	}},
	{"linux/amd64", "linux/arm64", map[string]string{"A": "alpine", "TAG": "9", "C": "$B", "TARGETARCH": "mips"}, nil, nil},
	{"linux/amd64", "", map[string]string{"A": "", "B": "scratch", "SOURCE_DATE_EPOCH": "012"}, nil, nil},
	{"linux/arm64", "linux/amd64", nil, map[string]string{
		"debian": "docker-image://owner/debian:1", "golang:1.26": "docker-image://golang", "s0": "docker-image://zero", "s2": "folder",
		"build::linux/arm64": "docker-image://ghcr.io/owner/built@sha256:" + strings.Repeat("b", 64), "busybox": "folder", "scratch": "docker-image://bad",
	}, nil},
	{"linux/amd64", "", nil, map[string]string{
		"s1": "docker-image://one", "s3::linux/amd64": "docker-image://three", "s3": "docker-image://bad", "owner/app": "docker-image://debian",
		"ghcr.io/owner/app:v1": "docker-image://scratch", "0": "docker-image://zero", "alpine:3": "docker-image://alpine:3.23", "node": "docker-image://Bad",
	}, map[string][]string{"docker.io/library/one:latest": {"COPY --from=stored:1 / /"}}},
}

// tally counts what was compared. more are builds where Find has an image too
// many, in the one way that is meant.
type tally struct{ accepted, refused, onlyWe, agreed, more int }

func (n *tally) log(t *testing.T) {
	t.Logf("of %d builds that BuildKit accepts, %d agree, and %d have an unused source more; it refuses %d more, and so does Find, except for %d",
		n.accepted, n.agreed, n.more, n.refused, n.onlyWe)
}

// compare runs one file through both, for all builds, targets, and with all
// stages.
func (n *tally) compare(t *testing.T, file []byte, targets []string) {
	t.Helper()
	for _, build := range builds {
		p := platforms.MustParse(build.platform)
		b := Build{Platform: p, BuildArgs: build.args}
		b.Contexts, b.OnBuild = build.contexts, build.onBuild
		opts := dockerfile.Options{Platforms: []v1.Platform{p}, BuildArgs: build.args, Contexts: build.contexts}
		if build.onBuild != nil {
			opts.OnBuild = func(name reference.Named, _ v1.Platform) []string { return build.onBuild[name.String()] }
		}
		if build.host != "" {
			h := platforms.MustParse(build.host)
			b.Host, opts.BuildPlatform = &h, &h
		}
		for _, target := range targets {
			b.Target, opts.Target = target, target
			for _, all := range []bool{false, true} {
				b.AllStages, opts.AllStages = all, all
				n.one(t, file, b, opts)
			}
		}
	}
}

func (n *tally) one(t *testing.T, file []byte, b Build, opts dockerfile.Options) {
	t.Helper()
	// A builder is there, as in any real build: BuildKit asks it for contexts by
	// the name of each stage. But it would also have to know the time of a file.
	if b.Contexts == nil && !bytes.Contains(file, []byte("SOURCE_DATE_EPOCH")) {
		b.Contexts = map[string]string{}
	}
	want, err := Images(context.Background(), file, b)
	res, ours := dockerfile.Find(file, opts)
	if err != nil {
		n.refused++
		if ours == nil {
			n.onlyWe++
			if testing.Verbose() && !excusable(b, err) {
				t.Logf("BuildKit refuses, Find does not: %v\n%s", err, file)
			}
		}
		return
	}
	n.accepted++
	if ours != nil {
		t.Errorf("%s: BuildKit accepts, Find does not: %v\n%s", describe(b), ours, file)
		return
	}
	seen := make(map[string]bool)
	sources := make(map[string]bool)
	for _, img := range res.Images {
		if img.Kind == dockerfile.KindSyntax {
			continue
		}
		for _, p := range img.Platforms {
			use := img.Name.String() + " for " + platforms.FormatAll(p)
			seen[use] = true
			if img.Kind != dockerfile.KindFrom {
				sources[use] = true
			}
		}
	}
	got := slices.Sorted(maps.Keys(seen))
	// BuildKit looks up the image of a tmpfs mount, or of a COPY of nothing but
	// heredocs, though nothing uses it. Where it forgets to look up images (see
	// Images), such a one is not pulled either. Find does not copy that.
	if (len(b.OnBuild) > 0 || bytes.Contains(bytes.ToUpper(file), []byte("ONBUILD"))) && !b.AllStages {
		unused := func(use string) bool { return sources[use] && !slices.Contains(want, use) }
		if less := slices.DeleteFunc(slices.Clone(got), unused); len(less) < len(got) && slices.Equal(less, want) {
			n.more++
			return
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s:\nFind:     %q\nBuildKit: %q\n%s", describe(b), got, want, file)
		return
	}
	n.agreed++
}

func describe(b Build) string {
	return fmt.Sprintf("target %q, all stages %v, %s, args %v, contexts %v, stored %v", b.Target, b.AllStages, platforms.FormatAll(b.Platform), b.BuildArgs, b.Contexts, b.OnBuild)
}

// excusable says that BuildKit's reason to refuse a file is none of Find's
// business: it has nothing to do with which images there are.
func excusable(b Build, err error) bool {
	// With all stages BuildKit builds also those that the target does not need.
	if b.AllStages && (strings.Contains(err.Error(), "cannot copy from stage") || strings.Contains(err.Error(), "cannot mount from stage")) {
		return true
	}
	for _, s := range []string{"invalid mount target", "unsupported mount type", "unexpected key", "failed to process"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

// incomparable are the cases in which BuildKit decides outside dockerfile2llb,
// or by the machine that it runs on.
var incomparable = map[string]bool{
	"from-platform-short":  true, // takes the rest from this machine
	"syntax-no-expansion":  true, // the frontend image is looked up before
	"syntax-invalid":       true,
	"syntax-slashes":       true,
	"syntax-slashes-check": true,
	"syntax-json":          true,
	"syntax-json-shebang":  true,
}

// TestHandWritten compares on the cases of package dockerfile.
func TestHandWritten(t *testing.T) {
	var n tally
	defer n.log(t)
	files, err := filepath.Glob("../*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range archive.Files {
			if strings.HasSuffix(part.Name, ".want") || strings.HasSuffix(part.Name, ".opts") || incomparable[part.Name] {
				continue
			}
			text := strings.NewReplacer("{CR}", "\r", "{BOM}", "\ufeff", "{SP}", " ").Replace(string(part.Data))
			t.Run(part.Name, func(t *testing.T) {
				n.compare(t, []byte(text), []string{"", "a", "base", "Build", "x"})
			})
		}
	}
}

// TestGenerated compares on random files.
func TestGenerated(t *testing.T) {
	var n tally
	defer n.log(t)
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		file, stages := Generate(seed)
		n.compare(t, file, append([]string{""}, stages...))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestFiles compares on the Dockerfiles below the folder given with -dir.
func TestFiles(t *testing.T) {
	if *dir == "" {
		t.Skip("no -dir")
	}
	var n tally
	defer n.log(t)
	files := 0
	err := filepath.WalkDir(*dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		base := strings.ToLower(d.Name())
		if !strings.Contains(base, "dockerfile") && !strings.Contains(base, "containerfile") || strings.HasSuffix(base, ".go") {
			return nil
		}
		file, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		targets := []string{""}
		if list, err := dockerfile2llb.ListTargets(context.Background(), file); err == nil {
			for _, target := range list.Targets {
				if target.Name != "" {
					targets = append(targets, target.Name)
				}
			}
		}
		t.Run(path, func(t *testing.T) { n.compare(t, file, targets) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files", files)
}
