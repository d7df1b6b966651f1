package compose_test

import (
	"context"
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
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"mirrorctl/dockerfile/compose"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata/*.txtar")

// TestLoad runs the archives in testdata. Each is the folder of a project; its
// part "want" is what Load returns for compose.yaml, or for the files named in
// the part "args", with the variables in the part "environ".
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
			parent := t.TempDir()
			dir := filepath.Join(parent, "project")
			args, environ, want := []string{"compose.yaml"}, []string{}, -1
			for i, f := range archive.Files {
				switch f.Name {
				case "args":
					args = strings.Fields(string(f.Data))
				case "environ":
					environ = strings.Fields(string(f.Data))
				case "want":
					want = i
				default:
					name := filepath.Join(dir, f.Name)
					if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(name, f.Data, 0o666); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range args {
				args[i] = filepath.Join(dir, args[i])
			}
			got := strings.ReplaceAll(show(compose.Load(context.Background(), args, environ)), dir+"/", "")
			got = strings.ReplaceAll(got, parent+"/", "../")
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

func show(p *compose.Project, err error) string {
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	var b strings.Builder
	for _, img := range p.Images {
		fmt.Fprintf(&b, "%s:%d %s %s%s\n", img.File, img.Line, img.Service, img.Name, showPlatforms(img.Platforms))
	}
	for _, build := range p.Builds {
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
			if build.Unknown[k] == "" { // what stands for one is any value
				fmt.Fprintf(&b, ", %s=%s", k, build.Options.BuildArgs[k])
			}
		}
		for _, k := range slices.Sorted(maps.Keys(build.Options.Contexts)) {
			fmt.Fprintf(&b, ", context %s=%s", k, build.Options.Contexts[k])
		}
		for _, k := range slices.Sorted(maps.Keys(build.Unknown)) {
			fmt.Fprintf(&b, ", %s unknown: %s", k, build.Unknown[k])
		}
		if len(build.Made) > 0 {
			fmt.Fprintf(&b, ", with %s", strings.Join(build.Made, " "))
		}
		fmt.Fprintf(&b, "%s\n", showPlatforms(build.Options.Platforms))
	}
	for _, err := range p.Failed {
		fmt.Fprintf(&b, "failed: %v\n", err)
	}
	return b.String()
}

func showPlatforms(list []v1.Platform) string {
	s := ""
	for _, p := range list {
		s += " for " + platforms.Format(p)
	}
	return s
}

// FuzzLoad holds that no file makes Load panic or go on for ever.
func FuzzLoad(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if strings.HasSuffix(part.Name, ".yaml") {
				f.Add(part.Data)
			}
		}
	}
	name := filepath.Join(f.TempDir(), "compose.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(name, text, 0o666); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		p, err := compose.Load(context.Background(), []string{name}, []string{"A=b"})
		if took := time.Since(start); took > time.Minute { // no measure of speed: machines may be busy
			t.Errorf("took %v", took)
		}
		if err != nil {
			return
		}
		for _, img := range p.Images {
			if img.Name == nil || img.Service == "" && img.Line == 0 {
				t.Errorf("incomplete: %+v", img)
			}
		}
	})
}
