package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"mirrorctl/dockerfile"
	"mirrorctl/lockfile"
)

func (p *program) pinCommand() *cli.Command {
	return &cli.Command{
		Name:      "pin",
		Usage:     "write the locked digests into Dockerfiles",
		ArgsUsage: "FILE...",
		Description: "Turns FROM debian:12 into FROM debian:12@sha256:..., from mirror.lock, and changes\n" +
			"nothing else in the files. For people who cannot use a build policy. Without\n" +
			"--write the result goes to standard output.\n\n" +
			"   mirrorctl pin --write Dockerfile && mirrorctl sync\n" +
			"   mirrorctl pin --undo --write Dockerfile && mirrorctl sync",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "take the digests from `FILE`"},
			&cli.BoolFlag{Name: "write", Usage: "change the files"},
			&cli.BoolFlag{Name: "undo", Usage: "take digests away from references that have a tag, too"},
		},
		Action: p.pinFiles,
	}
}

func (p *program) pinFiles(c *cli.Context) error {
	if !c.Args().Present() {
		return usageErrorf("pin takes one file or more; see mirrorctl pin --help")
	}
	if c.NArg() > 1 && !c.Bool("write") {
		return usageErrorf("pin shows one file at a time; give --write to change several")
	}
	lock, err := lockfile.Read(c.String("lockfile"))
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || !c.Bool("undo")) {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; run mirrorctl sync first", err)
		}
		return err
	}
	change := func(image dockerfile.Image) (string, error) { return p.withDigest(image, lock) }
	if c.Bool("undo") {
		change = withoutDigest
	}
	var failures []error
	for _, file := range c.Args().Slice() {
		if err := p.pinFile(c, file, change); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (p *program) pinFile(c *cli.Context, file string, change func(dockerfile.Image) (string, error)) error {
	if kindOf(file) != dockerfileSource {
		return fmt.Errorf("%s: by its name no Dockerfile, and pin changes nothing else; mirrorctl policy makes every build obey the lock", file)
	}
	content, err := p.readSource(source{files: []string{file}, named: true})
	if err != nil {
		return fmt.Errorf("%s: %w", file, cause(err))
	}
	found, err := dockerfile.Find(content, dockerfile.Options{AllStages: true})
	if err != nil {
		return fileError(file, err)
	}
	var all []dockerfile.Replacement
	for _, image := range found.Images {
		text, err := change(image)
		if err != nil && image.Unreachable {
			p.say("warning: %s:%d: %v, with --all-stages; the last stage does not need it, and it stays as it is", file, image.Line, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file, image.Line, err)
		}
		if text != image.Reference {
			all = append(all, dockerfile.Replacement{Image: image, New: text})
		}
	}
	out, left, err := dockerfile.Replace(content, all)
	if err != nil {
		return fileError(file, err)
	}
	if err := sameUses(found, out); err != nil {
		return fmt.Errorf("%s: it would not be the same build with digests in it (%w); nothing is changed, write them by hand", file, err)
	}
	for _, r := range left {
		p.say("warning: %s:%d: %s is put together from variables and stays as it is", file, r.Image.Line, r.Image.Reference)
	}
	if !c.Bool("write") {
		_, err := p.stdout.Write(out)
		return err
	}
	if bytes.Equal(content, out) {
		return nil
	}
	if err := replaceFile(file, out); err != nil {
		return fmt.Errorf("%s: %w", file, cause(err))
	}
	p.say("%s: %s changed", file, plural(len(all)-len(left), "reference", "references"))
	return nil
}

// sameUses returns an error unless a changed file uses images where it did before.
func sameUses(before *dockerfile.Result, changed []byte) error {
	after, err := dockerfile.Find(changed, dockerfile.Options{AllStages: true})
	if err != nil {
		return err
	}
	same := func(a, b dockerfile.Image) bool {
		return a.Line == b.Line && a.Stage == b.Stage && a.Kind == b.Kind && a.Unreachable == b.Unreachable && a.Name.Name() == b.Name.Name()
	}
	if !slices.EqualFunc(before.Images, after.Images, same) {
		return errors.New("it would use other images")
	}
	return nil
}

// withDigest returns the reference of an image with the locked digest.
func (p *program) withDigest(image dockerfile.Image, lock lockfile.File) (string, error) {
	if _, pinned := image.Name.(reference.Digested); pinned {
		return image.Reference, nil
	}
	name, err := p.behind(canonical(image.Name))
	if err != nil {
		return "", err
	}
	entry, ok := lock.Image(name.String())
	if !ok {
		return "", fmt.Errorf("%s is not locked; run mirrorctl sync first", name)
	}
	text := image.Reference
	if !strings.Contains(text[strings.LastIndex(text, "/")+1:], ":") {
		text += ":latest" // so that people and --undo see what it was
	}
	return text + "@" + entry.Digest.String(), nil
}

// withoutDigest returns the reference of an image with its tag alone. One that
// has only a digest means nothing without it.
func withoutDigest(image dockerfile.Image) (string, error) {
	_, tagged := image.Name.(reference.Tagged)
	_, digested := image.Name.(reference.Digested)
	if !tagged || !digested {
		return image.Reference, nil
	}
	text, _, _ := strings.Cut(image.Reference, "@")
	return text, nil
}

// replaceFile puts new content in the place of a file at once, and keeps its mode
// and, where it may, its owner.
func replaceFile(file string, content []byte) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".mirrorctl-*")
	if err != nil {
		return err
	}
	keepOwner(temp, info)
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(info.Mode().Perm()), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
