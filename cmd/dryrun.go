package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

// dryRun says what a sync would do.
func (p *program) dryRun(c *cli.Context, lock openedLock, saw lockfile.Sync, all []*job, found discovery) error {
	dir, err := p.storeDir(c)
	if err != nil {
		return err
	}
	st, err := store.OpenReadOnly(c.Context, dir)
	if err != nil && !errors.Is(err, store.ErrNoStore) {
		return storeError(err)
	}
	if st != nil {
		defer st.Close()
	}
	t := newTable(p.stdout)
	for _, j := range all {
		action, err := dryPlan(c.Context, st, j)
		if err != nil {
			return err
		}
		t.row(j.name.String(), action)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if diff := lock.difference(saw, all); len(diff) > 0 {
		p.say("%s would change:\n%s", lock.path, indent(diff.String()))
	}
	return result(all, found)
}

func dryPlan(ctx context.Context, st *store.Store, j *job) (string, error) {
	action := lockfile.Decide(j.locked.Digest, "", false, j.update)
	var pin store.Pin
	if st != nil {
		var err error
		if action, pin, err = (&jobs{store: st}).plan(ctx, j); err != nil {
			return "", err
		}
	}
	if st != nil {
		for _, d := range []digest.Digest{j.locked.Digest, pin.Digest} {
			lost, err := st.Lost(ctx, d)
			if err != nil {
				return "", err
			}
			if len(lost) > 0 && action != lockfile.Conflict && !j.update {
				return fmt.Sprintf("fetch %s that the store has lost of %s", plural(len(lost), "file", "files"), short(d)), nil
			}
		}
	}
	switch action {
	case lockfile.Nothing:
		return "nothing to do", nil
	case lockfile.PinLocked:
		return "pin the locked digest " + short(j.locked.Digest) + ", which is stored", nil
	case lockfile.FetchLocked:
		return "fetch the locked digest " + short(j.locked.Digest), nil
	case lockfile.FetchPinned:
		return "fetch the rest of the pinned digest " + short(pin.Digest) + ", and lock it", nil
	case lockfile.LockPinned:
		return "lock the pinned digest " + short(pin.Digest), nil
	case lockfile.Conflict:
		j.outcome = outcomeConflict
		return fmt.Sprintf("conflict: locked %s, pinned %s", short(j.locked.Digest), short(pin.Digest)), nil
	}
	if now := cmp.Or(pin.Digest, j.locked.Digest); now != "" {
		return "resolve upstream again, now " + short(now), nil
	}
	return "resolve upstream, fetch and pin", nil
}
