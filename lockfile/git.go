package lockfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// gitSides returns the versions of a lock whose merge git could not finish, from
// git's index, which has them until the merge is committed, also when the file
// was marked as resolved. there is false where it has not both sides: the file is
// in no repository, or merged, or there is no git. base is empty if the lock was
// new on both sides.
func gitSides(path string) (base, ours, theirs File, there bool, err error) {
	listed, err := git(path, "ls-files", "-z", "--unmerged", "--resolve-undo", "--", filepath.Base(path))
	if err != nil {
		return File{}, File{}, File{}, false, nil
	}
	objects := map[string]string{} // by stage: 1 is the base, 2 and 3 are the sides
	for entry := range strings.SplitSeq(string(listed), "\x00") {
		meta, _, _ := strings.Cut(entry, "\t")
		if fields := strings.Fields(meta); len(fields) == 3 && objects[fields[2]] == "" { // mode, object, stage
			objects[fields[2]] = fields[1]
		}
	}
	if objects["2"] == "" || objects["3"] == "" {
		return File{}, File{}, File{}, false, nil
	}
	for _, version := range []struct {
		stage, name string
		lock        *File
	}{{"1", "base", &base}, {"2", "ours", &ours}, {"3", "theirs", &theirs}} {
		if objects[version.stage] == "" {
			continue
		}
		data, err := git(path, "cat-file", "blob", objects[version.stage])
		if err != nil {
			return File{}, File{}, File{}, true, fmt.Errorf("%s (%s): git cat-file blob %s: %w", path, version.name, objects[version.stage], err)
		}
		if *version.lock, err = Decode(path+" ("+version.name+")", data); err != nil && len(data) > 0 {
			return File{}, File{}, File{}, true, err
		}
	}
	return base, ours, theirs, true, nil
}

// git runs a git command that only reads, beside a file. The two that are used
// run no program that a repository's configuration may name, but for the one that
// is switched off.
func git(path string, args ...string) ([]byte, error) {
	cmd := exec.Command("git", append([]string{"--literal-pathspecs", "-c", "core.fsmonitor=false"}, args...)...)
	cmd.Dir = filepath.Dir(path)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1")
	var out limitedBuffer
	cmd.Stdout = &out
	err := cmd.Run()
	return out.Bytes(), err
}

// limitedBuffer takes no more than a lock may have.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > MaxSize+1 {
		return 0, errors.New("more than a lock may have")
	}
	return b.Buffer.Write(p)
}
