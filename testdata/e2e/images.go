//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// busybox has the same small image in every form that images come in.
func busybox(tb testing.TB) *repository {
	r := &repository{name: "library/busybox"}
	var dockerImages, ociImages, zstdImages, tarImages []descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		gzip := rootfsLayer(tb, "busybox-"+arch, ".gz")
		dockerImages = append(dockerImages, r.image(docker, arch, gzip.as(dockerLayer)))
		ociImages = append(ociImages, r.image(oci, arch, gzip))
		zstdImages = append(zstdImages, r.image(oci, arch, rootfsLayer(tb, "busybox-"+arch, ".zst")))
		tarImages = append(tarImages, r.image(oci, arch, rootfsLayer(tb, "busybox-"+arch, "")))
	}
	r.tag(r.index(docker, dockerImages...), "1.35", "latest")
	r.tag(r.index(oci, ociImages...), "1.35-oci")
	r.tag(r.index(oci, zstdImages...), "1.35-zstd")
	r.tag(r.index(oci, tarImages...), "1.35-tar")
	r.tag(dockerImages[0], "1.35-single")
	r.tag(ociImages[0], "1.35-single-oci")
	r.tag(r.index(oci, r.index(oci, ociImages...), zstdImages[0]), "1.35-nested")
	return r
}

// movedBusybox is what the upstream has under the tag 1.35 after a release.
func movedBusybox(tb testing.TB) *repository {
	r := &repository{name: "library/busybox"}
	var images []descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		images = append(images, r.image(docker, arch,
			rootfsLayer(tb, "busybox-"+arch, ".gz").as(dockerLayer), randomLayer(tb, 77, 1000).as(dockerLayer)))
	}
	r.tag(r.index(docker, images...), "1.35")
	return r
}

// attested is an image as BuildKit pushes it, with an attestation manifest per
// platform inside the index, and with what supply-chain tools attach from
// outside: a signature and an SBOM as OCI referrers, found by the fallback tag
// because neither registry has the referrers API, and a cosign signature of the
// older kind under a .sig tag.
func attested(tb testing.TB) *repository {
	const cosign = "application/vnd.dev.cosign.simplesigning.v1+json"
	r := &repository{name: "library/attested"}
	var images, attestations []descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		image := r.image(oci, arch, rootfsLayer(tb, "busybox-"+arch, ".gz"))
		statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"digest":%q}]}`, image.Digest)
		config := r.json(ociConfig, map[string]any{"architecture": "unknown", "os": "unknown", "config": map[string]any{},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf([]byte(statement))}}})
		attestation := r.artifact(nil, config, "", "application/vnd.in-toto+json", statement)
		attestation.Platform = &platform{Architecture: "unknown", OS: "unknown"}
		attestation.Annotations = map[string]string{
			"vnd.docker.reference.digest": image.Digest,
			"vnd.docker.reference.type":   "attestation-manifest",
		}
		images, attestations = append(images, image), append(attestations, attestation)
	}
	index := r.index(oci, append(images, attestations...)...)
	r.tag(index, "1", "latest")

	subject := descriptor{MediaType: index.MediaType, Digest: index.Digest, Size: index.Size}
	empty := r.bytes("application/vnd.oci.empty.v1+json", []byte("{}"))
	r.tag(r.index(oci,
		r.artifact(&subject, empty, "application/vnd.dev.cosign.artifact.sig.v1+json", cosign, `{"critical":{}}`),
		r.artifact(&subject, empty, "application/spdx+json", "application/spdx+json", `{"spdxVersion":"SPDX-2.3"}`),
	), fallbackTag(index.Digest))
	r.tag(r.artifact(nil, empty, "", cosign, `{"optional":null}`), fallbackTag(index.Digest)+".sig")
	return r
}

// fallbackTag is the tag under which referrers are found where the API is
// missing: sha256:abc becomes sha256-abc.
func fallbackTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// layered has 41 layers, so that blobs are fetched in parallel.
func layered(tb testing.TB) *repository {
	r := &repository{name: "library/layered"}
	layers := []layer{rootfsLayer(tb, "busybox-amd64", ".gz")}
	for i := range 40 {
		layers = append(layers, randomLayer(tb, byte(i), 64<<10))
	}
	r.tag(r.index(oci, r.image(oci, "amd64", layers...)), "41")
	return r
}

func debian(tb testing.TB) *repository {
	r := &repository{name: "library/debian"}
	var images []descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		images = append(images, r.image(oci, arch, rootfsLayer(tb, "debian-"+arch, ".gz")))
	}
	r.tag(r.index(oci, images...), "bookworm")
	return r
}

// large has one layer of size bytes.
func large(tb testing.TB, size int64) (*repository, layer) {
	r := &repository{name: "library/large"}
	l := randomLayer(tb, 200, size)
	r.tag(r.index(oci, r.image(oci, "amd64", l)), "1")
	return r, l
}
