package lockfile

import (
	"cmp"
	"strconv"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// PlatformKeys returns what [Image.Platforms] holds for an index with these
// manifests: a key per platform, os/arch or os/arch/variant, as the index writes
// them.
//
// Where an index names one platform for several manifests, the keys are kept
// apart by os.version where there is one (windows/amd64:10.0.20348.2227), and
// what is still the same by its place (linux/amd64, linux/amd64#2). The result
// depends on the index alone, so it is the same on every machine.
//
// Manifests without a platform, attestations (unknown/unknown) and platforms
// that make no valid key are left out; the digest of the index covers them.
func PlatformKeys(manifests []v1.Descriptor) map[string]digest.Digest {
	digests := map[string]map[digest.Digest]bool{} // what each bare key names
	for _, m := range manifests {
		if key, ok := platformKey(m.Platform); ok {
			if digests[key] == nil {
				digests[key] = map[digest.Digest]bool{}
			}
			digests[key][m.Digest] = true
		}
	}
	platforms := make(map[string]digest.Digest, len(digests))
	used := map[string]int{}
	listed := map[string]bool{}
	for _, m := range manifests {
		key, ok := platformKey(m.Platform)
		if !ok || listed[key+"@"+m.Digest.String()] {
			continue
		}
		listed[key+"@"+m.Digest.String()] = true
		if len(digests[key]) > 1 && isPlatformWord(m.Platform.OSVersion) {
			key += ":" + m.Platform.OSVersion
		}
		if used[key]++; used[key] > 1 {
			key += "#" + strconv.Itoa(used[key])
		}
		platforms[key] = m.Digest
	}
	return platforms
}

func platformKey(p *v1.Platform) (string, bool) {
	if p == nil || cmp.Or(p.OS, "unknown") == "unknown" && cmp.Or(p.Architecture, "unknown") == "unknown" {
		return "", false
	}
	key := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		key += "/" + p.Variant
	}
	return key, isPlatformWord(p.OS) && isPlatformWord(p.Architecture) && (p.Variant == "" || isPlatformWord(p.Variant))
}
