package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/aymanbagabas/go-udiff"
	"github.com/urfave/cli/v2"

	"mirrorctl/cmd/client"
)

// planned is a file that is to be changed.
type planned struct {
	client.File
	real     string // where it is, below --root and after links
	old, new []byte // old is nil if there is no file
}

// writeClient merges the files of a client into what is there. Nothing is
// written before it is known that all can be.
func (p *program) writeClient(c *cli.Context, name string, mirror client.Mirror, config client.Config) error {
	var plan []planned
	for _, f := range config.Files {
		switch {
		case f.Snippet():
			return usageErrorf("what %s needs is put in place by hand: mirrorctl client %s prints it", name, name)
		case f.Secret && mirror.Password == "":
			return usageErrorf("%s holds the password: give it with --password-file", f.Path)
		}
		real, err := inRoot(c.String("root"), f.Path)
		if err != nil {
			return err
		}
		old, err := readLimited(real)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		text, err := f.Merge(old)
		if err != nil {
			return err
		}
		plan = append(plan, planned{f, real, old, text})
	}
	var undo, restart []string
	for _, f := range plan {
		p.warnCertificates(f)
		if f.old != nil && bytes.Equal(f.old, f.new) {
			p.say("%s: nothing to change", f.real)
			continue
		}
		restart = append(restart, f.Note)
		if c.Bool("dry-run") {
			if err := p.showDiff(f); err != nil {
				return err
			}
			continue
		}
		step, err := f.write()
		if err != nil {
			return fmt.Errorf("%s: %w", f.real, cause(err))
		}
		p.say("%s: written", f.real)
		undo = append(undo, step)
	}
	if len(restart) == 0 {
		return nil
	}
	notes := append(restart, config.Notes...)
	for i, note := range notes {
		if note != "" && !slices.Contains(notes[:i], note) {
			p.say("%s", note)
		}
	}
	for _, step := range undo {
		p.say("to undo: %s", step)
	}
	return nil
}

// warnCertificates warns of certificates of a registry that count only as long
// as there is no hosts.toml beside them.
func (p *program) warnCertificates(f planned) {
	folder := filepath.Dir(f.real)
	beside, err := filepath.Glob(filepath.Join(folder, "*.c*rt"))
	if filepath.Base(f.real) == "hosts.toml" && f.old == nil && err == nil && len(beside) > 0 {
		p.say("warning: beside a hosts.toml, %s does not count any more; if %s itself is asked, name it there: ca = %q", beside[0], filepath.Base(folder), beside[0])
	}
}

// showDiff prints what a change would be, without passwords.
func (p *program) showDiff(f planned) error {
	from := f.real
	if f.old == nil {
		from = os.DevNull
	}
	text := udiff.Unified(from, f.real, string(f.old), string(f.new))
	_, err := fmt.Fprint(p.stdout, secretValue.ReplaceAllString(text, "${1}"+client.Placeholder))
	return err
}

// secretValue is a line's password, of whatever registry, in the files that hold
// such.
var secretValue = regexp.MustCompile(`(?i)((?:password|identity_?token|authorization|\bauth)["']?[ \t]*[:=][ \t]*)\S.*`)

// inRoot is where a path is below a folder that stands for /. What leads out of
// it is an error: the file would be one of this machine.
func inRoot(root, path string) (string, error) {
	root, err := filepath.Abs(root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return "", fmt.Errorf("--root: %w", err)
	}
	// What does not exist yet is no link; a link to nothing exists.
	exists, rest := filepath.Join(root, path), ""
	for _, err := os.Lstat(exists); errors.Is(err, fs.ErrNotExist); _, err = os.Lstat(exists) {
		rest = filepath.Join(filepath.Base(exists), rest)
		exists = filepath.Dir(exists)
	}
	if exists, err = filepath.EvalSymlinks(exists); err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(root, exists); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s leads out of --root %s, to %s", path, root, exists)
	}
	return filepath.Join(exists, rest), nil
}

// write puts the new text in the place of the old, of which it keeps a copy, and
// returns the command that takes it back.
func (f planned) write() (undo string, err error) {
	if f.old == nil {
		if err := os.MkdirAll(filepath.Dir(f.real), 0o755); err != nil {
			return "", err
		}
		return "rm " + f.real, writeNew(f.real, f.new, f.Mode)
	}
	info, err := os.Stat(f.real)
	if err != nil {
		return "", err
	}
	// A password goes into no file that others can read.
	if mode := info.Mode().Perm(); f.Secret && mode&0o077 != 0 {
		if err := os.Chmod(f.real, mode&0o700); err != nil {
			return "", err
		}
	}
	backup, err := backUp(f.real)
	if err != nil {
		return "", err
	}
	return "mv " + backup + " " + f.real, replaceFile(f.real, f.new)
}

// backUp gives a file a second name, one that is free. Because the first name is
// then given to another file, this is the old one as it was, with its owner.
func backUp(file string) (string, error) {
	for n := 1; ; n++ {
		backup := fmt.Sprintf("%s.mirrorctl-%d", file, n)
		if err := os.Link(file, backup); !errors.Is(err, fs.ErrExist) {
			return backup, err
		}
	}
}

// writeNew makes a file at once and with its mode.
func writeNew(file string, text []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(file), ".mirrorctl-*")
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
