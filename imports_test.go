package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is which packages of this module a package may import. What is not
// here may import none, and a new package has to be added.
var mayImport = map[string][]string{
	"mirrorctl":                     {"mirrorctl/cmd"},
	"mirrorctl/cmd":                 {"mirrorctl/cmd/client", "mirrorctl/cmd/systemd", "mirrorctl/dockerfile", "mirrorctl/dockerfile/bake", "mirrorctl/dockerfile/compose", "mirrorctl/lockfile", "mirrorctl/lockfile/stricttoml", "mirrorctl/serve", "mirrorctl/serve/access", "mirrorctl/serve/certs", "mirrorctl/serve/limit", "mirrorctl/serve/metrics", "mirrorctl/serve/page", "mirrorctl/store", "mirrorctl/upstream"},
	"mirrorctl/cmd/client":          nil,
	"mirrorctl/cmd/systemd":         nil,
	"mirrorctl/dockerfile":          nil,
	"mirrorctl/dockerfile/bake":     {"mirrorctl/dockerfile"},
	"mirrorctl/dockerfile/compose":  {"mirrorctl/dockerfile"},
	"mirrorctl/lockfile":            {"mirrorctl/lockfile/stricttoml"},
	"mirrorctl/lockfile/stricttoml": nil,
	"mirrorctl/serve":               {"mirrorctl/serve/limit", "mirrorctl/store"},
	"mirrorctl/serve/access":        {"mirrorctl/serve"},
	"mirrorctl/serve/certs":         nil,
	"mirrorctl/serve/limit":         nil,
	"mirrorctl/serve/metrics":       {"mirrorctl/serve", "mirrorctl/store"},
	"mirrorctl/serve/page":          {"mirrorctl/cmd/client", "mirrorctl/serve", "mirrorctl/store"},
	"mirrorctl/store":               nil,
	"mirrorctl/upstream":            {"mirrorctl/store"},
}

// onlyIn is the package, or packages, that may import a module; none if it is for
// tests.
var onlyIn = map[string]string{
	"github.com/BurntSushi/toml":             "mirrorctl/lockfile/stricttoml",
	"github.com/aymanbagabas/go-udiff":       "mirrorctl/cmd",
	"github.com/compose-spec/compose-go/v2":  "mirrorctl/dockerfile/compose",
	"github.com/docker/buildx":               "mirrorctl/dockerfile/bake",
	"github.com/google/go-containerregistry": "",
	"github.com/hashicorp/hcl/v2":            "mirrorctl/dockerfile/bake",
	"github.com/mattn/go-sqlite3":            "mirrorctl/store",
	"github.com/moby/buildkit":               "mirrorctl/dockerfile",
	"github.com/pelletier/go-toml/v2":        "mirrorctl/cmd/client",
	"github.com/prometheus/client_golang":    "mirrorctl/serve/metrics",
	"github.com/regclient/regclient":         "mirrorctl/upstream",
	"github.com/rogpeppe/go-internal":        "",
	"github.com/schollz/progressbar/v3":      "mirrorctl/cmd",
	"github.com/urfave/cli/v2":               "mirrorctl/cmd",
	"github.com/zclconf/go-cty":              "mirrorctl/dockerfile/bake",
	"golang.org/x/crypto":                    "mirrorctl/serve/access",
	"go.yaml.in/yaml/v4":                     "mirrorctl/dockerfile/compose mirrorctl/cmd/client",
}

// listed is what go list -json says about a package.
type listed struct {
	ImportPath string
	Imports    []string // without those of tests
}

// broken returns what breaks the import rule of ARCHITECTURE.md. Tests may import
// what they like.
func broken(packages []listed) []string {
	var found []string
	for _, p := range packages {
		allowed, known := mayImport[p.ImportPath]
		if !known {
			found = append(found, p.ImportPath+" is not in the import rule")
			continue
		}
		for _, path := range p.Imports {
			if strings.HasPrefix(path+"/", "mirrorctl/") && !slices.Contains(allowed, path) {
				found = append(found, p.ImportPath+" imports "+path)
			}
			for module, only := range onlyIn {
				if strings.HasPrefix(path+"/", module+"/") && !slices.Contains(strings.Fields(only), p.ImportPath) {
					found = append(found, p.ImportPath+" imports "+path)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// linked returns the modules that are for tests among all that the program is
// built from, also by way of another module.
func linked(deps []string) []string {
	var found []string
	for _, module := range slices.Sorted(maps.Keys(onlyIn)) {
		if onlyIn[module] == "" && slices.ContainsFunc(deps, func(d string) bool { return strings.HasPrefix(d+"/", module+"/") }) {
			found = append(found, "the program contains "+module)
		}
	}
	return found
}

func TestImports(t *testing.T) {
	var packages []listed
	decoder := json.NewDecoder(strings.NewReader(goList(t, "-json", "./...")))
	for {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < len(mayImport) {
		t.Errorf("go list knows %d packages, the import rule %d", len(packages), len(mayImport))
	}
	for _, complaint := range append(broken(packages), linked(strings.Fields(goList(t, "-deps", ".")))...) {
		t.Error(complaint)
	}
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("go list: %s", failed.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestImportRule breaks the rule in every way and expects to be told.
func TestImportRule(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		wrong              bool
	}{
		{"mirrorctl", "mirrorctl/cmd", false},
		{"mirrorctl", "mirrorctl/store", true},
		{"mirrorctl/cmd", "mirrorctl/store", false},
		{"mirrorctl/cmd", "github.com/BurntSushi/toml", true},
		{"mirrorctl/cmd", "github.com/regclient/regclient", true},
		{"mirrorctl/cmd", "mirrorctl/cmd/client", false},
		{"mirrorctl/cmd/client", "mirrorctl/store", true},
		{"mirrorctl/cmd/client", "go.yaml.in/yaml/v4", false},
		{"mirrorctl/dockerfile/compose", "go.yaml.in/yaml/v4", false},
		{"mirrorctl/cmd", "go.yaml.in/yaml/v4", true},
		{"mirrorctl/upstream", "mirrorctl/store", false},
		{"mirrorctl/upstream", "mirrorctl/serve", true},
		{"mirrorctl/upstream", "github.com/regclient/regclient/types/ref", false},
		{"mirrorctl/serve", "mirrorctl/upstream", true},
		{"mirrorctl/serve", "github.com/regclient/regclient/types", true},
		{"mirrorctl/store", "mirrorctl/lockfile", true},
		{"mirrorctl/store", "github.com/mattn/go-sqlite3", false},
		{"mirrorctl/store", "github.com/mattn/go-sqlite3-not", false},
		{"mirrorctl/lockfile", "mirrorctl/lockfile/stricttoml", false},
		{"mirrorctl/lockfile", "github.com/BurntSushi/toml", true},
		{"mirrorctl/lockfile/stricttoml", "mirrorctl/lockfile", true},
		{"mirrorctl/dockerfile", "mirrorctl/store", true},
		{"mirrorctl/dockerfile", "github.com/moby/buildkit/frontend/dockerfile/parser", false},
		{"mirrorctl/lockfile", "github.com/moby/buildkit/frontend/dockerfile/parser", true},
		{"mirrorctl/serve", "github.com/google/go-containerregistry/pkg/registry", true},
		{"mirrorctl/cmd", "github.com/rogpeppe/go-internal/testscript", true},
		{"mirrorctl/upstream", "github.com/urfave/cli/v2", true},
		{"mirrorctl/utils", "fmt", true},
	} {
		got := broken([]listed{{ImportPath: c.importer, Imports: []string{"fmt", c.imported}}})
		if len(got) > 0 != c.wrong {
			t.Errorf("%s importing %s: got %v, want wrong: %v", c.importer, c.imported, got, c.wrong)
		}
	}
	if got := linked([]string{"fmt", "github.com/rogpeppe/go-internal/txtar"}); len(got) != 1 {
		t.Error(fmt.Sprint("a module for tests in the program: got ", got))
	}
}
