package lockfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Read reads the lock at path. The error of a lock that is not there satisfies
// errors.Is(err, fs.ErrNotExist).
func Read(path string) (File, error) {
	file, err := os.Open(path)
	if err != nil {
		return File{}, fmt.Errorf("read lock: %w", err)
	}
	defer file.Close() // only read, so nothing can be lost
	data, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return File{}, fmt.Errorf("read lock: %w", err)
	}
	return Decode(path, data)
}

// Write makes the lock at path say f, and tells whether it had to change the
// file. A reader, and a machine that loses its power, sees the old lock or the
// new one, never a part. Of two writers at the same time the later one wins.
//
// A file that says the same bytes is not touched, also when it only differs by
// CRLF line ends, which git makes on some checkouts. The permission bits of the
// file are kept, a new one gets 0644 less the umask, and a lock that is a
// symbolic link stays one: its target is written.
func Write(path string, f File) (changed bool, err error) {
	data, err := Encode(f)
	if err != nil {
		return false, err
	}
	target, err := followLinks(path)
	if err != nil {
		return false, fmt.Errorf("write lock: %w", err)
	}
	before, err := os.ReadFile(target)
	if err == nil && bytes.Equal(bytes.ReplaceAll(before, []byte("\r\n"), []byte("\n")), data) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("write lock: %w", err)
	}
	if err := replace(target, data); err != nil {
		return false, fmt.Errorf("write lock: %w", err)
	}
	return true, nil
}

// followLinks returns the file that a path leads to, which need not exist.
func followLinks(path string) (string, error) {
	const maxLinks = 40 // as Linux has it
	for range maxLinks {
		target, err := filepath.EvalSymlinks(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return target, err
		}
		link, err := os.Readlink(path)
		if err != nil { // not a link: a new file
			return path, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// replace puts data at path by way of a temporary file beside it.
func replace(path string, data []byte) (err error) {
	folder := filepath.Dir(path)
	temp, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name()) // the first error is the one to tell
		}
	}()
	if info, statErr := os.Stat(path); statErr == nil {
		if err := temp.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := temp.Write(data); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncFolder(folder)
}

// createBeside is os.CreateTemp with the permissions of an ordinary new file.
func createBeside(path string) (*os.File, error) {
	for {
		name := filepath.Join(filepath.Dir(path), tempPrefix(path)+strconv.FormatUint(rand.Uint64(), 36)+tempSuffix)
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

// The name of a temporary file is that of the lock between these, with something
// random.
const tempSuffix = ".tmp"

func tempPrefix(path string) string { return "." + filepath.Base(path) + "." }

// tidyUp removes the temporary files of processes that were killed as they wrote
// the lock at path. Nobody else may write it.
func tidyUp(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		random, ours := strings.CutPrefix(entry.Name(), tempPrefix(path))
		random, ends := strings.CutSuffix(random, tempSuffix)
		if _, err := strconv.ParseUint(random, 36, 64); err != nil || !ours || !ends {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncFolder makes a rename durable.
func syncFolder(folder string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
