package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
)

func (p *program) policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "print a BuildKit source policy that makes builds obey mirror.lock",
		Description: "With this policy a build gets the locked digest of every locked image, whatever the\n" +
			"tag means at the registry or mirror that answers, and fails for an image that is\n" +
			"not locked.\n\n" +
			"   mirrorctl policy > policy.json\n" +
			"   EXPERIMENTAL_BUILDKIT_SOURCE_POLICY=policy.json docker buildx build .\n" +
			"   buildctl build --source-policy-file policy.json ...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "take the digests from `FILE`"},
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
	lock, err := lockfile.Read(c.String("lockfile"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; run mirrorctl sync first", err)
	}
	if err != nil {
		return err
	}
	rules, err := policyRules(lock, c.Bool("allow-unlocked"))
	if err != nil {
		return err
	}
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(sourcePolicy{Rules: rules})
}

// imageSource is how BuildKit calls an image as a source of a build.
const imageSource = "docker-image://"

// policyRules makes the rules of a lock. BuildKit looks through all rules and
// starts anew when one converts the source; the last that allows or denies
// decides. So everything is denied first, then each locked digest allowed, and
// each locked tag converted to its digest.
func policyRules(lock lockfile.File, allowUnlocked bool) ([]policyRule, error) {
	rules := []policyRule{} // [] and not null for an empty lock
	exact := func(identifier string) policySelector {
		return policySelector{Identifier: imageSource + identifier, MatchType: "EXACT"}
	}
	if !allowUnlocked {
		rules = append(rules, policyRule{Action: "DENY", Selector: policySelector{Identifier: imageSource + "*", MatchType: "WILDCARD"}})
	}
	allowed := map[string]bool{}
	for _, image := range lock.Images {
		name, err := reference.ParseNormalizedNamed(image.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", image.Name, err)
		}
		locked, err := reference.WithDigest(reference.TrimNamed(name), image.Digest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", image.Name, err)
		}
		if image.Name != locked.String() {
			rules = append(rules, policyRule{
				Action: "CONVERT", Selector: exact(image.Name), Updates: &policyUpdates{Identifier: imageSource + locked.String()},
			})
		}
		if !allowUnlocked && !allowed[locked.String()] {
			allowed[locked.String()] = true
			rules = append(rules, policyRule{Action: "ALLOW", Selector: exact(locked.String())})
		}
	}
	return rules, nil
}
