package lockfile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func image(name, content string, usedBy ...string) Image {
	return Image{
		Name: "docker.io/library/" + name, Digest: digest.FromString(content), UsedBy: usedBy,
		MediaType: "application/vnd.oci.image.index.v1+json", Size: 1,
	}
}

func names(f File) (names []string) {
	for _, i := range f.Images {
		names = append(names, strings.TrimPrefix(i.Name, "docker.io/library/")+" "+strings.Join(i.UsedBy, "+"))
	}
	return names
}

func TestMerge(t *testing.T) {
	ours := File{Images: []Image{image("a:1", "a", "x"), image("b:1", "b", "x"), image("c:1", "c"), image("d:1", "ours", "x")}}
	theirs := File{Images: []Image{image("b:1", "b", "y"), image("c:1", "c", "y"), image("d:1", "theirs", "x"), image("e:1", "e", "y")}}
	for _, order := range [][2]File{{ours, theirs}, {theirs, ours}} {
		merged, disputed := Merge(File{}, order[0], order[1])
		if got, want := names(merged), []string{"a:1 x", "b:1 x+y", "c:1 ", "e:1 y"}; !slices.Equal(got, want) {
			t.Errorf("merged %q, want %q", got, want)
		}
		if !slices.Equal(disputed, []string{"docker.io/library/d:1"}) {
			t.Errorf("disputed %q", disputed)
		}
	}
	if len(ours.Images[1].UsedBy) != 1 {
		t.Error("Merge changed its argument")
	}
}

func TestMergeWithBase(t *testing.T) {
	tests := []struct {
		name                   string
		base, ours, theirs     []Image
		want, disputed, digest string
	}{
		{"one side moved it", []Image{image("a:1", "old", "x")}, []Image{image("a:1", "new", "x")}, []Image{image("a:1", "old", "y")}, "a:1 x+y", "", "new"},
		{"both moved it to the same", []Image{image("a:1", "old", "x")}, []Image{image("a:1", "new", "x")}, []Image{image("a:1", "new", "x")}, "a:1 x", "", "new"},
		{"both moved it apart", []Image{image("a:1", "old", "x")}, []Image{image("a:1", "new", "x")}, []Image{image("a:1", "newer", "x")}, "", "a:1", ""},
		{"new on both", nil, []Image{image("a:1", "new", "x")}, []Image{image("a:1", "newer", "x")}, "", "a:1", ""},
		{"dropped, which the next sync decides", []Image{image("a:1", "a", "x")}, nil, []Image{image("a:1", "a", "x")}, "a:1 x", "", "a"},
		{"removed by hand", []Image{image("a:1", "a")}, nil, []Image{image("a:1", "a")}, "", "", ""},
		{"removed by hand, and moved", []Image{image("a:1", "a")}, nil, []Image{image("a:1", "b")}, "a:1 ", "", "b"},
		{"added by hand", nil, nil, []Image{image("a:1", "a")}, "a:1 ", "", "a"},
	}
	for _, tt := range tests {
		for _, order := range [][2][]Image{{tt.ours, tt.theirs}, {tt.theirs, tt.ours}} {
			merged, disputed := Merge(File{tt.base}, File{order[0]}, File{order[1]})
			if got := strings.Join(names(merged), ","); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
			if got := strings.TrimPrefix(strings.Join(disputed, ","), "docker.io/library/"); got != tt.disputed {
				t.Errorf("%s: disputed %q, want %q", tt.name, got, tt.disputed)
			}
			if tt.digest != "" && merged.Images[0].Digest != digest.FromString(tt.digest) {
				t.Errorf("%s: another digest", tt.name)
			}
		}
	}
}

// TestConflictInAnEntry is a text that git left, in which the name and digest of
// one image stand over the platforms of another, and in which there is nothing
// left of a third.
func TestConflictInAnEntry(t *testing.T) {
	entry := func(name string) string {
		data, err := Encode(File{Images: []Image{truth(name, 1)}})
		if err != nil {
			t.Fatal(err)
		}
		return string(data[strings.Index(string(data), "[[image]]"):])
	}
	a, b, c := entry("a:1"), entry("b:1"), entry("c:1")
	head, platforms, _ := strings.Cut(b, "[image.platforms]\n")
	tests := []struct {
		name, text string
		line       string // of the conflict that is refused, "" for none
		ours       string
	}{
		{"between entries", "<<<<<<< HEAD\n" + a + "\n=======\n" + b + "\n>>>>>>> t\n" + c, "", "a:1 c:1"},
		{"with the base", "<<<<<<< HEAD\n" + a + "\n||||||| base\nx = 1\n=======\n" + b + "\n>>>>>>> t\n" + c, "", "a:1 c:1"},
		{"one side only", a + "\n<<<<<<< HEAD\n=======\n" + b + "\n>>>>>>> t\n" + c, "", "a:1 c:1"},
		{"at the end", a + "\n<<<<<<< HEAD\n" + b + "=======\n" + c + ">>>>>>> t\n", "", "a:1 b:1"},
		{"begins in an entry", head + "[image.platforms]\n<<<<<<< HEAD\n" + platforms + "\n" + c + "=======\n" + platforms + ">>>>>>> t\n", "10", ""},
		{"ends in an entry", "<<<<<<< HEAD\n" + a + "\n" + head + "=======\n" + head + ">>>>>>> t\n[image.platforms]\n" + platforms, "3", ""},
		{"one side is empty in an entry", head + "[image.platforms]\n<<<<<<< HEAD\n=======\n" + platforms + ">>>>>>> t\n" + "\n" + c, "10", ""},
	}
	for _, tt := range tests {
		ours, _, err := DecodeConflicted("mirror.lock", []byte("version = 1\n\n"+tt.text))
		switch {
		case tt.line == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.line == "":
			if got := strings.TrimSpace(strings.Join(names(ours), "")); got != tt.ours {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.ours)
			}
		case !errors.Is(err, ErrConflictMarkers) || !strings.HasPrefix(err.Error(), "mirror.lock:"+tt.line+": "):
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// runGit runs git on a repository of its own, with no configuration of this machine.
func runGit(dir, stdin string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func gitMust(t *testing.T, dir, stdin string, args ...string) {
	t.Helper()
	if out, err := runGit(dir, stdin, args...); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

func gitRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	gitMust(t, dir, "", "init", "-q", "-b", "main")
	return dir
}

// TestGitMerge lets git merge two branches that each add an image: in different
// places of the lock it does so by itself; in one place it leaves a conflict,
// which is refused and which ReadMerged resolves.
func TestGitMerge(t *testing.T) {
	base := File{Images: []Image{image("b:1", "b", "Dockerfile"), image("d:1", "d", "Dockerfile"), image("f:1", "f", "Dockerfile")}}
	tests := []struct {
		name, style     string
		ours, theirs    File
		conflict        bool
		merged, dispute []string
	}{
		{"apart", "merge", base.plus(image("a:1", "a", "o")), base.plus(image("e:1", "e", "t")), false,
			[]string{"a:1 o", "b:1 Dockerfile", "d:1 Dockerfile", "e:1 t", "f:1 Dockerfile"}, nil},
		{"one place", "merge", base.plus(image("e:1", "e", "o")), base.plus(image("e:2", "e2", "t")), true,
			[]string{"b:1 Dockerfile", "d:1 Dockerfile", "e:1 o", "e:2 t", "f:1 Dockerfile"}, nil},
		{"one image", "diff3", base.plus(image("e:1", "ours", "o")), base.plus(image("e:1", "theirs", "t")), true,
			[]string{"b:1 Dockerfile", "d:1 Dockerfile", "f:1 Dockerfile"}, []string{"docker.io/library/e:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := gitRepository(t)
			path := filepath.Join(dir, DefaultName)
			commit := func(f File) {
				t.Helper()
				if _, err := Write(path, f); err != nil {
					t.Fatal(err)
				}
				gitMust(t, dir, "", "add", DefaultName)
				gitMust(t, dir, "", "commit", "-qm", "x")
			}
			gitMust(t, dir, "", "config", "merge.conflictStyle", tt.style)
			commit(base)
			gitMust(t, dir, "", "checkout", "-qb", "theirs")
			commit(tt.theirs)
			gitMust(t, dir, "", "checkout", "-q", "main")
			commit(tt.ours)
			out, err := runGit(dir, "", "merge", "-q", "--no-edit", "theirs")
			if (err != nil) != tt.conflict {
				t.Fatalf("git merge: %v\n%s", err, out)
			}
			if _, err := Read(path); (err != nil) != tt.conflict {
				t.Fatalf("Read: %v", err)
			}
			merged, disputed, err := ReadMerged(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(merged); !slices.Equal(got, tt.merged) {
				t.Errorf("merged %q, want %q", got, tt.merged)
			}
			if !slices.Equal(disputed, tt.dispute) {
				t.Errorf("disputed %q, want %q", disputed, tt.dispute)
			}
		})
	}
}

// plus returns the lock with one more image, its files kept.
func (f File) plus(image Image) File {
	return sortedFile(File{Images: append(slices.Clone(f.Images), image)}.byName())
}

func TestPutRight(t *testing.T) {
	mixed := truth("a:1", 1)
	mixed.UsedBy = []string{"x"}
	mixed.Platforms, mixed.Size = truth("b:1", 1).Platforms, 3
	other := truth("b:1", 2)
	got := File{Images: []Image{mixed, other}}.PutRight(truth("a:1", 1), truth("b:1", 3), truth("c:1", 1))
	want := truth("a:1", 1)
	want.UsedBy = []string{"x"}
	if diff := Diff(got, File{Images: []Image{want, other}}); len(diff) > 0 {
		t.Error(diff)
	}
}
