package cmd

import (
	"context"
	"errors"
	"strings"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

// openOrRepairLock is openLock for sync: where git has left a merge conflict it
// joins both sides, keeps what they agree on, and lets the sync decide the rest
// as if it had not been locked.
func (p *program) openOrRepairLock(path string) (openedLock, error) {
	lock, err := openLock(path)
	if !errors.Is(err, lockfile.ErrConflictMarkers) {
		return lock, err
	}
	file, disputed, err := lockfile.ReadMerged(path)
	if err != nil {
		return openedLock{}, err
	}
	p.say("%s: joined the two sides of a merge", path)
	for _, name := range disputed {
		p.say("%s: the sides lock different digests, so it is locked anew", name)
	}
	return openedLock{path: path, file: file, exists: true}, nil
}

// lookUpOthers notes what the store knows of entries that this sync is not about:
// git merges by lines, and may leave an entry with the platforms or the size of
// another. What is not pinned here as it is locked waits for the sync that
// fetches it.
func (s *syncing) lookUpOthers(ctx context.Context, st *store.Store) error {
	for _, entry := range s.lock.file.Images {
		if _, done := s.saw.Images[entry.Name]; done {
			continue
		}
		name, err := parseName(entry.Name)
		if err != nil {
			return err
		}
		repo, ref := store.Locate(name)
		pin, err := st.Pin(ctx, repo, ref)
		switch {
		case err == nil:
			s.others = append(s.others, lockEntry(name, pin))
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	return nil
}

// reconcile is the lock after this sync.
func (s *syncing) reconcile(now lockfile.File) lockfile.File {
	return lockfile.Reconcile(addByHand(now, s.all), s.saw).PutRight(s.others...)
}

// sayPutRight names the entries that said something else than their digest means.
func (p *program) sayPutRight(lock openedLock, next lockfile.File) {
	for _, change := range lockfile.Diff(lock.file, next) {
		if change.Kind == lockfile.Edited && len(change.Fields) > 0 {
			p.say("%s: %s had another %s than its digest has; put right", change.Name, lock.path, strings.Join(change.Fields, ", "))
		}
	}
}
