package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

func (p *program) outdatedCommand() *cli.Command {
	return &cli.Command{
		Name:      "outdated",
		Usage:     "show which locked images have moved or vanished upstream",
		ArgsUsage: "[IMAGE...]",
		Description: "Asks the registries what the images in mirror.lock mean now (without a lock: all\n" +
			"pinned images). HEAD requests only, which Docker Hub does not count. An image can be\n\n" +
			"   current        the tag still means the locked digest\n" +
			"   moved          the tag means another digest; the locked one can still be had\n" +
			"   vanished       the tag is gone; the locked digest can still be had\n" +
			"   only copy left the locked digest is gone, so keep the store\n\n" +
			"mirrorctl sync --update=IMAGE takes what a tag means now.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "look at the images in `FILE`"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object per image, current ones too: name, state, locked, now, error"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 1 if an image is not current"},
		},
		BashComplete: p.completeImages,
		Action:       p.outdated,
	}
}

// standing is one line of outdated.
type standing struct {
	Name   string        `json:"name"`
	State  string        `json:"state"`
	Locked digest.Digest `json:"locked"`
	Now    digest.Digest `json:"now,omitempty"`
	Error  string        `json:"error,omitempty"`

	err error
}

const (
	stateCurrent  = "current"
	stateMoved    = "moved"
	stateVanished = "vanished"
	stateOnlyCopy = "only copy left"
	stateUnknown  = "unknown"
)

func (p *program) outdated(c *cli.Context) error {
	wanted, err := parseNames(c.Args().Slice())
	if err != nil {
		return err
	}
	images, err := p.lockedOrPinned(c, wanted)
	if err != nil {
		return err
	}
	client, err := p.newUpstream(nil, 0) // which only asks
	if err != nil {
		return err
	}
	defer p.closeUpstream(client)
	var wg sync.WaitGroup
	for i := range images {
		wg.Go(func() { images[i].ask(c, client) }) // the client limits the requests
	}
	wg.Wait()
	if err := c.Context.Err(); err != nil {
		return err
	}
	p.recordStandings(c, images)
	return p.printOutdated(c, images)
}

// recordStandings tells the store, if there is one, what was said of the digests
// that it has pinned, for the page of serve. That it cannot is no failure: the
// command is for whoever reads its output.
func (p *program) recordStandings(c *cli.Context, images []standing) {
	dir, err := p.storeDir(c)
	if err != nil {
		return
	}
	st, err := store.OpenExisting(c.Context, dir)
	if err != nil {
		p.log.Info("not recorded", "error", err)
		return
	}
	var said []store.Standing
	for _, image := range images {
		name, err := parseName(image.Name)
		if err != nil || image.err != nil {
			continue
		}
		repo, ref := store.Locate(name)
		if pin, err := st.Pin(c.Context, repo, ref); err != nil || pin.Digest != image.Locked {
			continue
		}
		said = append(said, store.Standing{Repository: repo, Reference: ref, At: time.Now(), State: image.State, Now: image.Now})
	}
	if err := errors.Join(st.RecordStandings(c.Context, said), st.Close()); err != nil {
		p.log.Info("not recorded", "error", err)
	}
}

// lockedOrPinned lists what to ask for: the lock's images, or without a lock
// the store's pins.
func (p *program) lockedOrPinned(c *cli.Context, wanted []reference.Named) ([]standing, error) {
	lock, err := openLock(c.String("lockfile"))
	if err != nil {
		return nil, err
	}
	var all []standing
	for _, image := range lock.file.Images {
		all = append(all, standing{Name: image.Name, Locked: image.Digest})
	}
	if lock.exists && len(all) == 0 {
		p.say("%s has no images", lock.path)
	}
	if !lock.exists {
		err := p.withStoreReadOnly(c, func(st *store.Store) error {
			pins, err := st.Pins(c.Context)
			for _, pin := range pins {
				all = append(all, standing{Name: pin.Name(), Locked: pin.Digest})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(wanted) == 0 {
		return all, nil
	}
	byName := map[string]standing{}
	var names []string
	for _, s := range all {
		byName[s.Name] = s
		names = append(names, s.Name)
	}
	var some []standing
	for _, name := range wanted {
		s, ok := byName[canonical(name).String()]
		if !ok {
			hint := "mirrorctl ls shows what is pinned"
			if near := nearest(name.String(), names); near != "" {
				hint = "did you mean " + familiar(near) + "?"
			}
			return nil, &imageError{name: name.String(), err: errors.New("neither locked nor pinned"), hint: hint}
		}
		some = append(some, s)
	}
	return some, nil
}

func (s *standing) ask(c *cli.Context, client *upstream.Client) {
	name, err := parseName(s.Name)
	if err != nil {
		s.err = err
		return
	}
	now, err := client.Check(c.Context, name, s.Locked)
	s.Now = now.Now
	switch {
	case err != nil:
		s.State, s.err = stateUnknown, &imageError{name: s.Name, err: err}
		s.Error = s.err.Error()
	case now.Now == s.Locked:
		s.State = stateCurrent
	case !now.Kept:
		s.State = stateOnlyCopy
	case now.Now == "":
		s.State = stateVanished
	default:
		s.State = stateMoved
	}
}

func (p *program) printOutdated(c *cli.Context, images []standing) error {
	t := newTable(p.stdout, "NAME", "STATE", "LOCKED", "NOW")
	enc := json.NewEncoder(p.stdout)
	enc.SetEscapeHTML(false)
	var failures []error
	outdated := 0
	for _, s := range images {
		if s.err != nil {
			failures = append(failures, s.err)
		} else if s.State != stateCurrent {
			outdated++
		}
		if c.Bool("json") {
			if err := enc.Encode(s); err != nil {
				return err
			}
			continue
		}
		if s.err == nil && s.State != stateCurrent {
			now := "-"
			if s.Now != "" {
				now = short(s.Now)
			}
			t.row(s.Name, s.State, short(s.Locked), now)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if outdated == 0 && len(failures) == 0 && len(images) > 0 {
		p.say("%s, all current", plural(len(images), "image", "images"))
	}
	switch {
	case len(failures) > 0:
		return &codedError{code: exitSome, err: errors.Join(failures...)}
	case outdated > 0 && c.Bool("exit-code"):
		return withCode(exitFailure, "%s not current", fmt.Sprintf("%d of %s", outdated, plural(len(images), "image", "images")))
	}
	return nil
}
