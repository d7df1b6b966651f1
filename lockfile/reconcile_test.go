package lockfile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// img is an entry; content stands for digest, size and platforms.
func img(name, content string, usedBy ...string) Image {
	return Image{
		Name: "docker.io/library/" + name, Digest: sha(content), MediaType: "a/b", Size: int64(len(content)),
		Platforms: map[string]digest.Digest{"linux/amd64": sha(content + "/amd64")}, UsedBy: usedBy,
	}
}

func lock(images ...Image) File {
	f := File{Images: images}
	sortImages(f.Images)
	return f
}

func done(images ...Image) map[string]Image { return lock(images...).byName() }

func needs(names ...string) []string {
	for i := range names {
		names[i] = "docker.io/library/" + names[i]
	}
	return names
}

func TestReconcile(t *testing.T) {
	type files = map[string][]string
	for label, test := range map[string]struct {
		old  File
		sync Sync
		want File
	}{
		"first sync": {
			sync: Sync{Files: files{"b": needs("x:1"), "a": needs("x:1", "y:1", "y:1"), "c": nil}, Images: done(img("x:1", "x"), img("y:1", "y"))},
			want: lock(img("x:1", "x", "a", "b"), img("y:1", "y", "a")),
		},
		"nothing is synced": {
			old:  lock(img("x:1", "x", "a"), img("y:1", "y")),
			want: lock(img("x:1", "x", "a"), img("y:1", "y")),
		},
		"other files stay": {
			old:  lock(img("x:1", "x", "a", "b"), img("y:1", "y", "b")),
			sync: Sync{Files: files{"a": needs("z:1")}, Images: done(img("z:1", "z"))},
			want: lock(img("x:1", "x", "b"), img("y:1", "y", "b"), img("z:1", "z", "a")),
		},
		"no longer used": {
			old:  lock(img("x:1", "x", "a"), img("y:1", "y", "a")),
			sync: Sync{Files: files{"a": needs("y:1")}, Images: done(img("y:1", "y"))},
			want: lock(img("y:1", "y", "a")),
		},
		"a deleted file": {
			old:  lock(img("x:1", "x", "gone"), img("y:1", "y", "gone", "kept")),
			sync: Sync{Deleted: []string{"gone"}},
			want: lock(img("y:1", "y", "kept")),
		},
		"added by hand stays": {
			old:  lock(img("x:1", "x"), img("y:1", "y")),
			sync: Sync{Files: files{"a": needs("y:1")}, Images: done(img("y:1", "y"))},
			want: lock(img("x:1", "x"), img("y:1", "y")),
		},
		"added by hand is updated": {
			old:  lock(img("y:1", "y")),
			sync: Sync{Files: files{"a": needs("y:1")}, Images: done(img("y:1", "new"))},
			want: lock(img("y:1", "new")),
		},
		"updated without being in a file": {
			old:  lock(img("y:1", "y"), img("z:1", "z", "other")),
			sync: Sync{Images: done(img("y:1", "new"), img("z:1", "new"), img("stranger:1", "x"))},
			want: lock(img("y:1", "new"), img("z:1", "new", "other")),
		},
		"failed keeps its entry": {
			old:  lock(img("x:1", "x", "a", "b")),
			sync: Sync{Files: files{"b": nil, "c": needs("x:1")}},
			want: lock(img("x:1", "x", "a", "b")),
		},
		"failed and new": {
			sync: Sync{Files: files{"a": needs("x:1", "y:1")}, Images: done(img("y:1", "y"))},
			want: lock(img("y:1", "y", "a")),
		},
		"update": {
			old:  lock(img("x:1", "old", "a", "b")),
			sync: Sync{Files: files{"a": needs("x:1")}, Images: done(img("x:1", "new"))},
			want: lock(img("x:1", "new", "a", "b")),
		},
	} {
		if got := Reconcile(test.old, test.sync); !reflect.DeepEqual(append([]Image{}, got.Images...), append([]Image{}, test.want.Images...)) {
			t.Errorf("%s: got\n%v\nwant\n%v\n%v", label, got, test.want, Diff(test.want, got))
		}
	}
}

// world makes up a lock and a sync over a few names and files, so that they
// meet often.
func world(r *rand.Rand) (File, Sync) {
	names := []string{"a:1", "b:1", "c:1", "d:1"}
	paths := []string{"Dockerfile", "x/Dockerfile", "x/y/Dockerfile", "../Dockerfile"}
	some := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(string) bool { return r.IntN(2) == 0 })
	}
	var old File
	for _, name := range some(names) {
		old.Images = append(old.Images, img(name, fmt.Sprint(name, r.IntN(2)), sortedSet(some(paths))...))
	}
	s := Sync{Files: map[string][]string{}, Images: map[string]Image{}}
	for _, p := range some(paths) {
		if r.IntN(4) == 0 {
			s.Deleted = append(s.Deleted, p)
			continue
		}
		s.Files[p] = needs(some(names)...)
	}
	for _, name := range some(names) {
		image := img(name, fmt.Sprint(name, r.IntN(2)))
		s.Images[image.Name] = image
	}
	return old, s
}

func TestReconcileProperties(t *testing.T) {
	encode := func(f File) string {
		data, err := Encode(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		old, s := world(r)
		before := encode(old)
		got := Reconcile(old, s)

		if again := Reconcile(got, s); encode(again) != encode(got) {
			t.Fatalf("seed %d: not idempotent:\n%v", seed, Diff(got, again))
		}
		shuffled := File{Images: slices.Clone(old.Images)}
		r.Shuffle(len(shuffled.Images), func(i, j int) {
			shuffled.Images[i], shuffled.Images[j] = shuffled.Images[j], shuffled.Images[i]
		})
		mixed := Sync{Deleted: slices.Clone(s.Deleted), Files: map[string][]string{}, Images: s.Images}
		slices.Reverse(mixed.Deleted)
		for file, list := range s.Files {
			mixed.Files[file] = slices.Clone(list)
			slices.Reverse(mixed.Files[file])
		}
		if other := Reconcile(shuffled, mixed); encode(other) != encode(got) {
			t.Fatalf("seed %d: depends on order:\n%v", seed, Diff(got, other))
		}
		if encode(old) != before {
			t.Fatalf("seed %d: the old lock was changed", seed)
		}
		checkReconciled(t, seed, old, s, got)
		if t.Failed() {
			t.FailNow()
		}
	}
}

// checkReconciled holds the promises about single entries.
func checkReconciled(t *testing.T, seed uint64, old File, s Sync, got File) {
	synced := func(file string) bool {
		_, ok := s.Files[file]
		return ok || slices.Contains(s.Deleted, file)
	}
	for _, was := range old.Images {
		now, kept := got.Image(was.Name)
		if !kept && (len(was.UsedBy) == 0 || slices.ContainsFunc(was.UsedBy, func(f string) bool { return !synced(f) })) {
			t.Errorf("seed %d: dropped %v", seed, was)
		}
		for _, file := range was.UsedBy {
			if !synced(file) && !slices.Contains(now.UsedBy, file) {
				t.Errorf("seed %d: %s lost %s, which was not synced", seed, was.Name, file)
			}
		}
	}
	for file, names := range s.Files {
		for _, name := range names {
			was, wasThere := old.Image(name)
			now, isThere := got.Image(name)
			image, ok := s.Images[name]
			switch {
			case !ok && (wasThere != isThere || !reflect.DeepEqual(was, now)):
				t.Errorf("seed %d: failed %s was changed: %v, %v", seed, name, was, now)
			case ok && now.Digest != image.Digest:
				t.Errorf("seed %d: %s has another digest than it got", seed, name)
			case ok && (!wasThere || len(was.UsedBy) > 0) && !slices.Contains(now.UsedBy, file):
				t.Errorf("seed %d: %s is not used by %s", seed, name, file)
			}
		}
	}
}

// Syncing the files one after the other gives the same lock as all at once.
func TestReconcileFileByFile(t *testing.T) {
	for seed := range uint64(1000) {
		old, s := world(rand.New(rand.NewPCG(seed, 2)))
		for _, names := range s.Files {
			for _, name := range names { // a failure keeps an entry as it was, so here there is none
				if _, ok := s.Images[name]; !ok {
					s.Images[name] = Image{Digest: sha(name), MediaType: "a/b"}
				}
			}
		}
		want := Reconcile(old, s)
		got := old
		for _, file := range slices.Sorted(maps.Keys(s.Files)) {
			got = Reconcile(got, Sync{Files: map[string][]string{file: s.Files[file]}, Images: s.Images})
		}
		got = Reconcile(got, Sync{Deleted: s.Deleted, Images: s.Images})
		if diff := Diff(want, got); len(diff) > 0 {
			t.Fatalf("seed %d:\n%v", seed, diff)
		}
	}
}

func TestWithAndWithout(t *testing.T) {
	old := lock(img("x:1", "x", "a"), img("y:1", "y", "a"))
	got := old.With(img("x:1", "new", "ignored"), img("a:1", "a"))
	if want := lock(img("x:1", "new"), img("y:1", "y", "a"), img("a:1", "a")); !reflect.DeepEqual(got, want) {
		t.Errorf("with: %v", Diff(want, got))
	}
	got = got.Without(needs("x:1", "none:1", "a:1")...)
	if want := lock(img("y:1", "y", "a")); !reflect.DeepEqual(got, want) {
		t.Errorf("without: %v", Diff(want, got))
	}
}

func TestDeleted(t *testing.T) {
	f := lock(img("x:1", "x", "Dockerfile", "a/Dockerfile", "ab/Dockerfile", "../Dockerfile", "../s/Dockerfile", "../../z", "here"))
	exists := func(p string) bool { return p == "here" }
	for folder, want := range map[string][]string{
		".":     {"Dockerfile", "a/Dockerfile", "ab/Dockerfile"},
		"a":     {"a/Dockerfile"},
		"..":    {"../Dockerfile", "../s/Dockerfile", "Dockerfile", "a/Dockerfile", "ab/Dockerfile"},
		"../..": {"../../z", "../Dockerfile", "../s/Dockerfile", "Dockerfile", "a/Dockerfile", "ab/Dockerfile"},
		"../s":  {"../s/Dockerfile"},
		"...":   nil,
	} {
		if got := f.Deleted([]string{"none", folder}, exists); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", folder, got, want)
		}
	}
}

func TestDecide(t *testing.T) {
	a, b := sha("a"), sha("b")
	for _, test := range []struct {
		locked, pinned           digest.Digest
		incomplete, whenComplete Action
	}{
		{"", "", Resolve, Resolve},
		{"", a, FetchPinned, LockPinned},
		{a, "", FetchLocked, PinLocked},
		{a, a, FetchLocked, Nothing},
		{a, b, Conflict, Conflict},
	} {
		for complete, want := range map[bool]Action{false: test.incomplete, true: test.whenComplete} {
			if got := Decide(test.locked, test.pinned, complete, false); got != want {
				t.Errorf("locked %.10s, pinned %.10s, complete %v: got %v, want %v", test.locked, test.pinned, complete, got, want)
			}
			if got := Decide(test.locked, test.pinned, complete, true); got != Resolve {
				t.Errorf("locked %.10s, pinned %.10s, complete %v, update: got %v", test.locked, test.pinned, complete, got)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	old := lock(img("gone:1", "g", "a"), img("same:1", "s", "a"), img("moved:1", "m", "a", "b"), img("used:1", "u", "a", "b"), img("size:1", "z"))
	size := img("size:1", "z")
	size.Size, size.MediaType, size.Platforms = 99, "c/d", nil
	unresolved := img("open:1", "o", "c")
	unresolved.Digest = ""
	got := Diff(old, lock(img("same:1", "s", "a"), img("moved:1", "n", "b", "c"), img("used:1", "u", "b", "c", "d"), size, img("new:1", "n"), unresolved))
	short := func(s string) string { return string(sha(s))[:19] }
	want := "removed  docker.io/library/gone:1  " + short("g") + "  (a)\n" +
		"changed  docker.io/library/moved:1  " + short("m") + " -> " + short("n") + "  (b, c)  now used by c  no longer used by a\n" +
		"added    docker.io/library/new:1  " + short("n") + "\n" +
		"added    docker.io/library/open:1  (not locked)  (c)\n" +
		"edited   docker.io/library/size:1  other media type, size, platforms\n" +
		"edited   docker.io/library/used:1  now used by c, d  no longer used by a\n"
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got[1].Old.Digest != sha("m") || got[1].New.Digest != sha("n") || !slices.Equal(got[1].Gained, []string{"c"}) {
		t.Errorf("structured: %+v", got[1])
	}
	if diff := Diff(old, old); len(diff) > 0 || diff.String() != "" {
		t.Errorf("a difference to itself: %v", diff)
	}
}
