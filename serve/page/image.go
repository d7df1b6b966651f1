package page

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// maxHistory is how many events of an image are shown.
const maxHistory = 50

// maxConfig is the size in bytes of the largest configuration that is read for
// what made a layer.
const maxConfig = 1 << 20

// imagePage is the content of image.html.
type imagePage struct {
	Pin       store.Pin
	Usage     store.Usage
	Standing  store.Standing
	Meaning   string // of what upstream said
	Platforms []string
	Root      *node
	History   []store.Event
	Pulls     []pull
	RemoveURL string
}

// pull is a way to get the image from this mirror.
type pull struct{ Program, Command string }

// node is a manifest as it is shown, with what it lists.
type node struct {
	Title     string
	Digest    digest.Digest
	MediaType string
	Size      int64 // of all its blobs
	Layers    []layer
	Children  []*node
	Referrers []*node
	Again     bool // shown in full elsewhere on the page
}

type layer struct {
	Digest  digest.Digest
	Kind    store.Kind
	Size    int64
	Percent float64 // of the largest layer of the image
	Shared  bool
	MadeBy  string // the step of the build
}

func (h *Handler) image(w http.ResponseWriter, r *http.Request) error {
	pin, err := h.named(r)
	if err != nil {
		return err
	}
	content := imagePage{
		Pin: pin.Pin, Usage: h.usage(pin.Usage), Standing: pin.Standing,
		Platforms: platformNames(pin.Platforms), Pulls: h.pulls(r, pin.Name()),
	}
	for _, s := range states {
		if s.name == content.Standing.State {
			content.Meaning = s.meaning
		}
	}
	tree, err := h.Store.Tree(r.Context(), pin.Digest)
	if err != nil {
		return err
	}
	content.Root = h.show(r.Context(), &tree, map[digest.Digest]bool{})
	scale(content.Root, largest(content.Root))
	if content.History, err = h.Store.History(r.Context(), maxHistory, pin.Pin); err != nil {
		return err
	}
	if h.Admin != nil {
		content.RemoveURL = strings.Replace(imageURL(pin.Name()), Prefix+"image/", Prefix+"remove/", 1)
	}
	return h.render(w, r, http.StatusOK, "image.html", pin.Name(), content)
}

// named is the pin that a path names. The error is a page.
func (h *Handler) named(r *http.Request) (store.Listed, error) {
	name, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if err != nil {
		return store.Listed{}, notPinned(r.PathValue("name"))
	}
	repo, ref := store.Locate(name)
	pin, err := h.Store.ListOne(r.Context(), repo, ref)
	if errors.Is(err, store.ErrNotFound) {
		return store.Listed{}, notPinned(name.String())
	}
	return pin, err
}

func notPinned(name string) error {
	return &pageError{http.StatusNotFound, "This image is not pinned here", name}
}

// pulls are the commands that get an image from this mirror by its own address,
// which needs no configuration.
func (h *Handler) pulls(r *http.Request, name string) []pull {
	address, tls := h.address(r)
	name = address + "/" + name
	podman, skopeo := "podman pull ", "skopeo inspect "
	crane := "crane manifest "
	if !tls {
		podman += "--tls-verify=false "
		skopeo += "--tls-verify=false "
		crane += "--insecure "
	}
	return []pull{
		{"docker", "docker pull " + name},
		{"Dockerfile", "FROM " + name},
		{"podman", podman + name},
		{"skopeo", skopeo + "docker://" + name},
		{"crane", crane + name},
	}
}

// show makes a node of a manifest.
func (h *Handler) show(ctx context.Context, n *store.Node, shown map[digest.Digest]bool) *node {
	v := &node{Title: title(n), Digest: n.Digest, MediaType: n.MediaType, Size: n.Size}
	if shown[n.Digest] {
		v.Again = true
		return v
	}
	shown[n.Digest] = true
	var config v1.Image
	for i := range n.Children {
		c := &n.Children[i]
		if c.Kind == store.KindManifest {
			child := h.show(ctx, c, shown)
			v.Children = append(v.Children, child)
			v.Size += child.Size
			continue
		}
		if c.Kind == store.KindConfig {
			config = h.config(ctx, c)
		}
		v.Size += c.Size
		v.Layers = append(v.Layers, layer{Digest: c.Digest, Kind: c.Kind, Size: c.Size, Shared: c.Shared})
	}
	describe(v.Layers, config)
	for i := range n.Referrers {
		v.Referrers = append(v.Referrers, h.show(ctx, &n.Referrers[i], shown))
	}
	return v
}

// config reads an image's configuration. What cannot be read explains no layers,
// and that is all: whether it is right is for verify to say.
func (h *Handler) config(ctx context.Context, n *store.Node) (config v1.Image) {
	switch n.MediaType {
	case v1.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json":
		if content, err := h.Store.ReadBlob(ctx, n.Digest, maxConfig); err == nil {
			_ = json.Unmarshal(content, &config)
		}
	}
	return config
}

// describe says what made the layers, as the configuration tells: its steps that
// made one are in the order of the layers (image-spec, config.md, "history").
func describe(layers []layer, config v1.Image) {
	var steps []string
	for _, step := range config.History {
		if !step.EmptyLayer {
			steps = append(steps, step.CreatedBy)
		}
	}
	i := 0
	for l := range layers {
		if layers[l].Kind != store.KindLayer && layers[l].Kind != store.KindForeign {
			continue
		}
		if i < len(steps) {
			layers[l].MadeBy = readable(steps[i])
		}
		i++
	}
}

// readable is a step without what builders put around the words of the
// Dockerfile, on one line.
func readable(step string) string {
	if run, ok := strings.CutPrefix(step, "/bin/sh -c "); ok {
		step = "RUN " + run
	}
	step = strings.Replace(step, "RUN #(nop) ", "", 1)
	return cut(strings.Join(strings.Fields(strings.TrimSuffix(step, "# buildkit")), " "), 300)
}

// cut shortens a text to at most n characters.
func cut(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// title says in a few words what a manifest is.
func title(n *store.Node) string {
	switch {
	case len(n.Tags) > 0:
		return "Tag " + strings.Join(n.Tags, ", ")
	case n.ArtifactType != "":
		return "Referrer: " + n.ArtifactType
	case store.IsIndex(n.MediaType):
		return "Index"
	case n.Platform == "unknown/unknown":
		return "Attestation"
	}
	return cmp.Or(n.Platform, "Manifest")
}

func largest(n *node) int64 {
	var size int64
	for _, l := range n.Layers {
		size = max(size, l.Size)
	}
	for _, child := range n.Children {
		size = max(size, largest(child))
	}
	return size
}

func scale(n *node, full int64) {
	for i := range n.Layers {
		if full > 0 {
			n.Layers[i].Percent = min(100, 100*float64(n.Layers[i].Size)/float64(full))
		}
	}
	for _, child := range n.Children {
		scale(child, full)
	}
	for _, r := range n.Referrers {
		scale(r, full)
	}
}

// platformNames lists platforms as people write them, each once.
func platformNames(offered []v1.Descriptor) []string {
	var names []string
	seen := map[string]bool{}
	for _, o := range offered {
		name := platforms.FormatAll(*o.Platform)
		if !seen[name] {
			names = append(names, name)
		}
		seen[name] = true
	}
	return names
}
