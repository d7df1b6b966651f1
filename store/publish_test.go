package store

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPublish(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		t.Run(algorithm.String(), func(t *testing.T) {
			s := newStore(t)
			c, root := debianImage()
			if algorithm == digest.SHA512 {
				c = newContent()
				c.algorithm = algorithm
				root = c.index(c.image("linux/amd64", c.layer("a")), c.image("linux/arm64", c.layer("b")))
			}
			pin := mustAdd(t, s, c, debian, "bookworm", root.Digest)
			if pin.Name() != "docker.io/library/debian:bookworm" || pin.Digest != root.Digest || pin.MediaType != v1.MediaTypeImageIndex {
				t.Errorf("pin is %+v", pin)
			}
			for _, m := range c.manifests {
				got := must[Manifest](t)(s.Manifest(t.Context(), debian, m.Digest.String()))
				if string(got.Bytes) != string(m.Bytes) || got.MediaType != m.MediaType || got.Size != m.Size {
					t.Errorf("manifest %s came back as %s %q", m.Digest, got.MediaType, got.Bytes)
				}
				if b := must[[]byte](t)(s.ReadBlob(t.Context(), m.Digest, MaxManifestSize)); string(b) != string(m.Bytes) {
					t.Errorf("blob of manifest %s came back as %q", m.Digest, b)
				}
			}
			for d, want := range c.blobs {
				r, size, err := s.Blob(t.Context(), debian, d)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil || string(got) != string(want) || size != int64(len(want)) {
					t.Errorf("blob %s came back as %q, %d, %v", d, got, size, err)
				}
			}
			got := must[Manifest](t)(s.Manifest(t.Context(), debian, "bookworm"))
			if got.Digest != root.Digest {
				t.Errorf("the tag means %s", got.Digest)
			}
			checkClean(t, s)
		})
	}
}

func TestPlatformsAndSize(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	pin := mustAdd(t, s, c, debian, "bookworm", root.Digest)
	var platforms []string
	for _, p := range pin.Platforms {
		platforms = append(platforms, FormatPlatform(p.Platform))
	}
	want := []string{"linux/amd64", "windows/amd64:10.0.17763", "linux/arm64/v8"}
	if !slices.Equal(platforms, want) {
		t.Errorf("platforms are %q, want %q", platforms, want)
	}

	// Every blob once; the signature and the companion do not count.
	var size int64
	for _, b := range c.blobs {
		size += int64(len(b))
	}
	for _, m := range c.manifests[:len(c.manifests)-2] {
		size += m.Size
	}
	for _, extra := range []string{"signature", "{}", "cosign", `{"architecture":"","os":""}`} {
		size -= int64(len(extra))
	}
	extra := newContent()
	extra.image("") // the companion's config
	for d, b := range extra.blobs {
		if _, ok := c.blobs[d]; !ok {
			t.Fatalf("no companion config %s", b)
		}
		size += int64(len(`{"architecture":"","os":""}`)) - int64(len(b))
	}
	if pin.Size != size {
		t.Errorf("size is %d, want %d", pin.Size, size)
	}

	// Without an index, only the configuration tells, however it was pinned.
	amd := pin.Platforms[0].Digest
	single := must[Pin](t)(s.PinPublished(t.Context(), debian, "amd64", amd, false))
	if len(single.Platforms) != 1 || FormatPlatform(single.Platforms[0].Platform) != "linux/amd64" || single.Platforms[0].Digest != amd {
		t.Errorf("platforms of a single image are %+v", single.Platforms)
	}
	plain := newContent()
	d := plain.image("linux/s390x", plain.layer("z"))
	pin = mustAdd(t, s, plain, debian, "plain", d.Digest)
	if len(pin.Platforms) != 1 || FormatPlatform(pin.Platforms[0].Platform) != "linux/s390x" {
		t.Errorf("platforms of a plain image are %+v", pin.Platforms)
	}
}

func TestPublishIncomplete(t *testing.T) {
	c, root := debianImage()
	lacking := map[string]func(*content) digest.Digest{
		"layer":           func(c *content) digest.Digest { return digest.FromString("arm64 layer") },
		"signature":       func(c *content) digest.Digest { return digest.FromString("signature") },
		"nested manifest": func(c *content) digest.Digest { return c.manifests[2].Digest },
		"index":           func(*content) digest.Digest { return root.Digest },
	}
	for name, pick := range lacking {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			l := newLease(t, s)
			missing := pick(c)
			for d, b := range c.blobs {
				if d != missing {
					if err := write(t.Context(), l, d, b); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, m := range c.manifests {
				if m.Digest != missing {
					if err := write(t.Context(), l, m.Digest, m.Bytes); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, err := l.Publish(t.Context(), c.at(debian, "bookworm", root.Digest), false)
			checkIncomplete(t, s, err, missing)
		})
	}
	t.Run("manifest not given", func(t *testing.T) { // its blob is there, but what it lists may not be
		s := newStore(t)
		l := newLease(t, s)
		if err := c.put(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		for i, m := range c.manifests[:6] {
			image := c.at(debian, "bookworm", root.Digest)
			image.Manifests = slices.Delete(slices.Clone(c.manifests), i, i+1)
			_, err := l.Publish(t.Context(), image, false)
			checkIncomplete(t, s, err, m.Digest)
		}
	})
}

func checkIncomplete(t *testing.T, s *Store, err error, missing digest.Digest) {
	t.Helper()
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || !slices.Equal(incomplete.Missing, []digest.Digest{missing}) {
		t.Errorf("published without %s: %v", missing, err)
	}
	if n := count(t, s, "SELECT (SELECT count(*) FROM manifest) + (SELECT count(*) FROM pin) + (SELECT count(*) FROM history) + (SELECT count(*) FROM companion)"); n != 0 {
		t.Errorf("%d rows are visible of an incomplete image", n)
	}
	if _, err := s.Manifest(t.Context(), debian, "bookworm"); !errors.Is(err, ErrNotFound) {
		t.Errorf("tag of an incomplete image: %v", err)
	}
}

func TestPublishAgain(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	first := mustAdd(t, s, c, debian, "bookworm", root.Digest)
	again := mustAdd(t, s, c, debian, "bookworm", root.Digest)
	if again.PinnedAt != first.PinnedAt || count(t, s, "SELECT count(*) FROM history") != 1 {
		t.Error("publishing again changed the pin")
	}
	late := c.referrer(root, "second signature")
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	found := must[[]v1.Descriptor](t)(s.Referrers(t.Context(), debian, root.Digest))
	if len(found) != 2 || !slices.ContainsFunc(found, func(d v1.Descriptor) bool { return d.Digest == late.Digest }) {
		t.Errorf("referrers are %+v", found)
	}
	for _, d := range found {
		if d.ArtifactType != "application/x-signature" || d.Annotations["text"] == "" || d.Size == 0 {
			t.Errorf("referrer is %+v", d)
		}
	}

	other := newContent()
	moved := other.index(other.image("linux/amd64", other.layer("shared layer"), other.layer("new")))
	_, err := add(t.Context(), s, other, debian, "bookworm", moved.Digest, false)
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Pinned.Digest != root.Digest {
		t.Errorf("pinned to something else: %v", err)
	}
	if _, err := s.Manifest(t.Context(), debian, moved.Digest.String()); !errors.Is(err, ErrNotFound) {
		t.Errorf("manifest of a conflict is visible: %v", err)
	}
	pin := must[Pin](t)(add(t.Context(), s, other, debian, "bookworm", moved.Digest, true))
	if pin.Digest != moved.Digest || count(t, s, "SELECT count(*) FROM manifest") != len(other.manifests) {
		t.Errorf("moved to %s, %d manifests", pin.Digest, count(t, s, "SELECT count(*) FROM manifest"))
	}
	must[Freed](t)(s.Collect(t.Context(), 0))
	if got, want := len(blobFiles(t, s)), len(other.blobs)+len(other.manifests); got != want {
		t.Errorf("%d files after a move and gc, want %d", got, want)
	}
}

// What an image does not reach must not get a row: nothing would ever drop it.
func TestPublishUnreached(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	rows := count(t, s, "SELECT count(*) FROM manifest")

	c.manifests = c.manifests[:len(c.manifests)-1]
	c.companions = nil
	newer := c.companion(c.manifests[0].Descriptor, "signed again") // the tag is taken
	c.image("linux/riscv64")                                        // nothing lists it
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	if n := count(t, s, "SELECT count(*) FROM manifest"); n != rows {
		t.Errorf("%d manifests, want %d", n, rows)
	}
	m := must[Manifest](t)(s.Manifest(t.Context(), debian, c.companions[0].Reference))
	if m.Digest == newer.Digest {
		t.Error("a companion tag has moved")
	}
	if _, _, err := s.Remove(t.Context(), debian, "bookworm"); err != nil {
		t.Fatal(err)
	}
	must[Freed](t)(s.Collect(t.Context(), 0))
	if n := len(blobFiles(t, s)); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func TestPublishRefuses(t *testing.T) {
	s := newStore(t)
	good := func() (*content, v1.Descriptor, v1.Descriptor) {
		c := newContent()
		return c, c.layer("layer"), c.blob(v1.MediaTypeImageConfig, "{}")
	}
	cases := map[string]func() (*content, v1.Descriptor){
		"wrong size": func() (*content, v1.Descriptor) {
			c, l, _ := good()
			l.Size++
			return c, c.image("linux/amd64", l)
		},
		"negative size": func() (*content, v1.Descriptor) {
			c, l, _ := good()
			l.Size = -1
			return c, c.image("linux/amd64", l)
		},
		"two sizes": func() (*content, v1.Descriptor) {
			c, l, _ := good()
			other := l
			other.Size++
			return c, c.image("linux/amd64", l, other)
		},
		"other media type": func() (*content, v1.Descriptor) {
			c, _, config := good()
			return c, c.encode(MediaTypeDockerManifest, v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config})
		},
		"not a manifest": func() (*content, v1.Descriptor) {
			c, _, _ := good()
			return c, c.raw("application/json", "{}")
		},
		"both": func() (*content, v1.Descriptor) {
			c, l, config := good()
			return c, c.raw(v1.MediaTypeImageManifest, fmt.Sprintf(`{"config":{"digest":%q,"size":2},"manifests":[{"digest":%q,"size":5}]}`, config.Digest, l.Digest))
		},
		"index with layers": func() (*content, v1.Descriptor) {
			c, l, _ := good()
			return c, c.raw(v1.MediaTypeImageIndex, fmt.Sprintf(`{"manifests":[],"layers":[{"digest":%q,"size":5}]}`, l.Digest))
		},
		"key twice": func() (*content, v1.Descriptor) {
			c, _, _ := good()
			return c, c.raw(v1.MediaTypeImageIndex, `{"manifests":[],"Manifests":[]}`)
		},
		"no config": func() (*content, v1.Descriptor) { c, _, _ := good(); return c, c.raw(v1.MediaTypeImageManifest, "{}") },
		"not JSON":  func() (*content, v1.Descriptor) { c, _, _ := good(); return c, c.raw(v1.MediaTypeImageIndex, "<html>") },
		"bad digest": func() (*content, v1.Descriptor) {
			c, l, _ := good()
			l.Digest = "sha256:../../x"
			return c, c.image("", l)
		},
		"md5": func() (*content, v1.Descriptor) { c, l, _ := good(); l.Digest = "md5:abcd"; return c, c.image("", l) },
		"too large": func() (*content, v1.Descriptor) {
			c, _, _ := good()
			return c, c.raw(v1.MediaTypeImageIndex, `{"manifests":[]}`+strings.Repeat(" ", MaxManifestSize))
		},
	}
	for name, build := range cases {
		c, root := build()
		if _, err := add(t.Context(), s, c, debian, "tag", root.Digest, false); err == nil {
			t.Errorf("%s: published", name)
		} else if errors.As(err, new(*IncompleteError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := count(t, s, "SELECT (SELECT count(*) FROM manifest) + (SELECT count(*) FROM pin)"); n != 0 {
		t.Errorf("%d rows are there", n)
	}
}

func TestForeignLayer(t *testing.T) {
	s := newStore(t)
	c := newContent()
	foreign := v1.Descriptor{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("elsewhere"), Size: 1 << 40, URLs: []string{"https://example.com/"}}
	root := c.image("windows/amd64", foreign, c.layer("own"))
	pin := mustAdd(t, s, c, debian, "windows", root.Digest)
	if pin.Size >= 1<<40 {
		t.Errorf("size is %d with a layer that is not here", pin.Size)
	}
	checkClean(t, s)
}

// A digest from outside must be refused before it becomes a path, and must not
// be able to panic.
func TestBadDigests(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	ctx := t.Context()
	outside := filepath.Join(s.dir, "secret")
	for _, d := range []digest.Digest{
		"", ":", "x", "sha256", "sha256:", "sha256:../../secret", "sha256:..", "../../secret", "sha256/../../x:abc", "sha512:../../secret",
		digest.Digest("sha256:" + strings.Repeat("A", 64)), digest.Digest("sha256:" + strings.Repeat("a", 63)), digest.Digest("sha256:" + strings.Repeat("a", 63) + "/"),
		digest.Digest("sha384:" + strings.Repeat("a", 96)), digest.Digest("sha256:" + strings.Repeat("a", 64) + "\x00"),
	} {
		c := newContent()
		root := c.index()
		_, holdErr := l.Writer(ctx, v1.Descriptor{Digest: d})
		_, repairErr := l.Repair(ctx, v1.Descriptor{Digest: d})
		_, _, blobErr := s.Blob(ctx, debian, d)
		_, readErr := s.ReadBlob(ctx, d, 10)
		_, manifestErr := s.Manifest(ctx, debian, d.String())
		_, treeErr := s.Tree(ctx, d)
		_, pinErr := s.PinPublished(ctx, debian, "tag", d, false)
		_, rootErr := l.Publish(ctx, c.at(debian, "tag", d), false)
		image := c.at(debian, "tag", root.Digest)
		image.Manifests[0].Digest = d
		_, publishErr := l.Publish(ctx, image, false)
		_, _, removeErr := s.Remove(ctx, debian, d.String())
		for what, err := range map[string]error{
			"hold": l.Hold(ctx, d), "writer": holdErr, "repair": repairErr, "blob": blobErr, "read": readErr, "manifest": manifestErr,
			"tree": treeErr, "pin": pinErr, "root": rootErr, "publish": publishErr, "remove": removeErr,
		} {
			if err == nil {
				t.Errorf("%s accepts digest %q", what, d)
			}
		}
		if has, err := s.Has(ctx, d); has || err != nil {
			t.Errorf("has %q: %v, %v", d, has, err)
		}
	}
	if _, err := l.Publish(ctx, newContent().at(debian, digest.FromString("a").String(), digest.FromString("b")), false); err == nil {
		t.Error("a digest was pinned to another one")
	}
	if _, found := onDisk(t, filepath.Dir(s.dir))[outside]; found {
		t.Error("a file was made outside")
	}
}
