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

// FuzzReplace holds that a file with digests in it uses the same images in the
// same places, and that nothing else in it has changed.
func FuzzReplace(f *testing.F) {
	for _, text := range []string{
		"ARG A=b\nFROM $A AS b\nFROM b\n", "FROM \\\n# a\n a AS a\nRUN --mount=from=b,target=/c <<E\nfrom=b\nE\n",
		"# escape=`\nFROM a`\n AS b\nCOPY --from=c / /\n", "# syntax=a/b:1\r\nFROM 'a'\r\nONBUILD COPY --from=\"c\" / /\r\n",
	} {
		f.Add([]byte(text))
	}
	const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	f.Fuzz(func(t *testing.T, file []byte) {
		before, err := dockerfile.Find(file, dockerfile.Options{AllStages: true})
		if err != nil || strings.Contains(string(file), "@") {
			return
		}
		var all []dockerfile.Replacement
		for _, img := range before.Images {
			all = append(all, dockerfile.Replacement{Image: img, New: img.Reference + digest})
		}
		out, left, err := dockerfile.Replace(file, all)
		if err != nil {
			t.Fatal(err)
		}
		if string(file) != strings.ReplaceAll(string(out), digest, "") {
			t.Fatalf("something else has changed: %q", out)
		}
		after, err := dockerfile.Find(out, dockerfile.Options{AllStages: true})
		if err != nil {
			t.Fatalf("%v: %q", err, out)
		}
		if len(after.Images) != len(before.Images) {
			t.Fatalf("%d images, and %d before: %q", len(after.Images), len(before.Images), out)
		}
		changed := 0
		for i, img := range after.Images {
			was := before.Images[i]
			if img.Line != was.Line || img.Stage != was.Stage || img.Kind != was.Kind || img.Name.Name() != was.Name.Name() {
				t.Fatalf("%+v, and before %+v: %q", img, was, out)
			}
			if img.Reference != was.Reference {
				changed++
			}
		}
		if changed != len(all)-len(left) {
			t.Errorf("%d changed of %d, %d left: %q", changed, len(all), len(left), out)
		}
	})
}
