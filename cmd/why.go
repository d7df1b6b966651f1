package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

func (p *program) whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "show which files need an image or a blob",
		ArgsUsage: "IMAGE|DIGEST [PATH...]",
		Description: "Shows files, lines and stages that need an image; a digest may be that of an index,\n" +
			"a manifest, a configuration or a layer. It looks through the given files and\n" +
			"folders, or else through the files that mirror.lock names, for any stage.\n\n" +
			"   mirrorctl why debian:bookworm\n" +
			"   mirrorctl why sha256:716d84876be5d836c9b761fbd08ba2932a7c2ad1f1d4c60afb6ec78267f3633b",
		Flags: append(discoverFlags(),
			&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "take files and digests from `FILE`"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: name, file, line, stage, kind; args"}),
		BashComplete: p.completeImages,
		Action:       p.why,
	}
}

func (p *program) why(c *cli.Context) error {
	if !c.Args().Present() {
		return usageErrorf("why takes an image or a digest; see mirrorctl why --help")
	}
	lock, err := openLock(c.String("lockfile"))
	if err != nil {
		return err
	}
	what := c.Args().First()
	names, err := p.meant(c, lock.file, what)
	if err != nil {
		return err
	}
	paths := c.Args().Tail()
	if len(paths) == 0 {
		for _, file := range lock.file.Files() {
			paths = append(paths, filepath.Join(filepath.Dir(lock.path), filepath.FromSlash(file)))
		}
	}
	if err := c.Set("all-stages", "true"); err != nil {
		return err
	}
	found, known, err := p.discoverStored(c, paths, p.storedTriggers(lock.file))
	if err != nil {
		return err
	}
	found.failed = append(found.failed, known.failed()...)
	p.warn(found)
	uses := slices.DeleteFunc(found.uses, func(u use) bool { return !slices.Contains(names, u.Name) })
	if err := p.printUses(c, uses, true); err != nil {
		return err
	}
	if len(found.failed) > 0 {
		return &codedError{code: failedFilesCode(found), err: errors.Join(found.failed...)}
	}
	if len(uses) > 0 {
		return nil
	}
	for _, name := range names {
		if entry, ok := lock.file.Image(name); ok && len(entry.UsedBy) == 0 {
			p.say("%s was added by hand", name)
			return nil
		}
	}
	return &imageError{name: what, err: errors.New("no file needs it"), hint: "give the files or folders to look through"}
}

// meant returns the names of the images that an argument means: one that is
// named, or all that a digest is a part of, by the lock or by the store.
func (p *program) meant(c *cli.Context, lock lockfile.File, what string) ([]string, error) {
	d, err := digest.Parse(what)
	if algorithm, _, colon := strings.Cut(what, ":"); err != nil && colon && digest.Algorithm(algorithm).Available() {
		// As a reference it would be an image that is called like the algorithm.
		return nil, usageErrorf("%q is no digest in full: %v; mirrorctl ls --digests shows them", what, err)
	}
	if err != nil {
		name, err := parseName(what)
		if err != nil {
			return nil, err
		}
		return []string{canonical(name).String()}, nil
	}
	var names []string
	for _, image := range lock.Images {
		part := image.Digest == d
		for _, platform := range image.Platforms {
			part = part || platform == d
		}
		if part {
			names = append(names, image.Name)
		}
	}
	dir, err := p.storeDir(c)
	if err != nil {
		return nil, err
	}
	st, err := store.OpenReadOnly(c.Context, dir)
	if errors.Is(err, store.ErrNoStore) || errors.Is(err, fs.ErrNotExist) {
		return orUnknown(names, what)
	}
	if err != nil {
		return nil, storeError(err)
	}
	defer st.Close()
	pins, err := st.PinsReaching(c.Context, d)
	if err != nil {
		return nil, err
	}
	for _, pin := range pins {
		// The lock may have the tag beside the digest, which the store has not.
		for _, image := range lock.Images {
			if image.Digest == pin.Digest {
				names = append(names, image.Name)
			}
		}
		names = append(names, pin.Name())
	}
	slices.Sort(names)
	return orUnknown(slices.Compact(names), what)
}

func orUnknown(names []string, what string) ([]string, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: neither in the lock nor part of a pinned image", what)
	}
	return names, nil
}
