package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
)

func (p *program) policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "print a build policy that makes builds obey mirror.lock",
		Description: "With this policy a build gets the locked digest of every locked image, whatever the\n" +
			"tag means at the registry or mirror that answers, and fails for an image that is\n" +
			"not locked. docker buildx 0.31 and later reads NAME.rego beside the Dockerfile NAME by\n" +
			"itself; strict=true makes a build fail where BuildKit is older than 0.27 and would\n" +
			"pass the policy over:\n\n" +
			"   mirrorctl policy --format rego --write\n" +
			"   docker buildx build --policy strict=true .\n\n" +
			"Older ones, and buildctl, take BuildKit's own form:\n\n" +
			"   mirrorctl policy > policy.json\n" +
			"   EXPERIMENTAL_BUILDKIT_SOURCE_POLICY=policy.json docker buildx build .\n" +
			"   buildctl build --source-policy-file policy.json ...\n\n" +
			"A policy is as old as the lock that it was made from: make it again after a sync\n" +
			"that changed the lock.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "take the digests from `FILE`"},
			&cli.StringFlag{Name: "format", Value: "json", Usage: "`FORMAT` of the policy: json for BuildKit, rego for buildx"},
			&cli.BoolFlag{Name: "write", Usage: "with --format rego: write it beside every Dockerfile that needs images of the lock"},
			&cli.BoolFlag{Name: "allow-unlocked", Usage: "let builds use images that are not locked, too"},
		},
		Action: p.policy,
	}
}

// sourcePolicy is BuildKit's policy as its clients read it (moby/buildkit,
// sourcepolicy/pb/policy.proto).
type sourcePolicy struct {
	Rules []policyRule `json:"rules"`
}

type policyRule struct {
	Action   string         `json:"action"`
	Selector policySelector `json:"selector"`
	Updates  *policyUpdates `json:"updates,omitempty"`
}

type policySelector struct {
	Identifier string `json:"identifier"`
	MatchType  string `json:"match_type"`
}

type policyUpdates struct {
	Identifier string `json:"identifier"`
}

func (p *program) policy(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("policy takes no arguments; see mirrorctl policy --help")
	}
	format, allowUnlocked := c.String("format"), c.Bool("allow-unlocked")
	if format != "json" && format != "rego" {
		return usageErrorf("policy --format %s: must be json or rego", format)
	}
	if c.Bool("write") && format != "rego" {
		return usageErrorf("policy --write needs --format rego: no builder looks for a JSON policy by itself")
	}
	lock := openedLock{path: c.String("lockfile")}
	var err error
	if lock.file, err = lockfile.Read(lock.path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; run mirrorctl sync first", err)
	}
	if err != nil {
		return err
	}
	names, err := p.askedFor(lock.file)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("write"):
		return p.writePolicies(c, lock, regoPolicy(names, allowUnlocked))
	case format == "rego":
		_, err := p.stdout.Write(regoPolicy(names, allowUnlocked))
		return err
	}
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(sourcePolicy{Rules: policyRules(names, allowUnlocked)})
}

// askedName is a name by which builds ask for a locked image.
type askedName struct {
	name   string // with tag or digest, as it is in the lock
	digest digest.Digest
	pinned string // name with the locked digest, and without a tag
}

// askedFor returns the names by which builds ask for the images of a lock: their
// own, and those at the addresses of this mirror.
func (p *program) askedFor(lock lockfile.File) ([]askedName, error) {
	var all []askedName
	for _, image := range lock.Images {
		own, err := reference.ParseNormalizedNamed(image.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", image.Name, err)
		}
		for _, name := range append([]reference.Named{own}, p.atMirror(own)...) {
			pinned, err := reference.WithDigest(reference.TrimNamed(name), image.Digest)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", image.Name, err)
			}
			all = append(all, askedName{name.String(), image.Digest, pinned.String()})
		}
	}
	return all, nil
}

// atMirror returns the names of an image at the addresses of this mirror, as
// people write them: with the registry or its alias before the path, or with
// neither where the mirror needs none.
func (p *program) atMirror(image reference.Named) []reference.Named {
	registry, path := reference.Domain(image), reference.Path(image)
	paths := []string{registry + "/" + path, path, strings.TrimPrefix(path, "library/")}
	for alias := range p.config.Serve.Aliases {
		paths = append(paths, alias+"/"+path, alias+"/"+strings.TrimPrefix(path, "library/"))
	}
	slices.Sort(paths)
	var names []reference.Named
	for _, host := range p.config.MirrorHosts {
		for _, path := range slices.Compact(paths) {
			name, err := reference.ParseNormalizedNamed(host + "/" + path + strings.TrimPrefix(image.String(), image.Name()))
			if err != nil {
				continue
			}
			// Not every one of them means this image.
			if behind, err := p.behind(name); err == nil && behind.String() == image.String() {
				names = append(names, name)
			}
		}
	}
	return names
}

// imageSource is how BuildKit calls an image as a source of a build.
const imageSource = "docker-image://"

// policyRules makes the rules of a lock. BuildKit looks through all rules and
// starts anew when one converts the source; the last that allows or denies
// decides. So everything is denied first, then each locked digest allowed, with
// or without a tag, and each locked tag converted to its digest.
func policyRules(names []askedName, allowUnlocked bool) []policyRule {
	rules := []policyRule{} // [] and not null for an empty lock
	add := func(action, identifier, matchType string, updates *policyUpdates) {
		rules = append(rules, policyRule{action, policySelector{imageSource + identifier, matchType}, updates})
	}
	if !allowUnlocked {
		add("DENY", "*", "WILDCARD", nil)
	}
	allowed := map[string]bool{}
	for _, n := range names {
		if !strings.Contains(n.name, "@") {
			add("CONVERT", n.name, "EXACT", &policyUpdates{imageSource + n.pinned})
		}
		if !allowUnlocked && !allowed[n.pinned] {
			allowed[n.pinned] = true
			add("ALLOW", n.pinned, "EXACT", nil)
			add("ALLOW", strings.Replace(n.pinned, "@", ":*@", 1), "WILDCARD", nil) // what a FROM with tag and digest asks for
		}
	}
	return rules
}
