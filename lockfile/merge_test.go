package lockfile

import (
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
		merged, disputed := Merge(order[0], order[1])
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

// TestGitMerge lets git merge two branches that each add an image: in different
// places of the lock it does so by itself; in one place it leaves a conflict,
// which is refused and which DecodeConflicted and Merge resolve.
func TestGitMerge(t *testing.T) {
	git := func(dir string, args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := git(t.TempDir(), "version"); err != nil {
		t.Fatalf("git is needed: %v %s", err, out)
	}
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
			dir := t.TempDir()
			path := filepath.Join(dir, DefaultName)
			commit := func(f File) {
				t.Helper()
				if _, err := Write(path, f); err != nil {
					t.Fatal(err)
				}
				if out, err := git(dir, "commit", "-qam", "x"); err != nil {
					t.Fatal(out)
				}
			}
			for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"config", "merge.conflictStyle", tt.style}} {
				if out, err := git(dir, args...); err != nil {
					t.Fatal(out)
				}
			}
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := git(dir, "add", DefaultName); err != nil {
				t.Fatal(out)
			}
			commit(base)
			if out, err := git(dir, "checkout", "-qb", "theirs"); err != nil {
				t.Fatal(out)
			}
			commit(tt.theirs)
			if out, err := git(dir, "checkout", "-q", "main"); err != nil {
				t.Fatal(out)
			}
			commit(tt.ours)
			out, err := git(dir, "merge", "-q", "--no-edit", "theirs")
			if (err != nil) != tt.conflict {
				t.Fatalf("git merge: %v\n%s", err, out)
			}
			if _, err := Read(path); (err != nil) != tt.conflict {
				t.Fatalf("Read: %v", err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs, err := DecodeConflicted(path, data)
			if err != nil {
				t.Fatal(err)
			}
			merged, disputed := Merge(ours, theirs)
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
