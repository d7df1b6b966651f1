package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// schema1 adds an image of schema 1, signed n times.
func (c *content) schema1(arch string, n int, layers ...v1.Descriptor) Manifest {
	payload := fmt.Sprintf("{\n   \"schemaVersion\": 1,\n   \"architecture\": %q,\n   \"fsLayers\": [", arch)
	for i, layer := range layers {
		if i > 0 {
			payload += ","
		}
		payload += fmt.Sprintf("\n      {\n         \"blobSum\": %q\n      }", layer.Digest)
	}
	payload += "\n   ]\n}"
	m := Manifest{Descriptor: c.describe(MediaTypeSchema1, []byte(payload)), Bytes: []byte(payload)}
	if n > 0 {
		m.MediaType, m.Bytes = MediaTypeSchema1Signed, sign(payload, n)
		m.Size = int64(len(m.Bytes))
	}
	c.manifests = append(c.manifests, m)
	return m
}

// schema1Image has a layer twice, as there were.
func schema1Image(n int) (*content, Manifest) {
	c := newContent()
	empty := c.layer("empty")
	return c, c.schema1("amd64", n, c.layer("upper"), empty, c.layer("lower"), empty)
}

var old = Repository{Registry: "docker.io", Path: "library/old"}

// same compares a manifest with what was put in.
func same(t *testing.T, what string, got Manifest, err error, want Manifest) {
	t.Helper()
	if err != nil || got.Digest != want.Digest || got.MediaType != want.MediaType || got.Size != int64(len(want.Bytes)) || string(got.Bytes) != string(want.Bytes) {
		t.Errorf("%s: %s %s with %d bytes, %v", what, got.MediaType, got.Digest, got.Size, err)
	}
}

func TestPublishSchema1(t *testing.T) {
	for n := range 3 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newStore(t)
			c, want := schema1Image(n)
			pin := mustAdd(t, s, c, old, "1", want.Digest)
			got, err := s.Manifest(t.Context(), old, "1")
			same(t, "by tag", got, err, want)
			got, err = s.Manifest(t.Context(), old, want.Digest.String())
			same(t, "by digest", got, err, want)
			got, err = s.ReadManifest(t.Context(), v1.Descriptor{Digest: want.Digest})
			same(t, "read", got, err, want)

			// However it is signed, so that locks agree.
			if want := int64(len(must[[]byte](t)(want.Payload())) + len("upper") + len("lower") + len("empty")); pin.Size != want {
				t.Errorf("size %d, want %d", pin.Size, want)
			}
			if len(pin.Platforms) != 1 || FormatPlatform(pin.Platforms[0].Platform) != "linux/amd64" || pin.Platforms[0].Digest != want.Digest || pin.MediaType != want.MediaType {
				t.Errorf("pin is %+v", pin)
			}
			pins := must[[]Pin](t)(s.Pins(t.Context()))
			if len(pins) != 1 || len(pins[0].Platforms) != 1 {
				t.Errorf("pins are %+v", pins)
			}
			tree := must[Node](t)(s.Tree(t.Context(), want.Digest))
			var sizes []int64
			for _, child := range tree.Children {
				sizes = append(sizes, child.Size)
			}
			wantSizes := []int64{5, 5, 5, 5}
			if n > 0 {
				wantSizes = append(wantSizes, want.Size)
			}
			if !slices.Equal(sizes, wantSizes) {
				t.Errorf("children have %v bytes, want %v", sizes, wantSizes)
			}
			files := blobFiles(t, s)
			if wantFiles := 4 + min(n, 1); len(files) != wantFiles {
				t.Errorf("%d files, want %d", len(files), wantFiles)
			}
			checkClean(t, s)

			// Under another name nothing is new.
			again := must[Pin](t)(s.PinPublished(t.Context(), old, "2", want.Digest, false))
			if again.Size != pin.Size || len(again.Platforms) != 1 {
				t.Errorf("the other pin is %+v", again)
			}
			for _, tag := range []string{"1", "2"} {
				if _, _, err := s.Remove(t.Context(), old, tag); err != nil {
					t.Fatal(err)
				}
			}
			must[Freed](t)(s.Collect(t.Context(), 0))
			if files := blobFiles(t, s); len(files) > 0 || count(t, s, "SELECT count(*) FROM signed")+count(t, s, "SELECT count(*) FROM blob") > 0 {
				t.Errorf("%v is left", files)
			}
		})
	}
}

// Some registries sign anew for each answer; which signatures there are is
// decided once.
func TestSignedTwice(t *testing.T) {
	s := newStore(t)
	c, first := schema1Image(1)
	_, second := schema1Image(1)
	if first.Digest != second.Digest || string(first.Bytes) == string(second.Bytes) {
		t.Fatal("they should differ in the signatures")
	}
	arrival := must[Arrival](t)(s.Arrive(t.Context(), old, "1", first.Descriptor))
	got, err := s.LeaseFor(arrival).PutManifest(t.Context(), first)
	same(t, "the first", got, err, first)
	l := newLease(t, s)
	got, err = l.PutManifest(t.Context(), second)
	same(t, "the second, while the first arrives", got, err, first)
	got, err = s.ReadManifest(t.Context(), second.Descriptor)
	same(t, "what was not published", got, err, first)
	n := must[Arrived](t)(s.Arrived(t.Context(), arrival))
	if want := (Arrived{1, 4, arrivedSize(t, first), arrivedSize(t, first)}); n != want {
		t.Errorf("arrived %+v, want %+v", n, want)
	}

	if err := c.put(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	n = must[Arrived](t)(s.Arrived(t.Context(), arrival))
	if want := (Arrived{4, 4, arrivedSize(t, first) + 15, arrivedSize(t, first) + 15}); n != want {
		t.Errorf("arrived %+v, want %+v", n, want)
	}
	c.manifests = []Manifest{second} // as a walk has it that began before
	var incomplete *IncompleteError
	if _, err := l.Publish(t.Context(), c.at(old, "2", second.Digest), false); !errors.As(err, &incomplete) || !slices.Contains(incomplete.Missing, digest.FromBytes(second.Bytes)) {
		t.Errorf("published signatures that the store has not: %v", err)
	}
	must[Pin](t)(s.PublishArrival(t.Context(), arrival, []Manifest{first}, nil))
	got, err = s.Manifest(t.Context(), old, "1")
	same(t, "published", got, err, first)
	checkClean(t, s)
}

// What is published stays as it is, also if its file is gone.
func TestSignedPublishedStays(t *testing.T) {
	s := newStore(t)
	c, first := schema1Image(1)
	_, second := schema1Image(1)
	mustAdd(t, s, c, old, "1", first.Digest)
	if err := os.Remove(s.blobPath(digest.FromBytes(first.Bytes))); err != nil {
		t.Fatal(err)
	}
	arrival := must[Arrival](t)(s.Arrive(t.Context(), old, "2", second.Descriptor))
	got, err := s.LeaseFor(arrival).PutManifest(t.Context(), second)
	same(t, "put", got, err, first)
	must[Pin](t)(s.PublishArrival(t.Context(), arrival, []Manifest{got}, nil))
	got, err = s.Manifest(t.Context(), old, "2")
	same(t, "published", got, err, first)
	checked := must[Checked](t)(s.Verify(t.Context(), nil, nil))
	if len(checked.Damage) != 1 || checked.Damage[0].Digest != digest.FromBytes(first.Bytes) || checked.Damage[0].Problem != "missing" {
		t.Errorf("damage is %+v", checked.Damage)
	}
}

func arrivedSize(t *testing.T, m Manifest) int64 { return int64(len(must[[]byte](t)(m.Payload()))) }

// Whether a payload came with signatures cannot be seen from it: without them it
// has to be asked for again.
func TestPayloadWithoutSignatures(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	_, m := schema1Image(1)
	payload := must[[]byte](t)(m.Payload())
	if err := write(t.Context(), l, m.Digest, payload); err != nil {
		t.Fatal(err)
	}
	for _, mediaType := range []string{MediaTypeSchema1Signed, ""} {
		got, err := s.ReadManifest(t.Context(), v1.Descriptor{Digest: m.Digest, MediaType: mediaType})
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %+v, %v", mediaType, got, err)
		}
	}
	got, err := s.ReadManifest(t.Context(), v1.Descriptor{Digest: m.Digest, MediaType: MediaTypeSchema1})
	same(t, "unsigned", got, err, Manifest{Descriptor: v1.Descriptor{Digest: m.Digest, MediaType: MediaTypeSchema1}, Bytes: payload})
	got, err = l.PutManifest(t.Context(), m)
	same(t, "put", got, err, m)
	got, err = s.ReadManifest(t.Context(), v1.Descriptor{Digest: m.Digest})
	same(t, "signed", got, err, m)

	// The file with the signatures is gone: others take its place.
	if err := os.Remove(s.blobPath(digest.FromBytes(m.Bytes))); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadManifest(t.Context(), v1.Descriptor{Digest: m.Digest}); !errors.Is(err, ErrNotFound) {
		t.Errorf("read %+v, %v", got, err)
	}
	_, other := schema1Image(2)
	got, err = l.PutManifest(t.Context(), other)
	same(t, "put again", got, err, other)
}

func TestPutManifestRefuses(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	_, m := schema1Image(1)
	_, plain := schema1Image(0)
	wrong := m
	wrong.Digest = digest.FromBytes(m.Bytes) // of all of it
	for name, bad := range map[string]Manifest{
		"the digest of the whole": wrong,
		"no signatures":           {Descriptor: m.Descriptor, Bytes: plain.Bytes},
		"unsigned with them":      {Descriptor: plain.Descriptor, Bytes: m.Bytes},
		"no digest":               {Descriptor: v1.Descriptor{MediaType: MediaTypeSchema1Signed}, Bytes: m.Bytes},
	} {
		if _, err := l.PutManifest(t.Context(), bad); err == nil {
			t.Errorf("%s: taken in", name)
		}
	}
	if files := blobFiles(t, s); len(files) > 0 {
		t.Errorf("%v was kept", files)
	}
}

// Whatever is damaged of a signed manifest is found, and mended from what is not.
func TestRepairSigned(t *testing.T) {
	c, m := schema1Image(1)
	payload := must[[]byte](t)(m.Payload())
	whole := digest.FromBytes(m.Bytes)
	damage := func(d digest.Digest) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			if err := os.Remove(s.blobPath(d)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.blobPath(d), make([]byte, 9), 0o444); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		damage  func(*testing.T, *Store)
		damaged digest.Digest
	}{
		{"payload", damage(m.Digest), m.Digest},
		{"whole", damage(whole), whole},
		{"index", func(t *testing.T, s *Store) {
			if _, err := s.writer.Exec("UPDATE manifest SET bytes = ?", payload); err != nil {
				t.Fatal(err)
			}
		}, whole},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			mustAdd(t, s, c, old, "1", m.Digest)
			tt.damage(t, s)
			checked := must[Checked](t)(s.Verify(t.Context(), nil, nil))
			if len(checked.Damage) != 1 || checked.Damage[0].Digest != tt.damaged || len(checked.Damage[0].Pins) != 1 {
				t.Fatalf("damage is %+v", checked.Damage)
			}
			from, err := s.ManifestOf(t.Context(), tt.damaged)
			if err != nil || from.Digest != m.Digest {
				t.Fatalf("%s is of %s, %v", tt.damaged, from.Digest, err)
			}
			text, err := from.File(tt.damaged)
			if tt.name == "index" {
				if !errors.Is(err, ErrMismatch) {
					t.Errorf("a damaged index has %q, %v", text, err)
				}
				text, err = s.ReadBlob(t.Context(), tt.damaged, MaxManifestSize)
			}
			if err != nil {
				t.Fatal(err)
			}
			w := must[*Writer](t)(newLease(t, s).Repair(t.Context(), checked.Damage[0].Descriptor))
			if err := errors.Join(w.WriteAll(t.Context(), text), w.Close()); err != nil {
				t.Fatal(err)
			}
			checkClean(t, s)
			got, err := s.Manifest(t.Context(), old, "1")
			same(t, "repaired", got, err, m)
		})
	}
	s := newStore(t)
	if _, err := s.ManifestOf(t.Context(), whole); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an empty store: %v", err)
	}
}
