package lockfile

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func sha(s string) digest.Digest { return digest.FromString(s) }

func sample() File {
	return File{Images: []Image{
		{
			Name: "quay.io/app/plain:v1", Digest: sha("plain"), Size: 0,
			MediaType: "application/vnd.docker.distribution.manifest.v2+json",
		},
		{
			Name: "docker.io/library/debian:bookworm", Digest: sha("debian"), MediaType: v1.MediaTypeImageIndex, Size: 96450123,
			UsedBy:    []string{"services/api/Dockerfile", "Dockerfile", "odd \"näme\"\\\t", "Dockerfile"},
			Platforms: map[string]digest.Digest{"linux/arm64/v8": sha("arm64"), "linux/amd64": sha("amd64")},
		},
		{
			Name:   "mcr.microsoft.com/windows/nanoserver@" + string(digest.SHA512.FromString("nano")),
			Digest: digest.SHA512.FromString("nano"), MediaType: v1.MediaTypeImageIndex, Size: 1,
			Platforms: map[string]digest.Digest{
				"windows/amd64:10.0.20348.2227": sha("w1"), "windows/amd64:10.0.17763.5329": sha("w2"), "linux/amd64#2": sha("w3"),
			},
		},
	}}
}

func TestGolden(t *testing.T) {
	const golden = "testdata/mirror.lock"
	got, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for name, text := range map[string]string{
		"as it is": string(want),
		"crlf":     strings.ReplaceAll(string(want), "\n", "\r\n"),
		"bom":      "\ufeff" + string(want),
	} {
		f, err := Decode(golden, []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := Encode(f)
		if err != nil || string(again) != string(want) {
			t.Errorf("%s: %v, got\n%s", name, err, again)
		}
	}
}

func TestEmptyLock(t *testing.T) {
	data, err := Encode(File{})
	if err != nil || string(data) != header+"version = 1\n" {
		t.Errorf("%v, %q", err, data)
	}
	if f, err := Decode("l", data); err != nil || len(f.Images) != 0 {
		t.Errorf("%v, %v", f, err)
	}
}

func TestDecodeHandEdited(t *testing.T) {
	f, err := Decode("l", []byte(`# ours
version = 1
image = [
  {name = 'docker.io/library/b:1', digest = '`+string(sha("b"))+`', media_type = 'a/b', size = 0x10, used_by = ["z", "a", "a"]},
  {name = 'docker.io/library/a:1', digest = '`+string(sha("a"))+`', media_type = 'a/b', size = 1_000, platforms = {"linux/amd64" = '`+string(sha("p"))+`'}},
]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := File{Images: []Image{
		{Name: "docker.io/library/a:1", Digest: sha("a"), MediaType: "a/b", Size: 1000, Platforms: map[string]digest.Digest{"linux/amd64": sha("p")}},
		{Name: "docker.io/library/b:1", Digest: sha("b"), MediaType: "a/b", Size: 16, UsedBy: []string{"a", "z"}},
	}}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got %+v, want %+v", f, want)
	}
}

func entry(lines ...string) string { return "[[image]]\n" + strings.Join(lines, "\n") + "\n" }

func TestDecodeErrors(t *testing.T) {
	name, dig, mt, size := `name = "docker.io/library/a:1"`, `digest = "`+string(sha("a"))+`"`, `media_type = "a/b"`, "size = 1"
	good := entry(name, dig, mt, size)
	for label, test := range map[string]struct{ text, want string }{
		"syntax":          {"version = 1\n[[image]\n", "mirror.lock:2:"},
		"no version":      {good, "mirror.lock:1:1: missing key version"},
		"version type":    {"version = \"1\"\n", "mirror.lock:1:1: version must be a whole number, not a string"},
		"version zero":    {"version = 0\n", "mirror.lock:1:1: unknown version 0"},
		"newer":           {"\nversion = 2\nother = 1\n", "mirror.lock:2:1: written by a newer mirrorctl (version 2); this one reads version 1: upgrade mirrorctl"},
		"unknown key":     {"version = 1\nversoin = 2\n", "mirror.lock:2:1: unknown key versoin (did you mean version?)"},
		"key in image":    {"version = 1\n" + entry(name, dig, mt, size, "  used = 1"), "mirror.lock:7:3: unknown key image.used"},
		"case of a key":   {"version = 1\n" + entry("Name = \"x\"", name, dig, mt, size), "mirror.lock:3:1: unknown key image.Name (did you mean name?)"},
		"duplicate":       {"version = 1\n" + good + good, "mirror.lock:8:1: image docker.io/library/a:1 is there twice, as a merge may leave it: remove one entry and run mirrorctl sync"},
		"missing":         {"version = 1\n" + good + entry(`name = "docker.io/library/b:1"`, dig, size), "mirror.lock:7:3: missing key image.media_type"},
		"short name":      {"version = 1\n" + entry(`name = "a:1"`, dig, mt, size), `mirror.lock:3:1: name "a:1" is not fully qualified: write docker.io/library/a:1`},
		"no tag":          {"version = 1\n" + entry(`name = "docker.io/library/a"`, dig, mt, size), `mirror.lock:3:1: name "docker.io/library/a" has neither tag nor digest`},
		"bad name":        {"version = 1\n" + entry(`name = "docker.io/A b"`, dig, mt, size), `mirror.lock:3:1: name "docker.io/A b": invalid reference format`},
		"bad digest":      {"version = 1\n" + entry(name, `digest = "sha256:12"`, mt, size), `mirror.lock:4:1: digest "sha256:12": invalid checksum digest length`},
		"other digest":    {"version = 1\n" + entry(`name = "docker.io/library/a@`+string(sha("b"))+`"`, dig, mt, size), "mirror.lock:4:1: the name says sha256:"},
		"media type":      {"version = 1\n" + entry(name, dig, `media_type = "json"`, size), `mirror.lock:5:1: media type "json"`},
		"size":            {"version = 1\n" + entry(name, dig, mt, "size = -1"), "mirror.lock:6:1: size -1 is negative"},
		"absolute path":   {"version = 1\n" + entry(name, dig, mt, size, "used_by = [\n\"a\",\n\"/b\"]"), `mirror.lock:9:1: path "/b" is absolute`},
		"unclean path":    {"version = 1\n" + entry(name, dig, mt, size, `used_by = ["./b"]`), `mirror.lock:7:12: path "./b" is not the clean path`},
		"folder":          {"version = 1\n" + entry(name, dig, mt, size, `used_by = ["../.."]`), `mirror.lock:7:12: path "../.." is not the clean path`},
		"platform":        {"version = 1\n" + entry(name, dig, mt, size, "[image.platforms]", `linux = "`+string(sha("p"))+`"`), `mirror.lock:8:1: platform "linux": not of the form`},
		"platform number": {"version = 1\n" + entry(name, dig, mt, size, "[image.platforms]", `"a/b#1" = "`+string(sha("p"))+`"`), `mirror.lock:8:1: platform "a/b#1"`},
		"platform digest": {"version = 1\n" + good + entry(`name = "docker.io/library/b:1"`, dig, mt, size, "[image.platforms]", `"a/b" = "x"`), `mirror.lock:13:1: digest "x"`},
		"image table":     {"version = 1\n[image]\n", "mirror.lock:2:2: image must be written [[image]], and is a table"},
		"conflict":        {"version = 1\n\n<<<<<<< HEAD\n", "mirror.lock:3: git left a merge conflict here: run mirrorctl sync, which joins both sides"},
		"conflict, crlf":  {"version = 1\r\n<<<<<<< HEAD\r\n", "mirror.lock:2: git left"},
	} {
		f, err := Decode("mirror.lock", []byte(test.text))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || len(f.Images) > 0 {
			t.Errorf("%s: got %v, want %s", label, err, test.want)
		}
	}
	if _, err := Decode("l", make([]byte, MaxSize+1)); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("size limit: %v", err)
	}
	if _, err := Decode("l", []byte("version = 3")); !errors.Is(err, ErrNewer) {
		t.Errorf("not ErrNewer: %v", err)
	}
	if _, err := Decode("l", []byte(">>>>>>> x")); !errors.Is(err, ErrConflictMarkers) {
		t.Errorf("not ErrConflictMarkers: %v", err)
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	ok := Image{Name: "docker.io/library/a:1", Digest: sha("a"), MediaType: "a/b"}
	bad := ok
	bad.Digest = ""
	for _, f := range []File{{Images: []Image{bad}}, {Images: []Image{ok, ok}}} {
		if data, err := Encode(f); err == nil || data != nil || !strings.Contains(err.Error(), `image "docker.io/library/a:1"`) {
			t.Errorf("%q, %v", data, err)
		}
	}
	bad = ok
	bad.UsedBy = []string{"a\xffb"}
	if _, err := Encode(File{Images: []Image{bad}}); err == nil {
		t.Error("a path that is not UTF-8 was encoded")
	}
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("version = 1\n[[image]]\nname = \"docker.io/library/a:1\"\ndigest = \"" + string(sha("a")) + "\"\nmedia_type = \"a/b\"\nsize = 1\nused_by = [\"\\u0001\"]\n"))
	f.Add([]byte("version = 2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode("l", data)
		if err != nil {
			return
		}
		first, err := Encode(file)
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		again, err := Decode("l", first)
		if err != nil {
			t.Fatalf("encoded but not decoded: %v\n%s", err, first)
		}
		second, err := Encode(again)
		if err != nil || string(first) != string(second) {
			t.Errorf("not a fixed point: %v\n%s\n%s", err, first, second)
		}
		if diff := Diff(file, again); len(diff) > 0 {
			t.Errorf("changed: %v", diff)
		}
	})
}

func TestPlatformKeys(t *testing.T) {
	at := func(os, arch, variant, version, content string) v1.Descriptor {
		return v1.Descriptor{Digest: sha(content), Platform: &v1.Platform{OS: os, Architecture: arch, Variant: variant, OSVersion: version}}
	}
	got := PlatformKeys([]v1.Descriptor{
		at("linux", "amd64", "", "", "a"), at("linux", "amd64", "", "", "a"), at("linux", "arm64", "v8", "", "b"),
		at("windows", "amd64", "", "10.0.20348.2227", "c"), at("windows", "amd64", "", "10.0.17763.5329", "d"),
		at("windows", "arm64", "", "10.0.1", "e"), at("unknown", "unknown", "", "", "f"), at("", "", "", "", "f"), at("bad os", "x", "", "", "f"),
		at("linux", "s390x", "", "", "g"), at("linux", "s390x", "", "", "h"), at("linux", "s390x", "", "", "i"), {Digest: sha("x")},
	})
	want := map[string]digest.Digest{
		"linux/amd64": sha("a"), "linux/arm64/v8": sha("b"), "windows/amd64:10.0.20348.2227": sha("c"),
		"windows/amd64:10.0.17763.5329": sha("d"), "windows/arm64": sha("e"),
		"linux/s390x": sha("g"), "linux/s390x#2": sha("h"), "linux/s390x#3": sha("i"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for key := range got {
		if err := checkPlatformKey(key); err != nil {
			t.Error(err)
		}
	}
}

func TestReadMissing(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "mirror.lock")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
