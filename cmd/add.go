package cmd

import (
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

func (p *program) addCommand() *cli.Command {
	return &cli.Command{
		Name:      "add",
		Usage:     "pull and lock images that no file names",
		ArgsUsage: "IMAGE...",
		Description: "Pins images as sync does and locks them without a file, so that no sync drops them.\n\n" +
			"   mirrorctl add postgres:16 ghcr.io/astral-sh/uv:0.5",
		Flags: append(pullFlags(),
			&cli.BoolFlag{Name: "update", Usage: "resolve the tags again and move their pins"}),
		Action: p.add,
	}
}

func (p *program) add(c *cli.Context) error {
	names, lock, err := imagesAndLock(c)
	if err != nil {
		return err
	}
	var all []*job
	for _, name := range names {
		entry, _ := lock.file.Image(canonical(name).String())
		all = append(all, &job{name: canonical(name), locked: entry, update: c.Bool("update")})
	}
	return p.withStoreAnew(c, func(st *store.Store) error {
		c.Context = noteFor(c, lock.path)
		if err := p.pull(c, st, lock.path, all); err != nil {
			return err
		}
		changed, err := updateLock(lock.path, func(now lockfile.File) lockfile.File {
			for _, j := range all {
				if j.err == nil {
					now = now.With(j.entry)
				}
			}
			return now
		})
		if err != nil {
			return err
		}
		if err := p.printJobs(c, all); err != nil {
			return err
		}
		p.say("%s%s", summary(all), lock.outcome(changed))
		return result(all, discovery{})
	})
}
