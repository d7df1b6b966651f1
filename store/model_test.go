package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// model is what a store should have, worked out the simple way: a full mark
// from the pins.
type model struct {
	manifests map[digest.Digest]Graph // of everything that was ever published
	sizes     map[digest.Digest]int64
	pins      map[string]modelPin
	tags      map[string]Companion // by repository and reference
	published map[digest.Digest]bool
}

type modelPin struct {
	repo      Repository
	reference string
	digest    digest.Digest
}

// mark returns what the digest reaches.
func (m *model) mark(from digest.Digest, reach map[digest.Digest]bool) {
	if reach[from] {
		return
	}
	reach[from] = true
	if !m.published[from] {
		return
	}
	for _, child := range m.manifests[from].Children {
		m.mark(child.Digest, reach)
	}
	if signed := m.manifests[from].Signed; signed != nil {
		m.mark(signed.Digest, reach)
	}
	for d := range m.published {
		if s := m.manifests[d].Subject; s != nil && s.Digest == from {
			m.mark(d, reach)
		}
	}
	for _, c := range m.tags {
		if c.Subject == from {
			m.mark(c.Digest, reach)
		}
	}
}

func tagKey(repo Repository, reference string) string { return repo.String() + ":" + reference }

// settle drops what no pin reaches any more.
func (m *model) settle() map[digest.Digest]bool {
	for {
		for key, c := range m.tags {
			inRepo := map[digest.Digest]bool{}
			for _, p := range m.pins {
				if tagKey(p.repo, c.Reference) == key {
					m.mark(p.digest, inRepo)
				}
			}
			if !inRepo[c.Subject] {
				delete(m.tags, key)
			}
		}
		reach := map[digest.Digest]bool{}
		for _, p := range m.pins {
			m.mark(p.digest, reach)
		}
		before := len(m.published)
		maps.DeleteFunc(m.published, func(d digest.Digest, _ bool) bool { return !reach[d] })
		if len(m.published) == before {
			return reach
		}
	}
}

func (m *model) publish(repo Repository, reference string, root digest.Digest, c *content) {
	var fresh []digest.Digest
	var tagged []string
	for _, manifest := range c.manifests {
		graph, err := ParseManifest(manifest.MediaType, manifest.Bytes)
		if err != nil {
			panic(err)
		}
		m.manifests[manifest.Digest] = graph
		if !m.published[manifest.Digest] {
			fresh = append(fresh, manifest.Digest)
		}
		m.published[manifest.Digest] = true
		payload, err := manifest.Payload()
		if err != nil {
			panic(err)
		}
		m.sizes[manifest.Digest] = int64(len(payload))
		if graph.Signed != nil {
			m.sizes[graph.Signed.Digest] = graph.Signed.Size
		}
	}
	for d, b := range c.blobs {
		m.sizes[d] = int64(len(b))
	}
	for _, companion := range c.companions {
		if _, taken := m.tags[tagKey(repo, companion.Reference)]; !taken {
			m.tags[tagKey(repo, companion.Reference)] = companion
			tagged = append(tagged, tagKey(repo, companion.Reference))
		}
	}
	reach := map[digest.Digest]bool{} // what else was given is left out
	m.mark(root, reach)
	for _, d := range fresh {
		if !reach[d] {
			delete(m.published, d)
		}
	}
	for _, key := range tagged {
		if !reach[m.tags[key].Subject] {
			delete(m.tags, key)
		}
	}
	m.pins[tagKey(repo, reference)] = modelPin{repo, reference, root}
}

// randomContent is an image from a small world, so that much is shared.
func randomContent(r *rand.Rand) (*content, v1.Descriptor) {
	c := newContent()
	layer := func() v1.Descriptor { return c.layer(fmt.Sprintf("layer %d", r.IntN(12))) }
	image := func() v1.Descriptor {
		layers := make([]v1.Descriptor, r.IntN(3))
		for i := range layers {
			layers[i] = layer()
		}
		return c.image([]string{"linux/amd64", "linux/arm64", ""}[r.IntN(3)], layers...)
	}
	var index func(depth int) v1.Descriptor
	index = func(depth int) v1.Descriptor {
		var list []v1.Descriptor
		for range 1 + r.IntN(3) {
			if depth > 0 && r.IntN(4) == 0 {
				list = append(list, index(depth-1))
			} else {
				list = append(list, image())
			}
		}
		return c.index(list...)
	}
	root := image()
	switch r.IntN(8) {
	case 0, 1, 2, 3:
		root = index(2)
	case 4: // signed anew each time
		root = c.schema1("amd64", r.IntN(3), layer(), layer(), layer()).Descriptor
	}
	for range r.IntN(3) {
		subject := c.manifests[r.IntN(len(c.manifests))].Descriptor
		d := c.referrer(subject, fmt.Sprintf("signature %d", r.IntN(4)))
		if r.IntN(3) == 0 {
			root = d // a signature pinned by itself
		}
	}
	if r.IntN(3) == 0 {
		c.companion(c.manifests[0].Descriptor, fmt.Sprintf("cosign %d", r.IntN(3)))
	}
	if r.IntN(8) == 0 { // refers to what is not here, or to a layer
		root = c.referrer([]v1.Descriptor{layer(), c.describe(v1.MediaTypeImageManifest, []byte("not here"))}[r.IntN(2)], "dangling")
	}
	return c, root
}

func TestRandomOperations(t *testing.T) {
	repos := []Repository{debian, {"ghcr.io", "a/b"}}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			s := newStore(t)
			m := &model{map[digest.Digest]Graph{}, map[digest.Digest]int64{}, map[string]modelPin{}, map[string]Companion{}, map[digest.Digest]bool{}}
			for step := range 45 {
				repo, reference := repos[r.IntN(2)], fmt.Sprintf("v%d", r.IntN(5))
				_, pinned := m.pins[tagKey(repo, reference)]
				before := blobFiles(t, s)
				var freed Freed
				var err error
				collected := false
				switch {
				case r.IntN(5) == 0:
					collected = true
					freed, err = s.Collect(t.Context(), 0)
				case pinned && r.IntN(3) > 0:
					_, freed, err = s.Remove(t.Context(), repo, reference)
					delete(m.pins, tagKey(repo, reference))
				default:
					c, root := randomContent(r)
					if _, err = add(t.Context(), s, c, repo, reference, root.Digest, true); err == nil {
						m.publish(repo, reference, root.Digest, c)
					}
				}
				if err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				reach := m.settle()
				compare(t, s, m, reach, collected)
				checkFreed(t, s, m, before, freed)
				if t.Failed() {
					t.Fatalf("step %d", step)
				}
			}
			for _, p := range m.pins {
				if _, _, err := s.Remove(t.Context(), p.repo, p.reference); err != nil {
					t.Fatal(err)
				}
			}
			must[Freed](t)(s.Collect(t.Context(), 0))
			if files := blobFiles(t, s); len(files) != 0 || count(t, s, "SELECT count(*) FROM blob") != 0 || count(t, s, "SELECT count(*) FROM hold") != 0 {
				t.Errorf("%d files are left of an empty store", len(files))
			}
		})
	}
}

func compare(t *testing.T, s *Store, m *model, reach map[digest.Digest]bool, collected bool) {
	t.Helper()
	all := must[[]digest.Digest](t)(listDigests(t, s, "SELECT digest FROM manifest ORDER BY digest"))
	want := slices.Sorted(maps.Keys(m.published))
	if !slices.Equal(all, want) {
		t.Errorf("%d manifests have rows, want %d", len(all), len(want))
	}
	if n := count(t, s, "SELECT count(*) FROM companion"); n != len(m.tags) {
		t.Errorf("%d companions, want %d", n, len(m.tags))
	}
	checked := checkClean(t, s)
	files := blobFiles(t, s)
	if checked.Blobs != len(files) {
		t.Errorf("%d rows, %d files", checked.Blobs, len(files))
	}
	for d := range reach {
		if _, known := m.sizes[d]; known && !files[d] {
			t.Errorf("%s is reachable and has no file", d)
		}
	}
	// What is there beyond that must be on the collector's list.
	for d := range files {
		if !reach[d] && (collected || count(t, s, "SELECT count(*) FROM hold WHERE digest = ? AND lease = 0", d.String()) == 0) {
			t.Errorf("%s has a file and nobody will collect it", d)
		}
	}
	for _, p := range m.pins {
		pin, err := s.Pin(t.Context(), p.repo, p.reference)
		if err != nil || pin.Digest != p.digest {
			t.Errorf("%s: %s, %v", tagKey(p.repo, p.reference), pin.Digest, err)
		}
		_, err = s.Tree(t.Context(), p.digest)
		if err != nil {
			t.Error(err)
		}
	}
}

// checkFreed compares what an operation says it freed with what is gone.
func checkFreed(t *testing.T, s *Store, m *model, before map[digest.Digest]bool, freed Freed) {
	t.Helper()
	var want Freed
	after := blobFiles(t, s)
	for d := range before {
		if !after[d] {
			want.add(Freed{1, m.sizes[d]})
		}
	}
	if freed != want {
		t.Errorf("freed %+v, says %+v", want, freed)
	}
}

func listDigests(t *testing.T, s *Store, query string) (all []digest.Digest, err error) {
	rows, err := s.reader.QueryContext(t.Context(), query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d digest.Digest
		if err := rows.Scan(&d); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, errors.Join(rows.Err(), rows.Close())
}
