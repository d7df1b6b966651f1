//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A build with a policy gets what is locked, though the tag has moved upstream,
// and nothing that is not locked; whether it asks the mirror first or only the
// registry where the tag moved.
func TestPolicy(t *testing.T) {
	hub := startHub(t, "distribution-3", busybox(t))
	project := newProject(t, hub.url(), "busybox:1.35")
	project.must(t, "sync", "Dockerfile")
	locked := hub.record(t, "library/busybox:1.35").digest(t, "library/busybox:1.35")
	mirror := project.serve(t)
	upstream := startProxy(t, hub.url())
	project.configure(t, fmt.Sprintf("mirror_hosts = [%q]\n", mirror))
	hub.push(t, movedBusybox(t))
	moved := hub.record(t, "library/busybox:1.35").digest(t, "library/busybox:1.35")
	if moved == locked {
		t.Fatal("the tag did not move")
	}

	json := tempDir(t)
	policies := map[string][]string{ // by what the tests below call them: for buildctl, for buildx
		"strict": {writeFile(t, filepath.Join(json, "strict"), project.must(t, "policy")), project.must(t, "policy", "--format", "rego")},
		"lax": {
			writeFile(t, filepath.Join(json, "lax"), project.must(t, "policy", "--allow-unlocked")),
			project.must(t, "policy", "--format", "rego", "--allow-unlocked"),
		},
	}
	builds := []struct {
		name, policy string
		dockerfile   string
		want         string // locked, moved, or the image that the error names; "" is what the registry has
	}{
		{"free", "", "FROM busybox:1.35\n", ""},
		{"free unlocked", "", "FROM busybox:1.35\nCOPY --from=busybox:1.35-oci /bin /other\n", ""},
		{"FROM", "strict", "FROM busybox:1.35\n", "locked"},
		{"COPY", "strict", "FROM scratch\nCOPY --from=busybox:1.35 / /\n", "locked"},
		{"mount", "strict", "FROM docker.io/library/busybox:1.35\nRUN --mount=from=busybox:1.35,target=/m ls /m/bin/busybox && ! ls /m/random-77\n", "locked"},
		{"digest", "strict", "FROM busybox@" + locked + "\n", "locked"},
		{"tag and digest", "strict", "FROM busybox:1.35@" + locked + "\n", "locked"},
		{"mirror's address", "strict", "FROM " + mirror + "/busybox:1.35\nCOPY --from=" + mirror + "/docker.io/library/busybox:1.35 /bin /other\n", "locked"},
		{"unlocked FROM", "strict", "FROM busybox:1.35-oci\n", "docker.io/library/busybox:1.35-oci"},
		{"unlocked COPY", "strict", "FROM busybox:1.35\nCOPY --from=busybox:1.35-oci /bin /other\n", "docker.io/library/busybox:1.35-oci"},
		{"unlocked digest", "strict", "FROM busybox:1.35@" + moved + "\n", "docker.io/library/busybox:1.35@" + moved},
		{"unlocked syntax", "strict", "# syntax=docker/dockerfile:1\nFROM busybox:1.35\n", "docker.io/docker/dockerfile:1"},
		{"allow unlocked", "lax", "FROM busybox:1.35\nCOPY --from=busybox:1.35-oci /bin /other\n", "locked"},
	}
	for _, way := range []struct {
		name       string
		registries []string
		free       string // what a build gets without a policy
	}{
		{"mirror", []string{mirror + "/docker.io", upstream.address}, "locked"},
		{"upstream", []string{upstream.address}, "moved"},
	} {
		t.Run(way.name, func(t *testing.T) {
			b := newBuildkitd(t, way.registries...)
			for _, build := range builds {
				if build.want == "" {
					build.want = way.free
				}
				context := tempDir(t)
				writeFile(t, filepath.Join(context, "Dockerfile"), build.dockerfile)
				policy := policies[build.policy]
				upstream.forget()
				t.Run("buildctl/"+build.name, func(t *testing.T) {
					var flags []string
					if policy != nil {
						flags = []string{"--source-policy-file", policy[0]}
					}
					r, out := b.buildctl(t, context, flags...)
					checkBuild(t, r, out, build.want, "denied by policy")
				})
				t.Run("buildx/"+build.name, func(t *testing.T) {
					if policy != nil {
						writeFile(t, filepath.Join(context, "Dockerfile.rego"), policy[1])
					}
					r, out := b.buildx(t, context)
					checkBuild(t, r, out, build.want, "not in mirror.lock")
				})
				// So a tag that is gone from the upstream still builds.
				if asked := slices.Concat(upstream.seen("GET", "manifests/1.35"), upstream.seen("HEAD", "manifests/1.35")); build.policy == "strict" && len(asked) > 0 {
					t.Errorf("%s: with the policy the build asks the upstream for a tag: %v", build.name, asked)
				}
			}
			t.Run("buildx --policy strict=true", func(t *testing.T) {
				context := tempDir(t)
				writeFile(t, filepath.Join(context, "base.Dockerfile"), "FROM busybox:1.35-oci\n")
				writeFile(t, filepath.Join(context, "base.Dockerfile.rego"), policies["strict"][1])
				r, out := b.buildx(t, context, "--policy", "strict=true", "-f", filepath.Join(context, "base.Dockerfile"))
				checkBuild(t, r, out, "docker.io/library/busybox:1.35-oci", "not in mirror.lock")
			})
		})
	}
}

// checkBuild checks whether a build got the locked busybox or the moved one, or
// failed for the image that want names, with the given reason.
func checkBuild(t *testing.T, r result, out, want, reason string) {
	t.Helper()
	if want != "locked" && want != "moved" {
		if r.code == 0 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, reason) {
			t.Errorf("want an error with %q and %q: %v", want, reason, r)
		}
		return
	}
	if r.code != 0 {
		t.Fatal(r)
	}
	if _, err := os.Stat(filepath.Join(out, "bin", "busybox")); err != nil {
		t.Error(err)
	}
	got := "locked"
	if _, err := os.Stat(filepath.Join(out, "random-77")); err == nil {
		got = "moved"
	}
	if got != want {
		t.Errorf("the build got the %s image, want the %s one: %v", got, want, r)
	}
}
