package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Update reads the lock at path, which need not be there, and writes what change
// makes of it. Of several processes that do so one waits for the other, so that
// no entry is lost; change must not take long. A lock that is not there is not
// created for nothing. changed tells whether the file is another now.
//
// A lock in which git left a conflict is joined by [Merge] first.
func Update(path string, change func(File) File) (changed bool, err error) {
	target, err := followLinks(path)
	if err != nil {
		return false, fmt.Errorf("write lock: %w", err)
	}
	release, alone, err := exclusive(filepath.Dir(target))
	if err != nil {
		return false, fmt.Errorf("write lock: %w", err)
	}
	defer release()
	if alone {
		if err := tidyUp(target); err != nil {
			return false, fmt.Errorf("write lock: %w", err)
		}
	}
	now, _, err := ReadMerged(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	next := change(now)
	if err != nil && len(next.Images) == 0 {
		return false, nil
	}
	return Write(path, next)
}

// ReadMerged is Read, but joins the two sides of a lock in which git left a
// conflict, by [Merge]; disputed are then the names that both lock differently.
// The sides are those that git's index has as long as the conflict is not
// resolved, or else what the text tells of them.
func ReadMerged(path string) (file File, disputed []string, err error) {
	file, err = Read(path)
	if !errors.Is(err, ErrConflictMarkers) {
		return file, nil, err
	}
	target, err := followLinks(path)
	if err != nil {
		return File{}, nil, fmt.Errorf("read lock: %w", err)
	}
	base, ours, theirs, there, err := gitSides(target)
	if err != nil {
		return File{}, nil, err
	}
	if !there {
		data, err := os.ReadFile(target)
		if err != nil {
			return File{}, nil, fmt.Errorf("read lock: %w", err)
		}
		if ours, theirs, err = DecodeConflicted(path, data); err != nil {
			return File{}, nil, err
		}
	}
	file, disputed = Merge(base, ours, theirs)
	return file, disputed, nil
}
