package cmd

import (
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

func (p *program) rmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "drop pinned images",
		ArgsUsage: "IMAGE...",
		Description: "Drops the pin from the store, and from mirror.lock here if it holds it, and frees\n" +
			"what no other pinned image needs.\n\n" +
			"   mirrorctl rm ubuntu:20.04",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "also drop the images from `FILE`"}},
		Action: p.rm,
	}
}

func (p *program) rm(c *cli.Context) error {
	if !c.Args().Present() {
		return usageErrorf("rm takes one image or more; see mirrorctl rm --help")
	}
	names, err := parseNames(c.Args().Slice())
	if err != nil {
		return err
	}
	lock, err := openLock(c.String("lockfile"))
	if err != nil {
		return err
	}
	return p.withStore(c, func(st *store.Store) error {
		var failures []error
		file := lock.file
		for _, name := range names {
			if err := p.removeOne(c, st, canonical(name), &file); err != nil {
				failures = append(failures, err)
			}
		}
		if len(file.Images) < len(lock.file.Images) {
			if _, err := lockfile.Write(lock.path, file); err != nil {
				failures = append(failures, err)
			}
		}
		if len(failures) == 0 {
			return nil
		}
		code := exitFailure
		if len(failures) < len(names) {
			code = exitSome
		}
		return &codedError{code: code, err: errors.Join(failures...)}
	})
}

// removeOne drops an image from the store and from file.
func (p *program) removeOne(c *cli.Context, st *store.Store, name reference.Named, file *lockfile.File) error {
	repo, ref := store.Locate(name)
	locked, wasLocked := file.Image(name.String())
	pin, freed, err := st.Remove(c.Context, repo, ref)
	if errors.Is(err, store.ErrNotFound) && !wasLocked {
		return &imageError{name: name.String(), err: errNotPinned, hint: p.suggestPin(c, st, name)}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeError(fmt.Errorf("%s: %w", name, err))
	}
	gone := fmt.Sprintf("%s freed in %s", size(freed.Bytes), plural(freed.Blobs, "file", "files"))
	if err == nil && wasLocked && locked.Digest != pin.Digest {
		// A conflict, and this the way out in which the store takes the lock's.
		p.say("%s: removed from the store, %s; %s still locks %s, which the next sync fetches",
			name, gone, c.String("lockfile"), short(locked.Digest))
		return nil
	}
	*file = file.Without(name.String())
	fromLock := ""
	if wasLocked {
		fromLock = " and from " + c.String("lockfile")
	}
	if err != nil {
		p.say("%s: removed from %s; the store did not have it", name, c.String("lockfile"))
		return nil
	}
	p.say("%s: removed from the store%s, %s", name, fromLock, gone)
	return nil
}
