package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
)

// regoMark is what a policy of ours begins with, and no one else's.
const regoMark = "# Written by mirrorctl policy from mirror.lock."

// regoPolicy writes the policy of a lock for buildx (docker/buildx, package
// policy), which asks it about each source of a build. pin_image allows an image
// and has it replaced by a digest; BuildKit then asks about that. The rules use
// nothing that BuildKit would have to look up at a registry first: a locked tag
// that is gone there still builds.
func regoPolicy(names []askedName, allowUnlocked bool) []byte {
	digests := map[string]string{}
	for _, n := range names {
		digests[n.name] = n.digest.String()
	}
	var locked bytes.Buffer
	enc := json.NewEncoder(&locked) // sorts the names
	enc.SetIndent("", "\t")
	if err := enc.Encode(digests); err != nil {
		panic(err) // strings are always JSON, and JSON is Rego
	}
	otherwise := "false"
	if allowUnlocked {
		otherwise = "true"
	}
	return fmt.Appendf(nil, `%s
# docker buildx reads NAME.rego beside the Dockerfile NAME by itself.
package docker

# The digest that each image gets, by the name that a build asks for.
locked := %s
decision := {"allow": allow, "deny_msg": deny_msg}

default allow := %s

# Folders, git and http sources are not mirror.lock's concern.
allow if not input.image

allow if pin_image(input.image, locked[input.image.ref])

# A locked image by its digest, with or without a tag.
allow if {
	asked := split(input.image.ref, "@")[1]
	some name, digest in locked
	digest == asked
	startswith(name, concat("", [input.image.fullRepo, ":"]))
}

deny_msg contains msg if {
	not allow
	msg := sprintf("%%s is not in mirror.lock; run mirrorctl sync, then mirrorctl policy again", [input.image.ref])
}
`, regoMark, locked.Bytes(), otherwise)
}

// writePolicies writes a Rego policy beside every Dockerfile that needs an image
// of a lock, also those that a Compose or Bake file in the lock builds.
func (p *program) writePolicies(c *cli.Context, lock openedLock, policy []byte) error {
	var paths []string
	for _, file := range lock.file.Files() {
		paths = append(paths, filepath.Join(filepath.Dir(lock.path), filepath.FromSlash(file)))
	}
	if len(paths) == 0 {
		return fmt.Errorf("%s names no file; run mirrorctl sync first", lock.path)
	}
	found, err := p.discover(c, paths, nil)
	if err != nil {
		return err
	}
	failures := found.failed
	var files []string
	inline := map[string]bool{}
	for _, u := range found.uses {
		file := filepath.FromSlash(u.File)
		if u.Kind == kindCompose || slices.Contains(files, file) {
			continue // a service that runs an image builds nothing
		}
		if kindOf(file) != dockerfileSource {
			inline[fmt.Sprintf("%s: buildx looks for no policy for the inline Dockerfile of %s", u.File, u.Build)] = true
			continue
		}
		files = append(files, file)
		if err := p.writePolicy(file+".rego", policy); err != nil {
			failures = append(failures, err)
		}
	}
	for _, warning := range slices.Sorted(maps.Keys(inline)) {
		p.say("warning: %s: its builds do not obey the lock", warning)
	}
	return errors.Join(failures...)
}

// writePolicy writes a policy, but not over what somebody else wrote.
func (p *program) writePolicy(file string, policy []byte) error {
	old, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.WriteFile(file, policy, 0o666)
	case err == nil && !bytes.HasPrefix(old, []byte(regoMark)):
		return fmt.Errorf("%s was not written by mirrorctl and stays as it is; move it away, and give it to buildx with --policy filename=FILE", file)
	case err == nil && !bytes.Equal(old, policy):
		err = replaceFile(file, policy)
	case err == nil:
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, cause(err))
	}
	p.say("%s written", file)
	return nil
}
