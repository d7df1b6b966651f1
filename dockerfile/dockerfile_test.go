package dockerfile_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"mirrorctl/dockerfile"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata/*.txtar")

// TestFind runs the files in testdata. Each has one or more cases: a part
// "NAME" is a Dockerfile, "NAME.opts" has options for it, one a line, and
// "NAME.want" is what Find returns for them.
func TestFind(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		parts := make(map[string][]byte)
		for _, f := range archive.Files {
			if _, ok := parts[f.Name]; ok {
				t.Errorf("%s: two parts named %s", path, f.Name)
			}
			parts[f.Name] = f.Data
		}
		var out []txtar.File
		for _, f := range archive.Files {
			if strings.HasSuffix(f.Name, ".want") || strings.HasSuffix(f.Name, ".opts") {
				continue
			}
			optsText, hasOpts := parts[f.Name+".opts"]
			var got string
			t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar")+"/"+f.Name, func(t *testing.T) {
				opts, err := parseOptions(string(optsText))
				if err != nil {
					t.Fatal(err)
				}
				got = show(dockerfile.Find(unescape(f.Data), opts))
				if want := string(parts[f.Name+".want"]); got != want && !*update {
					t.Errorf("got:\n%swant:\n%s", got, want)
				}
			})
			out = append(out, f)
			if hasOpts {
				out = append(out, txtar.File{Name: f.Name + ".opts", Data: optsText})
			}
			out = append(out, txtar.File{Name: f.Name + ".want", Data: []byte(got)})
		}
		if *update {
			archive.Files = out
			if err := os.WriteFile(path, txtar.Format(archive), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// unescape puts in what an editor would not keep: {CR} and {BOM}.
func unescape(b []byte) []byte {
	return []byte(strings.NewReplacer("{CR}", "\r", "{BOM}", "\ufeff", "{SP}", " ").Replace(string(b)))
}

func parseOptions(text string) (dockerfile.Options, error) {
	var o dockerfile.Options
	var stored map[string][]string
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		switch k {
		case "target":
			o.Target = v
		case "all-stages":
			o.AllStages = true
		case "build-arg":
			if o.BuildArgs == nil {
				o.BuildArgs = make(map[string]string)
			}
			name, value, _ := strings.Cut(v, "=")
			o.BuildArgs[name] = value
		case "onbuild": // image: what it has, and one of several lines adds
			name, expression, _ := strings.Cut(v, ": ")
			if stored == nil {
				stored = make(map[string][]string)
				o.OnBuild = func(name reference.Named, _ v1.Platform) []string { return stored[name.String()] }
			}
			stored[name] = append(stored[name], expression)
		case "context":
			if o.Contexts == nil {
				o.Contexts = make(map[string]string)
			}
			name, value, _ := strings.Cut(v, "=")
			o.Contexts[name] = value
		case "platform", "build-platform":
			p, err := platforms.Parse(v)
			if err != nil {
				return o, err
			}
			if k == "platform" {
				o.Platforms = append(o.Platforms, p)
			} else {
				o.BuildPlatform = &p
			}
		default:
			return o, fmt.Errorf("unknown option %q", k)
		}
	}
	return o, nil
}

// show prints a result as the golden files have it.
func show(res *dockerfile.Result, err error) string {
	var b strings.Builder
	showError := func(err error) {
		var e *dockerfile.Error
		if !errors.As(err, &e) {
			fmt.Fprintf(&b, "not an *Error: %v\n", err)
			return
		}
		if e.Platform != nil {
			fmt.Fprintf(&b, "%s: ", platforms.Format(*e.Platform))
		}
		fmt.Fprintf(&b, "error: %v\n", e)
		if e.Source != "" {
			fmt.Fprintf(&b, "\t%s\n", strings.ReplaceAll(e.Source, "\r", "{CR}"))
		}
	}
	if err != nil {
		showError(err)
		return b.String()
	}
	for _, img := range res.Images {
		fmt.Fprintf(&b, "%d %s %s", img.Line, img.Kind, img.Name)
		if img.Stage != "" {
			fmt.Fprintf(&b, " in %s", img.Stage)
		}
		var ps []string
		for _, p := range img.Platforms {
			ps = append(ps, platforms.FormatAll(p))
		}
		if !slices.Equal(ps, []string{"linux/amd64", "linux/arm64"}) {
			fmt.Fprintf(&b, " for %s", strings.Join(ps, " "))
		}
		for _, k := range slices.Sorted(maps.Keys(img.Args)) {
			fmt.Fprintf(&b, " with %s=%s", k, img.Args[k])
		}
		if img.OnBuild != nil {
			fmt.Fprintf(&b, " for %s", img.OnBuild)
		}
		if img.Context != "" {
			fmt.Fprintf(&b, " by %s", img.Context)
		}
		if img.Unreachable {
			fmt.Fprint(&b, " (unreachable)")
		}
		fmt.Fprintln(&b)
	}
	for _, e := range res.Skipped {
		showError(e)
	}
	return b.String()
}
