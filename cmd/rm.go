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
		Flags:        []cli.Flag{&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "also drop the images from `FILE`"}},
		BashComplete: p.completeImages,
		Action:       p.rm,
	}
}

func (p *program) rm(c *cli.Context) error {
	names, lock, err := imagesAndLock(c)
	if err != nil {
		return err
	}
	c.Context = store.WithNote(c.Context, "rm")
	return p.withStore(c, func(st *store.Store) error {
		var failures []error
		var unlock []string
		for _, name := range names {
			dropped, err := p.removeOne(c, st, canonical(name), lock.file)
			if err != nil {
				failures = append(failures, err)
			}
			unlock = append(unlock, dropped...)
		}
		if len(unlock) > 0 {
			_, err := updateLock(lock.path, func(now lockfile.File) lockfile.File { return now.Without(unlock...) })
			if err != nil {
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

// removeOne drops an image from the store and returns the names under which the
// lock must forget it.
func (p *program) removeOne(c *cli.Context, st *store.Store, name reference.Named, lock lockfile.File) (unlock []string, err error) {
	repo, ref := store.Locate(name)
	locked, err := lockedAs(lock, repo, ref)
	if err != nil {
		return nil, err
	}
	pin, freed, err := st.Remove(c.Context, repo, ref)
	missing := errors.Is(err, store.ErrNotFound)
	switch {
	case missing && len(locked) == 0:
		return nil, &imageError{name: name.String(), err: errNotPinned, hint: p.suggestPin(c, st, name)}
	case err != nil && !missing:
		return nil, storeError(fmt.Errorf("%s: %w", name, err))
	}
	gone := fmt.Sprintf("%s freed in %s", size(freed.Bytes), plural(freed.Blobs, "file", "files"))
	for _, entry := range locked {
		if !missing && entry.Digest != pin.Digest {
			// A conflict, and this the way out in which the store takes the lock's.
			p.say("%s: removed from the store, %s; %s still locks %s, which the next sync fetches",
				name, gone, c.String("lockfile"), short(entry.Digest))
			return nil, nil
		}
		unlock = append(unlock, entry.Name)
	}
	fromLock := ""
	if len(unlock) > 0 {
		fromLock = " and from " + c.String("lockfile")
	}
	if missing {
		p.say("%s: removed from %s; the store did not have it", name, c.String("lockfile"))
		return unlock, nil
	}
	p.say("%s: removed from the store%s, %s", name, fromLock, gone)
	return unlock, nil
}

// lockedAs returns the lock's entries for what the store calls repo and ref. The
// lock may have a tag beside a digest, which the store has not.
func lockedAs(lock lockfile.File, repo store.Repository, ref string) ([]lockfile.Image, error) {
	var entries []lockfile.Image
	for _, image := range lock.Images {
		name, err := parseName(image.Name)
		if err != nil {
			return nil, err
		}
		if r, reference := store.Locate(name); r == repo && reference == ref {
			entries = append(entries, image)
		}
	}
	return entries, nil
}
