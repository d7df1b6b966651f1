package cmd

import (
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

// maxRounds bounds how often a sync looks again: the images that a trigger needs
// may have triggers too.
const maxRounds = 8

// syncing is a sync on its way: what was found so far, and what is done about it.
type syncing struct {
	lock     openedLock
	triggers *storedTriggers
	known    *triggers // as found saw them
	found    discovery
	saw      lockfile.Sync
	all      []*job
	others   []lockfile.Image // what the store knows of entries that no job is about
	said     map[string]bool
	locked   bool
}

// take takes over what was found, and says what is new about files that
// failed; it returns the jobs that are new.
func (s *syncing) take(p *program, found discovery, update *updateFlag) ([]*job, error) {
	fresh, err := syncJobs(found, s.lock.file, update, s.all)
	if err != nil {
		return nil, err
	}
	for _, warning := range found.warnings {
		if !s.said[warning] {
			s.said[warning] = true
			p.say("warning: %s", warning)
		}
	}
	for _, err := range found.failed {
		if !s.said[err.Error()] {
			s.said[err.Error()] = true
			p.printError(err)
		}
	}
	if s.saw, err = s.lock.saw(found); err != nil {
		return nil, err
	}
	s.found, s.all = found, append(s.all, fresh...)
	if s.locked {
		err = s.checkLocked()
	}
	return fresh, err
}

// pullRounds pulls, and looks again as long as images turn out to have triggers
// that were not known: then there is more to pull.
func (p *program) pullRounds(c *cli.Context, st *store.Store, s *syncing) error {
	fresh := s.all
	for round := 1; ; round++ {
		if err := p.pull(c, st, s.lock.path, fresh); err != nil {
			return err
		}
		done := map[string]digest.Digest{}
		for _, j := range s.all {
			if j.err == nil {
				done[j.name.String()] = j.entry.Digest
			}
		}
		next := s.triggers.from(c.Context, st, done)
		differ := s.known.differ(next)
		s.known = next
		if !differ {
			return nil
		}
		if round == maxRounds {
			return withCode(exitFailure, "ONBUILD instructions of images lead to further images more than %d times; run mirrorctl find --remote to see which", maxRounds)
		}
		found, err := p.discover(c, c.Args().Slice(), next.of)
		if err != nil {
			return err
		}
		if fresh, err = s.take(p, found, &updateFlag{all: c.Generic("update").(*updateFlag).all}); err != nil {
			return err
		}
	}
}

// failUnread makes the images fail whose triggers cannot be read: what they need
// is not known then. Before anything is pulled, those that are not here yet have
// not failed.
func (s *syncing) failUnread(p *program, pulled bool) {
	for name, err := range s.known.unread() {
		if !pulled && errors.Is(err, store.ErrNotFound) {
			continue
		}
		for _, j := range s.all {
			if j.name.String() == name && j.err == nil {
				j.outcome, j.err = outcomeFailed, unreadError(name, j.where, err)
				p.printError(j.err)
			}
		}
	}
}

// keepUnknown keeps the lock's entries of files with an image whose triggers are
// not known, because it failed or is not here: they may be why the entries are
// there.
func (s *syncing) keepUnknown() {
	unread := s.known.unread()
	unsure := map[string]bool{}
	for _, j := range s.all {
		unsure[j.name.String()] = j.err != nil || unread[j.name.String()] != nil
	}
	for file, names := range s.saw.Files {
		if !slices.ContainsFunc(names, func(name string) bool { return unsure[name] }) {
			continue
		}
		for _, entry := range s.lock.file.Images {
			if slices.Contains(entry.UsedBy, file) && !slices.Contains(names, entry.Name) {
				s.saw.Files[file] = append(s.saw.Files[file], entry.Name)
			}
		}
	}
}

// checkLocked is --locked: any change to the lock is an error, before any
// download. Only entries that no file seems to need have to wait while there are
// images whose triggers, which may need them, are not known.
func (s *syncing) checkLocked() error {
	diff := s.lock.difference(s.saw, s.all)
	if len(diff) == 0 || s.known.unknown() && !slices.ContainsFunc(diff, s.certain) {
		return nil
	}
	return s.lock.disagrees(diff)
}

// certain reports whether a change does not depend on what triggers need.
func (s *syncing) certain(change lockfile.Change) bool {
	if change.Kind != lockfile.Removed && change.Kind != lockfile.Edited || len(change.Gained)+len(change.Fields) > 0 {
		return true
	}
	return slices.ContainsFunc(change.Lost, func(file string) bool {
		_, synced := s.saw.Files[file]
		return !synced
	})
}
