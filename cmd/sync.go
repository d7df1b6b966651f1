package cmd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

func (p *program) syncCommand() *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "pull and lock the images that builds need",
		ArgsUsage: "[PATH...]",
		Description: "Finds the images in Dockerfiles, Compose and Bake files (files, or folders to search;\n" +
			"default: the current folder), pulls what the store lacks for all platforms, and writes mirror.lock.\n" +
			"What is locked and stored causes no request.\n\n" +
			"   mirrorctl sync                       # everything below the current folder\n" +
			"   mirrorctl sync --locked              # in CI: exactly what is locked, or fail\n" +
			"   mirrorctl sync --update=debian:12    # move this pin to what the tag means now",
		Flags: append(append(discoverFlags(), pullFlags()...),
			&cli.BoolFlag{Name: "locked", Usage: "fail if mirror.lock would have to change"},
			&cli.GenericFlag{Name: "update", Value: &updateFlag{}, Usage: "move pins to what their tags mean now: all of them, or `[=IMAGE]`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done; no request, no change"},
		),
		Action: p.sync,
	}
}

// pullFlags are the flags of the commands that pull.
func pullFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "lock images in `FILE`"},
		&cli.IntFlag{Name: "jobs", Usage: "transfer `N` blobs at a time", DefaultText: "6", Action: checkJobs},
		&cli.IntFlag{Name: "connections", Usage: "over at most `N` connections to one registry where one per blob is slow", DefaultText: "16", Action: checkConnections},
		&cli.BoolFlag{Name: "wait", Usage: "wait when a registry's rate limit is used up, instead of giving up"},
		&cli.BoolFlag{Name: "json", Usage: "print one JSON object per image: name, outcome, digest, size, transferred, error"},
	}
}

func checkJobs(_ *cli.Context, n int) error {
	if n < 1 || n > maxJobs {
		return usageErrorf("--jobs %d: must be from 1 to %d", n, maxJobs)
	}
	return nil
}

func checkConnections(_ *cli.Context, n int) error {
	if n < 1 || n > maxConnections {
		return usageErrorf("--connections %d: must be from 1 to %d", n, maxConnections)
	}
	return nil
}

// updateFlag is --update, --update=IMAGE, or several of these.
type updateFlag struct {
	all    bool
	images []string
}

func (f *updateFlag) IsBoolFlag() bool { return true }
func (f *updateFlag) String() string   { return "" }
func (f *updateFlag) Set(s string) error {
	switch s {
	case "true":
		f.all = true
	case "false":
		f.all = false
	default:
		f.images = append(f.images, s)
	}
	return nil
}

func (p *program) sync(c *cli.Context) error {
	if c.Bool("locked") && c.IsSet("update") {
		return usageErrorf("--locked and --update contradict each other")
	}
	if c.Generic("update").(*updateFlag).all {
		for _, arg := range c.Args().Slice() { // sync --update debian:12
			if _, err := os.Stat(arg); errors.Is(err, fs.ErrNotExist) {
				return usageErrorf("%s: no such file or folder; to move the pin of an image, write --update=%s", arg, arg)
			}
		}
	}
	if slices.Contains(c.Args().Slice(), "-") {
		return usageErrorf("sync needs files, because the lock names them; mirrorctl find - lists what standard input needs")
	}
	open := p.openOrRepairLock
	if c.Bool("locked") || c.Bool("dry-run") {
		open = openLock
	}
	lock, err := open(c.String("lockfile"))
	if err != nil {
		return err
	}
	s := &syncing{lock: lock, locked: c.Bool("locked"), triggers: p.storedTriggers(lock.file), said: map[string]bool{}}
	found, known, err := p.discoverStored(c, c.Args().Slice(), s.triggers)
	if err != nil {
		return err
	}
	s.known = known
	if _, err := s.take(p, found, c.Generic("update").(*updateFlag)); err != nil {
		return err
	}
	if c.Bool("dry-run") {
		s.failUnread(p, false)
		s.keepUnknown()
		return p.dryRun(c, lock, s.saw, s.all, s.found)
	}
	c.Context = noteFor(c, lock.path)
	return p.withStoreAnew(c, func(st *store.Store) error {
		if err := p.pullRounds(c, st, s); err != nil {
			return err
		}
		s.failUnread(p, true)
		s.keepUnknown()
		for _, j := range s.all {
			if j.err == nil {
				s.saw.Images[j.name.String()] = j.entry
			}
		}
		if err := s.lookUpOthers(c.Context, st); err != nil {
			return err
		}
		changed := false
		if c.Bool("locked") {
			// The digests agree; what the lock says about them may not.
			if diff := lockfile.Diff(lock.file, s.reconcile(lock.file)); len(diff) > 0 {
				return lock.disagrees(diff)
			}
		} else if changed, err = updateLock(lock.path, s.reconcile); err != nil {
			return err
		} else if changed {
			p.sayPutRight(lock, s.reconcile(lock.file))
		}
		if err := p.printJobs(c, s.all); err != nil {
			return err
		}
		if len(s.found.files) > 0 {
			p.say("%s%s", summary(s.all), lock.outcome(changed))
		}
		return result(s.all, s.found)
	})
}

// pull works on the images and shows how it goes.
func (p *program) pull(c *cli.Context, st *store.Store, lockPath string, all []*job) error {
	opts, err := p.upstreamOptions()
	if err != nil {
		return err
	}
	opts.Jobs, opts.Wait = cmp.Or(c.Int("jobs"), opts.Jobs), c.Bool("wait")
	opts.Connections = cmp.Or(c.Int("connections"), opts.Connections)
	client := upstream.New(st, opts)
	defer p.closeUpstream(client)
	r := &jobs{store: st, upstream: client, lockPath: lockPath}
	forecast := r.forecast(c.Context, all)
	if !c.Bool("json") {
		for _, line := range forecast {
			p.say("%s", line)
		}
	}
	r.display = p.newDisplay(c.Bool("json"))
	r.run(c.Context, all)
	r.display.close()
	if !c.Bool("json") {
		for _, line := range r.budgets(all) {
			p.say("%s", line)
		}
	}
	return c.Context.Err()
}

// printJobs is --json. It comes after the lock is written: whoever reads it may
// go away at any time.
func (p *program) printJobs(c *cli.Context, all []*job) error {
	if !c.Bool("json") {
		return nil
	}
	enc := json.NewEncoder(p.stdout)
	enc.SetEscapeHTML(false)
	for _, j := range all {
		if err := enc.Encode(j); err != nil {
			return err
		}
	}
	return nil
}

// syncJobs makes one job per image, in the order of the files, and one for each
// image that was locked by hand: a new machine needs those too. Images that have
// one before get no other.
func syncJobs(found discovery, lock lockfile.File, update *updateFlag, before []*job) ([]*job, error) {
	var all []*job
	byName := map[string]*job{}
	for _, j := range before {
		byName[j.name.String()] = j
	}
	for _, u := range found.uses {
		if byName[u.Name] == nil {
			entry, _ := lock.Image(u.Name)
			byName[u.Name] = &job{name: u.named, where: u.where(), locked: entry, update: update.all}
			all = append(all, byName[u.Name])
		}
		byName[u.Name].byHand = byName[u.Name].byHand || u.File == ""
	}
	for _, entry := range lock.Images {
		if len(entry.UsedBy) > 0 || byName[entry.Name] != nil {
			continue
		}
		name, err := parseName(entry.Name)
		if err != nil {
			return nil, err
		}
		byName[entry.Name] = &job{name: name, locked: entry, update: update.all}
		all = append(all, byName[entry.Name])
	}
	for _, image := range update.images {
		name, err := parseName(image)
		if err != nil {
			return nil, err
		}
		j := byName[name.String()]
		if j == nil {
			return nil, usageErrorf("--update=%s: none of the files needs %s, and it was not added by hand", image, name)
		}
		j.update, j.named = true, true
	}
	return all, nil
}

// openedLock is mirror.lock as it was found.
type openedLock struct {
	path   string
	file   lockfile.File
	exists bool
}

func openLock(path string) (openedLock, error) {
	file, err := lockfile.Read(path)
	var inPath *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Better now than after the downloads.
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return openedLock{}, fmt.Errorf("%s: folder %s: %w", path, filepath.Dir(path), cause(err))
		}
	case errors.As(err, &inPath):
		return openedLock{}, fmt.Errorf("%s: cannot be read: %w", path, inPath.Err)
	case err != nil:
		return openedLock{}, err
	}
	return openedLock{path: path, file: file, exists: err == nil}, nil
}

// outcome ends a summary.
func (l openedLock) outcome(changed bool) string {
	switch {
	case changed:
		return "; " + l.path + " written"
	case l.exists:
		return "; " + l.path + " is up to date"
	}
	return ""
}

// relative is how the lock calls a file: relative to its own folder.
func (l openedLock) relative(path string) (string, error) {
	folder, err := filepath.Abs(filepath.Dir(l.path))
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(folder, abs)
	return filepath.ToSlash(rel), err
}

// saw tells the lock which files need which images. Standard input is no file
// that anybody could sync again, so it is left out.
func (l openedLock) saw(found discovery) (lockfile.Sync, error) {
	s := lockfile.Sync{Files: map[string][]string{}, Images: map[string]lockfile.Image{}}
	relative := map[string]string{}
	for _, file := range found.files {
		if file == "-" {
			continue
		}
		rel, err := l.relative(file)
		if err == nil {
			err = checkFileName(rel) // the way from the lock may have other folders
		}
		if err != nil {
			return s, err
		}
		relative[filepath.ToSlash(file)] = rel
		s.Files[rel] = nil
	}
	for _, u := range found.uses {
		if rel, ok := relative[u.root()]; ok {
			s.Files[rel] = append(s.Files[rel], u.Name)
		}
	}
	var folders []string
	for _, folder := range found.folders {
		rel, err := l.relative(folder)
		if err != nil {
			return s, err
		}
		folders = append(folders, rel)
	}
	s.Deleted = l.file.Deleted(folders, func(file string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(l.path), filepath.FromSlash(file)))
		return !errors.Is(err, fs.ErrNotExist)
	})
	return s, nil
}

// difference is how the lock would change if every image that is locked stayed
// as it is. Images that are not locked have no digest in it.
func (l openedLock) difference(saw lockfile.Sync, all []*job) lockfile.Difference {
	want := saw
	want.Images = map[string]lockfile.Image{}
	for _, j := range all {
		want.Images[j.name.String()] = cmpEntry(j)
	}
	return lockfile.Diff(l.file, lockfile.Reconcile(addByHand(l.file, all), want))
}

// addByHand adds to a lock the images that were asked for and that no file
// names, as the add command does: no sync drops them.
func addByHand(file lockfile.File, all []*job) lockfile.File {
	for _, j := range all {
		if j.byHand && j.err == nil {
			file = file.With(cmpEntry(j))
		}
	}
	return file
}

func cmpEntry(j *job) lockfile.Image {
	if j.locked.Digest != "" {
		return j.locked
	}
	return lockfile.Image{Name: j.name.String()}
}

func (l openedLock) disagrees(diff lockfile.Difference) error {
	return withCode(exitConflict, "%s would change:\n%s\nrun mirrorctl sync and commit %s",
		l.path, indent(diff.String()), filepath.Base(l.path))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
