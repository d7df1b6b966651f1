package dockerfile_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/rogpeppe/go-internal/txtar"

	"mirrorctl/dockerfile"
)

// FuzzFind holds what is true of any input: no panic, an *Error or images whose
// names parse back to themselves and whose lines are in the file, and more
// images with all stages than without.
func FuzzFind(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if !strings.HasSuffix(part.Name, ".want") && !strings.HasSuffix(part.Name, ".opts") {
				f.Add(unescape(part.Data), "", "V", "1")
			}
		}
	}
	f.Add([]byte("ARG A\nFROM $A AS b\nFROM c"), "b", "A", "x")
	f.Fuzz(func(t *testing.T, file []byte, target, key, value string) {
		opts := dockerfile.Options{Target: target, BuildArgs: map[string]string{key: value}}
		res, err := dockerfile.Find(file, opts)
		opts.AllStages = true
		all, allErr := dockerfile.Find(file, opts)
		// A context may be wrong only where it is needed.
		opts.Contexts = map[string]string{key: "docker-image://" + value}
		if _, err := dockerfile.Find(file, opts); err != nil {
			checkError(t, file, err)
		}
		if (err == nil) != (allErr == nil) {
			t.Fatalf("error %v, and with all stages %v", err, allErr)
		}
		if err != nil {
			checkError(t, file, err)
			return
		}
		if len(res.Images) > len(all.Images) {
			t.Errorf("%d images, and %d with all stages", len(res.Images), len(all.Images))
		}
		for _, e := range res.Skipped {
			checkError(t, file, e)
			if e.Platform == nil {
				t.Errorf("skipped, but for no platform: %v", e)
			}
		}
		last := 0
		for _, img := range res.Images {
			if img.Unreachable {
				t.Errorf("%s: unreachable", img.Name)
			}
			again, err := reference.ParseNormalizedNamed(img.Name.String())
			if err != nil || again.String() != img.Name.String() || reference.IsNameOnly(img.Name) {
				t.Errorf("%q is not a full name (%v)", img.Name, err)
			}
			if (img.Stage == "") != (img.Kind == dockerfile.KindSyntax) || len(img.Platforms) == 0 {
				t.Errorf("incomplete: %+v", img)
			}
			if img.Line < last {
				t.Errorf("line %d after line %d", img.Line, last)
			}
			last = img.Line
		}
		if lines := strings.Count(string(file), "\n") + 1; last > lines {
			t.Errorf("line %d of %d", last, lines)
		}
	})
}

func checkError(t *testing.T, file []byte, err error) {
	t.Helper()
	var e *dockerfile.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is not an *Error: %v", err, err)
	}
	lines := strings.Count(string(file), "\n") + 1
	if e.Line < 0 || e.Line > lines || e.Err.Error() == "" {
		t.Errorf("line %d of %d: %v", e.Line, lines, e.Err)
	}
}
