package cmd

import (
	"errors"

	"mirrorctl/lockfile"
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
