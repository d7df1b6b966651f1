package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestLists(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	for _, tag := range []string{"b", "A", "a", "10", "9", root.Digest.String()} {
		mustAdd(t, s, c, debian, tag, root.Digest)
	}
	for _, repo := range []Repository{{"ghcr.io", "a/b"}, {"docker.io", "a/b"}, {"ghcr.io:443", "a"}, {"ghcr.io", "a"}, {"ghcr.io-a", "z"}} {
		must[Pin](t)(s.PinPublished(t.Context(), repo, "latest", root.Digest, false))
	}
	cosign := c.companions[0].Reference
	for _, test := range []struct {
		last string
		n    int
		want []string
	}{
		{"", -1, []string{"10", "9", "A", "a", "b", cosign}},
		{"", 2, []string{"10", "9"}},
		{"9", 2, []string{"A", "a"}},
		{"9x", 1, []string{"A"}},
		{"zzz", -1, nil},
		{"", 0, nil},
	} {
		tags, err := s.Tags(t.Context(), debian, test.last, test.n)
		if err != nil || !slices.Equal(tags, test.want) {
			t.Errorf("tags after %q, %d: %q, %v", test.last, test.n, tags, err)
		}
	}
	if _, err := s.Tags(t.Context(), Repository{"docker.io", "none"}, "", -1); !errors.Is(err, ErrNotFound) {
		t.Errorf("tags of nothing: %v", err)
	}
	for _, test := range []struct {
		registry, last string
		n              int
		want           string
	}{
		{"", "", -1, "docker.io/a/b docker.io/library/debian ghcr.io-a/z ghcr.io/a ghcr.io/a/b ghcr.io:443/a"},
		{"", "", 3, "docker.io/a/b docker.io/library/debian ghcr.io-a/z"},
		{"", "", 0, ""},
		{"", "docker.io/a/b", 2, "docker.io/library/debian ghcr.io-a/z"},
		{"", "ghcr.io", 2, "ghcr.io-a/z ghcr.io/a"},
		{"", "ghcr.io-b", -1, "ghcr.io/a ghcr.io/a/b ghcr.io:443/a"},
		{"", "zzz/z", -1, ""},
		{"ghcr.io", "docker.io/zzz", -1, "ghcr.io/a ghcr.io/a/b"},
		{"ghcr.io", "quay.io/a", -1, ""},
		{"none.example", "", -1, ""},
		{"ghcr.io", "", -1, "ghcr.io/a ghcr.io/a/b"},
		{"", "ghcr.io/a", 1, "ghcr.io/a/b"},
		{"", "ghcr.io/a/b", -1, "ghcr.io:443/a"},
	} {
		repos, err := s.Repositories(t.Context(), test.registry, test.last, test.n)
		var names []string
		for _, r := range repos {
			names = append(names, r.String())
		}
		if got := strings.Join(names, " "); err != nil || got != test.want {
			t.Errorf("repositories of %q after %q: %s, %v", test.registry, test.last, got, err)
		}
	}
	pins := must[[]Pin](t)(s.Pins(t.Context()))
	if len(pins) != 11 || pins[0].Name() != "docker.io/a/b:latest" {
		t.Errorf("%d pins, the first is %s", len(pins), pins[0].Name())
	}
	for repo, want := range map[Repository]bool{debian: true, {"docker.io", "none"}: false} {
		if in := must[bool](t)(s.PinnedIn(t.Context(), repo, root.Digest)); in != want {
			t.Errorf("pinned in %s: %v", repo, in)
		}
	}
}

func TestTree(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	mustAdd(t, s, c, Repository{"ghcr.io", "a"}, "bookworm", root.Digest)
	tree := must[Node](t)(s.Tree(t.Context(), root.Digest))
	if len(tree.Children) != 4 || len(tree.Referrers) != 1 || tree.Referrers[0].ArtifactType != "application/x-signature" {
		t.Fatalf("root has %d children, %d referrers", len(tree.Children), len(tree.Referrers))
	}
	amd := tree.Children[0]
	if amd.Platform != "linux/amd64" || len(amd.Children) != 3 || !amd.Children[1].Shared || amd.Children[2].Shared {
		t.Errorf("first child is %+v", amd)
	}
	if len(amd.Referrers) != 1 || !slices.Equal(amd.Referrers[0].Tags, []string{c.companions[0].Reference}) {
		t.Errorf("its companions are %+v", amd.Referrers)
	}
}

// An index that lists another a hundred times, and so on for eight levels, has
// 10^16 leaves.
func TestManyPaths(t *testing.T) {
	s := newStore(t)
	c := newContent()
	d := c.image("linux/amd64", c.layer("x"))
	for range 8 {
		d = c.index(slices.Repeat([]v1.Descriptor{d}, 100)...)
	}
	pin := mustAdd(t, s, c, debian, "bomb", d.Digest)
	if len(pin.Platforms) != 100 {
		t.Errorf("%d platforms", len(pin.Platforms))
	}
	must[Node](t)(s.Tree(t.Context(), d.Digest))
	checkClean(t, s)
	if _, freed, err := s.Remove(t.Context(), debian, "bomb"); err != nil || freed.Blobs != 11 {
		t.Errorf("freed %+v, %v", freed, err)
	}
}

func TestLocate(t *testing.T) {
	d := digest.FromString("x").String()
	for in, want := range map[string]string{
		"debian": "docker.io/library/debian latest", "debian:12": "docker.io/library/debian 12",
		"ghcr.io/a/b:v1@" + d: "ghcr.io/a/b " + d, "localhost:5000/x@" + d: "localhost:5000/x " + d,
	} {
		repo, ref := Locate(must[reference.Named](t)(reference.ParseNormalizedNamed(in)))
		if got := repo.String() + " " + ref; got != want {
			t.Errorf("%s is located at %s", in, got)
		}
	}
}

// Handles of their own in one process behave like processes.
func TestManyAtOnce(t *testing.T) {
	s := newStore(t)
	base, root := debianImage()
	mustAdd(t, s, base, debian, "fixed", root.Digest)
	var group sync.WaitGroup
	end := time.Now().Add(2 * time.Second)
	for i := range 6 {
		group.Go(func() {
			own, err := Open(context.Background(), s.dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer own.Close()
			repo := Repository{"docker.io", fmt.Sprintf("library/r%d", i%3)}
			for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
				c := newContent()
				d := c.index(c.image("linux/amd64", c.layer("shared layer"), c.layer(fmt.Sprint(n%5))))
				if _, err := add(t.Context(), own, c, repo, "v1", d.Digest, true); err != nil {
					t.Error(err)
				}
				if _, err := own.Pins(t.Context()); err != nil {
					t.Error(err)
				}
				if _, _, err := own.Remove(t.Context(), repo, "v1"); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
				if n%4 == 0 {
					if _, err := own.Collect(t.Context(), 0); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 2 { // readers that never see less than all of what is pinned
		group.Go(func() {
			for time.Now().Before(end) {
				for d := range base.blobs {
					r, _, err := s.Blob(t.Context(), debian, d)
					if err != nil {
						t.Error(err)
						return
					}
					r.Close()
				}
			}
		})
	}
	group.Wait()
	checkClean(t, s)
}

// Neither errors nor interrupts may leave descriptors open or a transaction behind.
func TestNothingLeaks(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		return len(entries)
	}
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	damage(t, s, digest.FromString("arm64 layer"), func(b []byte) []byte { return b[1:] })
	try := func(ctx context.Context) {
		if l, err := s.NewLease(ctx); err == nil {
			l.Writer(ctx, describe([]byte("shared layer")))
			if w, err := l.Writer(ctx, describe([]byte("new"))); err == nil {
				w.Commit(ctx)
				w.Close()
			}
			l.Publish(ctx, newContent().at(debian, "x", root.Digest), false)
			l.Close()
		}
		s.Blob(ctx, debian, digest.FromString("arm64 layer"))
		s.Verify(ctx, nil, nil)
		s.Remove(ctx, debian, "none")
		s.Collect(ctx, 0)
		if other, err := Open(ctx, s.dir); err == nil {
			other.Close()
		}
	}
	try(t.Context())
	before := descriptors()
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		try(ctx)
		cancel()
	}
	try(t.Context())
	if after := descriptors(); after > before+8 { // the pool of readers may have grown
		t.Errorf("%d descriptors are open, there were %d", after, before)
	}
	if _, _, err := s.Remove(t.Context(), debian, "bookworm"); err != nil {
		t.Error(err)
	}
}
