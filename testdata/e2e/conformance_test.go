//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestConformance holds a mirror against the distribution specification, version
// 1.1 and what its text has become since, in all that a read-only registry has to
// do. The mirror's store was synced from a registry that was filled through its
// own API, and from one with the referrers API; both are gone when the checks run.
// Each check is made in all forms that the name of a repository can have.
func TestConformance(t *testing.T) {
	for _, upstream := range []struct {
		name  string
		start func(t *testing.T) (content *specContent, address string, stop func())
	}{
		{"distribution-3", func(t *testing.T) (*specContent, string, func()) {
			content := newSpecContent(false)
			hub := startHub(t, "distribution-3", content.repository)
			return content, hub.url(), hub.stop
		}},
		{"with referrers API", func(t *testing.T) (*specContent, string, func()) {
			content := newSpecContent(true)
			server := content.registry(t)
			return content, server.URL, server.Close
		}},
	} {
		t.Run(upstream.name, func(t *testing.T) {
			content, address, stop := upstream.start(t)
			var images []string
			for _, tag := range content.tags {
				if !strings.HasPrefix(tag.name, "sha256-") { // comes with its subject
					images = append(images, content.name+":"+tag.name)
				}
			}
			project := newProject(t, address, images...)
			project.must(t, "sync")
			project.must(t, "add", content.name+"@"+content.orphan.Digest)
			stop()
			project.configure(t, "[serve]\nhosts = {\"hub.mirror.lan\" = \"docker.io\"}\n")
			mirror := project.serve(t)
			forms := []specClient{
				{form: "default", path: "/v2/" + content.name},
				{form: "ns", path: "/v2/" + content.name, ns: "docker.io"},
				{form: "prefix", path: "/v2/docker.io/" + content.name},
				{form: "prefix and ns", path: "/v2/docker.io/" + content.name, ns: "docker.io"},
				{form: "prefix before v2", path: "/docker.io/v2/" + content.name},
				{form: "host", path: "/v2/" + content.name, host: "hub.mirror.lan"},
			}
			passed := 0
			for _, c := range specChecks {
				if t.Run(c.number+" "+c.must, func(t *testing.T) {
					for _, form := range forms {
						form.mirror, form.content = mirror, content
						if c.check(t, &form); t.Failed() {
							t.Fatalf("by %s", form.form)
						}
					}
				}) {
					passed++
				}
			}
			t.Logf("conformance, upstream %s: %d of %d, each in %d forms of the name", upstream.name, passed, len(specChecks), len(forms))
			project.verify(t)
		})
	}
}
