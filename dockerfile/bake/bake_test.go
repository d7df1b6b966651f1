package bake_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/rogpeppe/go-internal/txtar"

	"mirrorctl/dockerfile"
	"mirrorctl/dockerfile/bake"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata/*.txtar")

// TestLoad runs the archives in testdata. The part "want" is what Load returns
// for the others, in their order, with the variables in the part "environ" and,
// as JSON, the builds of Compose files in the part "services".
func TestLoad(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var files []bake.File
			var environ []string
			var services []dockerfile.Build
			want := -1
			for i, f := range archive.Files {
				switch f.Name {
				case "environ":
					environ = strings.Fields(string(f.Data))
				case "want":
					want = i
				case "services":
					if err := json.Unmarshal(f.Data, &services); err != nil {
						t.Fatal(err)
					}
				default:
					files = append(files, bake.File{Name: f.Name, Text: f.Data})
				}
			}
			got := show(bake.Load(files, services, environ))
			if *update {
				if want < 0 {
					want = len(archive.Files)
					archive.Files = append(archive.Files, txtar.File{Name: "want"})
				}
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
			} else if want < 0 || got != string(archive.Files[want].Data) {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

func show(builds []dockerfile.Build, failed []error, err error) string {
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	var b strings.Builder
	for _, build := range builds {
		fmt.Fprintf(&b, "%s:%d %s builds", build.File, build.Line, build.Name)
		switch {
		case build.Remote != "":
			fmt.Fprintf(&b, " what is at %s", build.Remote)
		case build.Text != nil:
			fmt.Fprintf(&b, " %q from line %d", build.Text, build.TextLine)
		default:
			fmt.Fprintf(&b, " %s", build.Dockerfile)
		}
		if build.Options.Target != "" {
			fmt.Fprintf(&b, ", target %s", build.Options.Target)
		}
		for _, k := range slices.Sorted(maps.Keys(build.Options.BuildArgs)) {
			fmt.Fprintf(&b, ", %s=%s", k, build.Options.BuildArgs[k])
		}
		for _, k := range slices.Sorted(maps.Keys(build.Options.Contexts)) {
			fmt.Fprintf(&b, ", context %s=%s", k, build.Options.Contexts[k])
		}
		for _, p := range build.Options.Platforms {
			fmt.Fprintf(&b, " for %s", platforms.Format(p))
		}
		fmt.Fprintln(&b)
	}
	for _, err := range failed {
		fmt.Fprintf(&b, "failed: %v\n", err)
	}
	return b.String()
}

// FuzzLoad holds that no file makes Load panic or go on for ever.
func FuzzLoad(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		if filepath.Base(path) == "big-matrix.txtar" {
			continue // made slow by the instrumentation, it takes more than the 10 s that go test gives an input
		}
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if part.Name != "want" && part.Name != "environ" {
				f.Add(part.Data, strings.HasSuffix(part.Name, ".json"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, json bool) {
		file := bake.File{Name: "docker-bake.hcl", Text: text}
		if json {
			file.Name = "docker-bake.json"
		}
		start := time.Now()
		builds, _, err := bake.Load([]bake.File{file}, nil, []string{"A=b"})
		if took := time.Since(start); took > time.Minute { // no measure of speed: machines may be busy
			t.Errorf("took %v", took)
		}
		for _, b := range builds {
			if err == nil && (b.Name == "" || b.Line == 0 || b.Dockerfile == "" && b.Text == nil && b.Remote == "") {
				t.Errorf("incomplete: %+v", b)
			}
		}
	})
}
