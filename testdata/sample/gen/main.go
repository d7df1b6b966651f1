// Gen writes the sample registry of testdata/sample: OCI image layouts, one
// folder per repository, with a little of everything that real registries have.
// Its output is the same everywhere and always, so it is in git and a test runs
// gen again:
//
//	go run ./testdata/sample/gen [FOLDER]
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types that image-spec does not have.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	inToto         = "application/vnd.in-toto+json"
	spdx           = "application/spdx+json"
	simpleSigning  = "application/vnd.dev.cosign.simplesigning.v1+json"
)

func main() {
	root := filepath.Join("testdata", "sample")
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	for repository, fill := range map[string]func(*layout){
		"library/hello":   hello,
		"library/base":    base,
		"library/tool":    tool,
		"library/onbuild": onbuild,
	} {
		l := newLayout()
		fill(l)
		if err := l.write(filepath.Join(root, filepath.FromSlash(repository))); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}

// hello is what builds push today: an index of two platforms with an
// attestation, an SBOM that refers to it and is found by the fallback tag, and a
// signature under cosign's tag. Its older version shares a layer with it.
func hello(l *layout) {
	release := gzipped(tarball(file{"etc/os-release", "NAME=hello\n"}))
	platforms := []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
	}
	for _, tag := range []string{"1.0", "latest"} {
		var manifests []v1.Descriptor
		for _, p := range platforms {
			program := gzipped(tarball(file{"bin/hello", "#!/bin/sh\necho hello " + tag + " on " + p.Architecture + "\n"}))
			manifests = append(manifests, l.image(image{
				platform: p,
				layers:   []layer{{v1.MediaTypeImageLayerGzip, release}, {v1.MediaTypeImageLayerGzip, program}},
			}))
		}
		if tag == "latest" {
			manifests = append(manifests, l.attestation(manifests[0]))
		}
		index := l.index(v1.MediaTypeImageIndex, manifests...)
		l.tag(tag, index)
		if tag == "latest" {
			l.sbom(index)
			l.signature(index)
		}
	}
}

// base has what is rarer: an index in an index, zstd and plain tar as layers,
// and a layer whose digest is SHA-512.
func base(l *layout) {
	etc := tarball(file{"etc/base", "base\n"})
	var arm []v1.Descriptor
	for _, variant := range []string{"v6", "v7"} {
		arm = append(arm, l.image(image{
			platform: v1.Platform{OS: "linux", Architecture: "arm", Variant: variant},
			layers:   []layer{{v1.MediaTypeImageLayer, etc}, {v1.MediaTypeImageLayer, tarball(file{"bin/base", "arm" + variant + "\n"})}},
		}))
	}
	l.tag("1", l.index(v1.MediaTypeImageIndex,
		l.image(image{
			platform: v1.Platform{OS: "linux", Architecture: "amd64"},
			layers:   []layer{{v1.MediaTypeImageLayerZstd, zstd(etc)}, {v1.MediaTypeImageLayerZstd, zstd(tarball(file{"bin/base", "amd64\n"}))}},
		}),
		l.image(image{
			platform:  v1.Platform{OS: "linux", Architecture: "arm64"},
			layers:    []layer{{v1.MediaTypeImageLayer, tarball(file{"bin/base", "arm64\n"})}},
			algorithm: digest.SHA512,
		}),
		l.index(v1.MediaTypeImageIndex, arm...),
	))
}

// tool is what Docker pushed for years: its own media types, a manifest without
// an index (1) and a list of manifests (2).
func tool(l *layout) {
	build := func(arch, version string) v1.Descriptor {
		return l.image(image{
			platform: v1.Platform{OS: "linux", Architecture: arch},
			layers:   []layer{{dockerLayer, gzipped(tarball(file{"bin/tool", "#!/bin/sh\necho tool " + version + " on " + arch + "\n"}))}},
			docker:   true,
		})
	}
	plain := build("amd64", "1")
	plain.Platform = nil
	l.tag("1", plain)
	l.tag("2", l.index(dockerList, build("amd64", "2"), build("386", "2")))
}

// onbuild is a base whose triggers need a further image: tool on one platform,
// and the other version of it on the other.
func onbuild(l *layout) {
	var manifests []v1.Descriptor
	for i, arch := range []string{"amd64", "arm64"} {
		manifests = append(manifests, l.image(image{
			platform: v1.Platform{OS: "linux", Architecture: arch},
			layers:   []layer{{v1.MediaTypeImageLayerGzip, gzipped(tarball(file{"etc/onbuild", arch + "\n"}))}},
			onBuild:  []string{"COPY --from=tool:" + []string{"1", "2"}[i] + " /bin/tool /bin/tool"},
		}))
	}
	l.tag("1", l.index(v1.MediaTypeImageIndex, manifests...))
}
