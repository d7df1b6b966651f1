package cmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"mirrorctl/dockerfile"
	"mirrorctl/store"
)

// use is one place where a file needs an image. Its JSON is what find prints.
type use struct {
	Name  string `json:"name"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Stage string `json:"stage"`
	Kind  string `json:"kind"`

	Unreachable bool `json:"unreachable,omitempty"`

	named reference.Named
}

func (u use) where() string {
	if u.Line == 0 {
		return u.File
	}
	return fmt.Sprintf("%s:%d", u.File, u.Line)
}

// discovery is what was found in the files and folders of a command line.
type discovery struct {
	uses    []use
	files   []string // those that could be read and parsed
	folders []string // those that were searched
	failed  []error  // one per file that could not
}

// discoverFlags are the flags that say which build is meant.
func discoverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "target", Usage: "find what `STAGE` needs (default: the last stage)"},
		&cli.BoolFlag{Name: "all-stages", Usage: "find what any stage needs"},
		&cli.StringSliceFlag{Name: "platform", Usage: "find what a build for `OS/ARCH` needs, where names depend on it (default: linux/amd64 and linux/arm64)"},
		&cli.StringSliceFlag{Name: "build-arg", Usage: "set a build argument, `KEY=VALUE`, or KEY to take it from the environment"},
	}
}

func (p *program) discoverOptions(c *cli.Context) (dockerfile.Options, error) {
	opts := dockerfile.Options{Target: c.String("target"), AllStages: c.Bool("all-stages"), BuildArgs: map[string]string{}}
	for _, arg := range c.StringSlice("build-arg") {
		key, value, given := strings.Cut(arg, "=")
		if key == "" {
			return opts, usageErrorf("--build-arg %q: must be KEY=VALUE", arg)
		}
		if !given {
			value = p.getenv(key)
		}
		opts.BuildArgs[key] = value
	}
	for _, s := range c.StringSlice("platform") {
		platform, err := platforms.Parse(s)
		if err != nil {
			return opts, usageErrorf("--platform %q: must be OS/ARCH, such as linux/arm64", s)
		}
		opts.Platforms = append(opts.Platforms, platform)
	}
	return opts, nil
}

// discover looks through the files and folders that paths name, the current
// folder if there are none. What is wrong with single files is in the result.
func (p *program) discover(c *cli.Context, paths []string) (discovery, error) {
	opts, err := p.discoverOptions(c)
	if err != nil {
		return discovery{}, err
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var d discovery
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case path == "-":
			d.read(path, opts, p)
		case err != nil:
			d.failed = append(d.failed, fmt.Errorf("%s: %w", path, cause(err)))
		case !info.IsDir():
			if file := filepath.Clean(path); !slices.Contains(d.files, file) {
				d.read(file, opts, p)
			}
		default:
			files, err := searchFolder(path)
			if err != nil {
				return d, err
			}
			if len(files) == 0 {
				d.failed = append(d.failed, fmt.Errorf("%s: no Dockerfile in this folder or below; name the file if it is called otherwise", path))
			}
			d.folders = append(d.folders, filepath.Clean(path))
			for _, file := range files {
				if !slices.Contains(d.files, file) {
					d.read(file, opts, p)
				}
			}
		}
	}
	return d, nil
}

// cause is the reason in an error about a file or an address that has been said.
func cause(err error) error {
	var inPath *fs.PathError
	var inNet *net.OpError
	switch {
	case errors.As(err, &inPath):
		return inPath.Err
	case errors.As(err, &inNet):
		return inNet.Err
	}
	return err
}

// searchFolder returns the Dockerfiles in a folder and below, sorted.
func searchFolder(root string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != root && slices.Contains([]string{".git", "node_modules", "vendor"}, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if isDockerfile(entry.Name()) {
			files = append(files, filepath.Clean(path))
		}
		return nil
	})
	return files, err
}

func isDockerfile(name string) bool {
	if strings.HasSuffix(name, ".dockerignore") { // Dockerfile.dockerignore is no build file
		return false
	}
	return name == "Dockerfile" || name == "Containerfile" ||
		strings.HasPrefix(name, "Dockerfile.") || strings.HasSuffix(name, ".Dockerfile")
}

// maxDockerfile bounds, in bytes, what is read of one file.
const maxDockerfile = 64 << 20

func (d *discovery) read(file string, opts dockerfile.Options, p *program) {
	content, err := readFile(file, p.stdin)
	if err != nil {
		d.failed = append(d.failed, fmt.Errorf("%s: %w", file, cause(err)))
		return
	}
	result, err := dockerfile.Find(content, opts)
	if err != nil {
		d.failed = append(d.failed, fileError(file, err))
		return
	}
	for _, skipped := range result.Skipped {
		p.say("warning: %v, so %s is not looked at there", fileError(file, skipped), file)
	}
	d.files = append(d.files, file)
	for _, image := range result.Images {
		d.uses = append(d.uses, use{
			Name: canonical(image.Name).String(), File: filepath.ToSlash(file), Line: image.Line, Stage: image.Stage,
			Kind: string(image.Kind), Unreachable: image.Unreachable, named: canonical(image.Name),
		})
	}
}

// canonical gives Docker Hub its one name.
func canonical(name reference.Named) reference.Named {
	repo, _ := store.Locate(name)
	if repo.Registry != "registry-1.docker.io" {
		return name
	}
	renamed, err := reference.ParseNormalizedNamed("docker.io" + strings.TrimPrefix(name.String(), repo.Registry))
	if err != nil {
		return name
	}
	return renamed
}

func readFile(file string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, maxDockerfile+1))
	if err == nil && len(content) > maxDockerfile {
		err = fmt.Errorf("larger than %d MiB, this is not a Dockerfile", maxDockerfile>>20)
	}
	return content, err
}

// fileError says what is wrong with a file: place, reason, and the line itself.
func fileError(file string, err error) error {
	var bad *dockerfile.Error
	if !errors.As(err, &bad) {
		return fmt.Errorf("%s: %w", file, err)
	}
	platform := ""
	if bad.Platform != nil {
		platform = "for " + formatPlatform(*bad.Platform) + ": "
	}
	if bad.Line == 0 {
		return fmt.Errorf("%s: %s%w", file, platform, bad.Err)
	}
	source := ""
	if line := strings.TrimSpace(bad.Source); line != "" {
		source = fmt.Sprintf("\n  %d | %s", bad.Line, line)
	}
	return fmt.Errorf("%s:%d: %s%w%s", file, bad.Line, platform, bad.Err, source)
}

func formatPlatform(p v1.Platform) string { return store.FormatPlatform(&p) }
