package cmd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

func (p *program) gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "drop content that no pinned image needs, and pins that nobody uses",
		Description: "Drops what interrupted syncs and moved pins left behind. It is safe while sync and\n" +
			"serve run: what a running sync needs stays. rm frees what it drops by itself.\n\n" +
			"Pins stay, unless you ask for less. --unused-for drops those that no client has\n" +
			"asked for by name, nor anybody pinned, for that long; only serve --pull-through\n" +
			"records who asks. --max-size then drops more, the longest unused first, until the\n" +
			"rest is small enough. What is in a lock given with --keep-pinned-by stays in any\n" +
			"case. mirrorctl history shows what went, and why.\n\n" +
			"   mirrorctl gc\n" +
			"   mirrorctl gc --unused-for 90d --keep-pinned-by mirror.lock --dry-run\n" +
			"   mirrorctl gc --max-size 500GB --keep-pinned-by /srv/app/mirror.lock",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "unused-for", Usage: "also drop pins that nobody asked for in `TIME`, such as 90d, 12w or 36h"},
			&cli.StringFlag{Name: "max-size", Usage: "also drop the longest unused pins until the store has at most `SIZE`, such as 500GB"},
			&cli.StringSliceFlag{Name: "keep-pinned-by", Usage: "with these, keep what `LOCK` has; several times for several"},
			&cli.BoolFlag{Name: "dry-run", Usage: "with these, only say what would be dropped"},
			&cli.BoolFlag{Name: "orphans", Usage: "also drop files that the index does not know, as the loss of the index or of power leaves them"},
			&cli.DurationFlag{Name: "partials-older-than", Value: store.PartialAge, Usage: "also drop partial downloads that nobody has touched for `DURATION`"},
		},
		Action: p.gc,
	}
}

func (p *program) gc(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("gc takes no arguments; see mirrorctl gc --help")
	}
	keep, err := readRetention(c)
	if err != nil {
		return err
	}
	return p.withExistingStore(c, func(st *store.Store) error {
		if !keep.dry {
			if c.Bool("orphans") {
				if err := st.FindOrphans(c.Context); err != nil {
					return err
				}
			}
			freed, err := st.Collect(c.Context, c.Duration("partials-older-than"))
			if err != nil {
				return err
			}
			p.say("freed %s in %s", size(freed.Bytes), plural(freed.Blobs, "file", "files"))
		}
		return errors.Join(p.dropUnused(c, st, keep), p.dropLargest(c, st, keep))
	})
}

// retention is which pins gc drops.
type retention struct {
	unusedFor time.Duration   // 0 is none
	unused    string          // as it was typed
	maxSize   int64           // 0 is none
	kept      map[string]bool // names, by the locks
	dry       bool
}

func readRetention(c *cli.Context) (retention, error) {
	r := retention{unused: c.String("unused-for"), kept: map[string]bool{}, dry: c.Bool("dry-run")}
	var err error
	if r.unused != "" {
		if r.unusedFor, err = parseAge(r.unused); err != nil {
			return r, usageErrorf("--unused-for %w", err)
		}
	}
	if text := c.String("max-size"); text != "" {
		if r.maxSize, err = units.FromHumanSize(text); err != nil || r.maxSize <= 0 {
			return r, usageErrorf("--max-size %q: must be a size, such as 500GB", text)
		}
	}
	if r.unusedFor == 0 && r.maxSize == 0 {
		for _, flag := range []string{"keep-pinned-by", "dry-run"} {
			if c.IsSet(flag) {
				return r, usageErrorf("--%s goes with --unused-for or --max-size; without them gc drops no pins", flag)
			}
		}
	}
	for _, path := range c.StringSlice("keep-pinned-by") {
		lock, err := lockfile.Read(path) // one that is not there would keep nothing
		if err != nil {
			return r, err
		}
		for _, image := range lock.Images {
			name, err := parseName(image.Name)
			if err != nil {
				return r, fmt.Errorf("%s: %w", path, err)
			}
			repo, ref := store.Locate(name)
			r.kept[store.Pin{Repository: repo, Reference: ref}.Name()] = true
		}
	}
	return r, nil
}

// parseAge reads a duration that may also be in days and weeks.
func parseAge(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil || n == 0 {
				return 0, fmt.Errorf("%q: must be a time, such as 90d, 12w or 36h", s)
			}
			return time.Duration(n) * unit, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q: must be a time, such as 90d, 12w or 36h", s)
	}
	return d, nil
}

// dropUnused drops the pins that nobody has asked for in a while.
func (p *program) dropUnused(c *cli.Context, st *store.Store, r retention) error {
	if r.unusedFor == 0 {
		return nil
	}
	since, err := st.RecordingSince(c.Context)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case since.IsZero():
		return errors.New("--unused-for: nobody has recorded what is used in this store, so nothing was dropped; serve --pull-through does from its start on")
	case now.Sub(since) < r.unusedFor:
		p.say("what is used is recorded since %s only, so nothing is known to be unused for %s", since.Local().Format("2006-01-02 15:04"), r.unused)
		return nil
	}
	idle, _, err := r.candidates(c, st)
	if err != nil {
		return err
	}
	next := func(i store.Idle, _ store.Freed) bool { return now.Sub(i.Since) >= r.unusedFor }
	_, err = p.prune(c, st, r, idle, next, "not used for "+r.unused)
	return err
}

// dropLargest drops pins, the longest unused first, until the store is small
// enough.
func (p *program) dropLargest(c *cli.Context, st *store.Store, r retention) error {
	if r.maxSize == 0 {
		return nil
	}
	totals, err := st.Totals(c.Context)
	if err != nil {
		return err
	}
	if totals.Bytes <= r.maxSize {
		p.say("the store has %s, which is not more than %s", size(totals.Bytes), size(r.maxSize))
		return nil
	}
	idle, kept, err := r.candidates(c, st)
	if err != nil {
		return err
	}
	next := func(_ store.Idle, freed store.Freed) bool { return totals.Bytes-freed.Bytes > r.maxSize }
	freed, err := p.prune(c, st, r, idle, next, "store larger than "+size(r.maxSize))
	if err != nil {
		return err
	}
	if left := totals.Bytes - freed.Bytes; left > r.maxSize {
		return fmt.Errorf("the store still has %s, more than %s: %s kept by locks, the rest is held by a running sync or was asked for meanwhile",
			size(left), size(r.maxSize), plural(kept, "image is", "images are"))
	}
	return nil
}

// candidates are the pins that no lock keeps, the longest unused first, and how
// many are kept.
func (r retention) candidates(c *cli.Context, st *store.Store) (idle []store.Idle, kept int, err error) {
	all, err := st.Idle(c.Context)
	for _, i := range all {
		if r.kept[i.Name()] {
			kept++
		} else {
			idle = append(idle, i)
		}
	}
	return idle, kept, err
}

// prune drops pins and lists them.
func (p *program) prune(c *cli.Context, st *store.Store, r retention, idle []store.Idle, next func(store.Idle, store.Freed) bool, why string) (store.Freed, error) {
	ctx := store.WithNote(c.Context, "gc: "+why)
	removed, freed, err := st.Prune(ctx, idle, next, r.dry)
	t := newTable(p.stdout, "DROPPED", "DIGEST", "SIZE", "UNUSED SINCE")
	for _, i := range removed {
		t.row(i.Name(), short(i.Digest), size(i.Size), i.Since.Local().Format("2006-01-02 15:04"))
	}
	done := "dropped %s, %s freed in %s: %s"
	if r.dry {
		done = "would drop %s and free %s in %s: %s"
	}
	p.say(done, plural(len(removed), "image", "images"), size(freed.Bytes), plural(freed.Blobs, "file", "files"), why)
	if len(removed) == 0 {
		return freed, err
	}
	return freed, errors.Join(err, t.flush())
}
