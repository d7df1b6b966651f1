package lockfile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// truth is what is so about a digest: an entry that says anything else of it is
// mixed of two. Some images share platforms, as real ones do.
func truth(name string, version int) Image {
	im := image(name, fmt.Sprint(name[:1], version))
	im.Size = int64(1000 + version)
	im.Platforms = map[string]digest.Digest{}
	for i, platform := range []string{"linux/386", "linux/amd64", "linux/arm64"} {
		if (int(name[0])+i)%4 == 0 {
			continue // not every image has all
		}
		im.Platforms[platform] = digest.FromString(fmt.Sprint(name[:1], version/(i+1), platform))
	}
	return im
}

// edited makes a few changes to a lock, as branches do: entries come, go and
// move, and other files use them.
func edited(r *rand.Rand, f File) File {
	all := f.byName()
	for range 1 + r.IntN(3) {
		name := fmt.Sprintf("%c:%d", 'a'+r.IntN(6), r.IntN(2))
		entry := truth(name, r.IntN(4))
		for i := range r.IntN(3) {
			entry.UsedBy = append(entry.UsedBy, fmt.Sprint("Dockerfile", r.IntN(2)+2*i))
		}
		switch old, there := all[entry.Name]; {
		case there && r.IntN(3) == 0:
			delete(all, entry.Name)
		case there && r.IntN(2) == 0:
			old.UsedBy = entry.UsedBy
			all[entry.Name] = old
		default:
			all[entry.Name] = entry
		}
	}
	return sortedFile(all)
}

// pair is two branches.
type pair struct{ base, ours, theirs File }

// problems is what is wrong with the lock that came of joining them.
func (p pair) problems(merged File, disputed []string) (found []string) {
	base, ours, theirs, got := p.base.byName(), p.ours.byName(), p.theirs.byName(), merged.byName()
	names := slices.Collect(maps.Keys(ours))
	names = sortedSet(slices.AppendSeq(names, maps.Keys(theirs)))
	for _, name := range names {
		was, a, b, now := base[name], ours[name], theirs[name], got[name]
		_, there := got[name]
		removed := a.Name == "" && was.Name != "" || b.Name == "" && was.Name != ""
		bothMoved := a.Digest != b.Digest && a.Digest != was.Digest && b.Digest != was.Digest
		switch {
		case !there && !removed && !(bothMoved && slices.Contains(disputed, name)):
			found = append(found, name+" is lost")
		case there && now.Digest != a.Digest && now.Digest != b.Digest:
			found = append(found, name+" has a digest that neither side has")
		case slices.Contains(disputed, name) && (!bothMoved || there):
			found = append(found, name+" is no dispute")
		}
	}
	for name, now := range got {
		version := int(now.Size - 1000)
		want := truth(strings.TrimPrefix(name, "docker.io/library/"), version)
		want.UsedBy = now.UsedBy
		if !reflect.DeepEqual(now, want) {
			found = append(found, fmt.Sprintf("%s is mixed: %+v", name, now))
		}
		if !slices.Contains(names, name) {
			found = append(found, name+" is on neither side")
		}
	}
	return found
}

// TestGitMergeRandom lets git merge many pairs of branches and joins what it
// could not: nothing is lost that neither side removed, no entry is mixed of two,
// and no digest comes from anywhere but the sides.
func TestGitMergeRandom(t *testing.T) {
	dir := gitRepository(t)
	path := filepath.Join(dir, DefaultName)
	const pairs = 30
	r := rand.New(rand.NewPCG(1, 2))
	var stream strings.Builder
	var all []pair
	for i := range pairs {
		p := pair{base: edited(r, edited(r, File{}))}
		p.ours, p.theirs = edited(r, p.base), edited(r, p.base)
		all = append(all, p)
		for _, b := range []struct {
			name, from string
			lock       File
		}{{"base", "", p.base}, {"ours", "base", p.ours}, {"theirs", "base", p.theirs}} {
			data, err := Encode(b.lock)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&stream, "commit refs/heads/%s%d\ncommitter t <t@example.test> 1 +0000\ndata 0\n", b.name, i)
			if b.from != "" {
				fmt.Fprintf(&stream, "from refs/heads/%s%d\n", b.from, i)
			}
			fmt.Fprintf(&stream, "M 100644 inline %s\ndata %d\n%s\n", DefaultName, len(data), data)
		}
	}
	gitMust(t, dir, stream.String(), "fast-import", "--quiet")
	conflicts, refused, loud := 0, 0, 0
	for i, p := range all {
		gitMust(t, dir, "", "checkout", "-qf", fmt.Sprint("ours", i))
		if _, err := runGit(dir, "", "merge", "-q", "--no-edit", fmt.Sprint("theirs", i)); err == nil {
			merged, err := Read(path)
			if err != nil {
				loud++ // an entry may be there twice; it is refused
				continue
			}
			for _, problem := range p.problems(merged, nil) {
				t.Errorf("pair %d, which git merged: %s", i, problem)
			}
			continue
		}
		conflicts++
		merged, disputed, err := ReadMerged(path)
		if err != nil {
			t.Errorf("pair %d: %v", i, err)
		}
		for _, problem := range p.problems(merged, disputed) {
			t.Errorf("pair %d, with git's index: %s", i, problem)
		}
		gitMust(t, dir, "", "add", DefaultName) // marked as resolved, which it is not
		if again, _, err := ReadMerged(path); err != nil || len(Diff(again, merged)) > 0 {
			t.Errorf("pair %d, marked as resolved: %v", i, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs, err := DecodeConflicted(path, data)
		if err != nil {
			refused++
		} else {
			merged, disputed = Merge(File{}, ours, theirs)
			for _, problem := range p.problems(merged, disputed) {
				t.Errorf("pair %d, from the text: %s\n%s", i, problem, data)
			}
		}
		gitMust(t, dir, "", "reset", "-q", "--hard")
	}
	t.Logf("%d pairs, %d merged to what is no lock, %d conflicts, of which %d cannot be told from the text", pairs, loud, conflicts, refused)
	if conflicts == 0 || conflicts == pairs {
		t.Error("the pairs do not show much")
	}
}
