package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"mirrorctl/store"
)

func (p *program) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show what a pinned image consists of",
		ArgsUsage: "IMAGE",
		Description: "Shows the index, platforms, layers, attestations and signatures of an image, with\n" +
			"sizes, and which blobs other images in the store share.\n\n" +
			"   mirrorctl inspect debian:bookworm",
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the tree as JSON"}},
		BashComplete: p.completeImages,
		Action:       p.inspect,
	}
}

func (p *program) inspect(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageErrorf("inspect takes one image; see mirrorctl inspect --help")
	}
	name, err := parseName(c.Args().First())
	if err != nil {
		return err
	}
	return p.withStoreReadOnly(c, func(st *store.Store) error {
		pin, err := p.findPin(c, st, name)
		if err != nil {
			return err
		}
		tree, err := st.Tree(c.Context, pin.Digest)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			enc := json.NewEncoder(p.stdout)
			enc.SetIndent("", "  ")
			return enc.Encode(nodeToJSON(tree))
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s\n", pin.Name())
		fmt.Fprintf(&b, "  pinned %s, %s over all platforms\n", pin.PinnedAt.Local().Format("2006-01-02 15:04"), size(pin.Size))
		writeNode(&b, tree, "  ")
		_, err = fmt.Fprint(p.stdout, b.String())
		return err
	})
}

// findPin returns the pin of a name, and for a name that is not pinned an error
// that suggests the nearest one that is.
func (p *program) findPin(c *cli.Context, st *store.Store, name reference.Named) (store.Pin, error) {
	repo, ref := store.Locate(name)
	pin, err := st.Pin(c.Context, repo, ref)
	if err == nil {
		return pin, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.Pin{}, fmt.Errorf("%s: %w", name, err)
	}
	return store.Pin{}, &imageError{name: name.String(), err: errNotPinned, hint: p.suggestPin(c, st, name)}
}

var errNotPinned = errors.New("not pinned")

// suggestPin is a hint for a name that is not pinned: another tag of the same
// repository, or a name that looks like it.
func (p *program) suggestPin(c *cli.Context, st *store.Store, name reference.Named) string {
	repo, _ := store.Locate(name)
	for _, among := range []store.Repository{repo, {}} { // the second is all
		names, err := st.Names(c.Context, among)
		if err != nil {
			return ""
		}
		near := suggest(name, names)
		if near == "" && among == repo && len(names) > 0 {
			near = familiar(names[0])
		}
		if near != "" {
			return "did you mean " + near + "?"
		}
	}
	return "mirrorctl ls shows what is"
}

// suggest returns the pinned name that name was most likely meant to be, as
// people type it, or "".
func suggest(name reference.Named, pinned []string) string {
	var names []string
	for _, pin := range pinned {
		names = append(names, strings.TrimSuffix(familiarPin(pin), ":latest"))
	}
	// What all names have in common, docker.io/library/ and :latest, is no likeness.
	return nearest(strings.TrimSuffix(familiar(name.String()), ":latest"), names)
}

// familiarPin is familiar for a name that comes from the store, of which there
// may be many.
func familiarPin(name string) string {
	short, hub := strings.CutPrefix(name, "docker.io/")
	if official, ok := strings.CutPrefix(short, "library/"); hub && ok && !strings.Contains(official, "/") {
		return official
	}
	return short
}

// nodeJSON is how inspect --json shows a manifest or blob.
type nodeJSON struct {
	Digest       string     `json:"digest"`
	MediaType    string     `json:"media_type"`
	Size         int64      `json:"size"`
	Kind         string     `json:"kind,omitempty"`
	Platform     string     `json:"platform,omitempty"`
	ArtifactType string     `json:"artifact_type,omitempty"`
	Tags         []string   `json:"tags,omitempty"`
	Shared       bool       `json:"shared,omitempty"`
	Children     []nodeJSON `json:"children,omitempty"`
	Referrers    []nodeJSON `json:"referrers,omitempty"`
}

func nodeToJSON(n store.Node) nodeJSON {
	j := nodeJSON{
		Digest: n.Digest.String(), MediaType: n.MediaType, Size: n.Size, Kind: string(n.Kind),
		Platform: n.Platform, ArtifactType: n.ArtifactType, Tags: n.Tags, Shared: n.Shared,
	}
	for _, c := range n.Children {
		j.Children = append(j.Children, nodeToJSON(c))
	}
	for _, r := range n.Referrers {
		j.Referrers = append(j.Referrers, nodeToJSON(r))
	}
	return j
}

func writeNode(b *strings.Builder, n store.Node, indent string) {
	fmt.Fprintf(b, "%s%s  %s  %s", indent, printable(nodeLabel(n)), short(n.Digest), size(n.Size))
	if n.Shared {
		b.WriteString("  shared")
	}
	if n.Kind == store.KindForeign {
		b.WriteString("  not stored: clients fetch it from its own address")
	}
	b.WriteByte('\n')
	for _, c := range n.Children {
		writeNode(b, c, indent+"  ")
	}
	for _, r := range n.Referrers {
		writeNode(b, r, indent+"  ")
	}
}

// nodeLabel says in a few words what a node is.
func nodeLabel(n store.Node) string {
	switch {
	case len(n.Tags) > 0:
		return "tag " + strings.Join(n.Tags, ", ")
	case n.ArtifactType != "":
		return "referrer " + n.ArtifactType
	case store.IsIndex(n.MediaType):
		return "index"
	case n.Platform == "unknown/unknown":
		return "attestation"
	case n.Kind == store.KindManifest && n.Platform != "":
		return n.Platform
	case n.Kind == "" && n.Platform != "":
		return "manifest of " + n.Platform
	case n.Kind == store.KindBlob && n.MediaType == store.MediaTypeSchema1Signed:
		return "manifest with signatures"
	case n.Kind == store.KindConfig && n.Platform != "":
		return "config of " + n.Platform
	case n.Kind != "" && n.Kind != store.KindManifest:
		return string(n.Kind)
	}
	return "manifest"
}
