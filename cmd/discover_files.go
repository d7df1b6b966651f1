package cmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/dockerfile"
	"mirrorctl/store"
)

// A source is something to look through: a Dockerfile, or the files of a Compose
// project or of a Bake run, of which the later ones override the first.
type source struct {
	kind  sourceKind
	files []string
	named bool // on the command line, and not come across in a folder

	compose []string           // of Bake files: the Compose files that buildx reads with them
	builds  []dockerfile.Build // of a Dockerfile: those that other files describe

	err error // why there is nothing to look through
}

type sourceKind int

const (
	dockerfileSource sourceKind = iota
	composeSource
	bakeSource
)

// kindOf tells from its name what a file that somebody named is. What is neither
// YAML nor a Bake file may be a Dockerfile.
func kindOf(file string) sourceKind {
	switch strings.ToLower(filepath.Ext(file)) {
	case ".yaml", ".yml":
		if !isDockerfile(filepath.Base(file)) {
			return composeSource
		}
	case ".hcl", ".json":
		if !isDockerfile(filepath.Base(file)) {
			return bakeSource
		}
	}
	return dockerfileSource
}

// sources returns what the paths of a command line name, each once.
func (d *discovery) sources(paths []string) ([]source, error) {
	var all []source
	seen := map[string]bool{}
	add := func(s source) {
		if !seen[s.files[0]] {
			seen[s.files[0]] = true
			if s.err == nil {
				s.err = checkFileName(s.files[0])
			}
			all = append(all, s)
		}
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case path == "-":
			add(source{kind: dockerfileSource, files: []string{path}, named: true})
		case err != nil:
			all = append(all, source{files: []string{path}, named: true, err: fmt.Errorf("%s: %w", path, cause(err))})
		case !info.IsDir():
			file := filepath.Clean(path)
			add(source{kind: kindOf(file), files: []string{file}, named: true})
		default:
			found, err := searchFolder(path)
			if err != nil {
				return nil, err
			}
			if len(found) == 0 {
				err := fmt.Errorf("%s: no Dockerfile, compose.yaml or docker-bake.hcl in this folder or below; name the file if it is called otherwise", path)
				all = append(all, source{files: []string{path}, named: true, err: err})
			}
			d.folders = append(d.folders, filepath.Clean(path))
			for _, s := range found {
				add(s)
			}
		}
	}
	return all, nil
}

// checkFileName refuses what a lock cannot hold, before anything is fetched.
func checkFileName(file string) error {
	if utf8.ValidString(file) {
		return nil
	}
	return fmt.Errorf("%q: the name is not UTF-8, so that mirror.lock cannot hold it: rename the file, or its folder", file)
}

// searchFolder returns what there is to look through in a folder and below,
// sorted by its path.
func searchFolder(root string) ([]source, error) {
	var found []source
	folders := map[string][]string{} // the names in each that may belong together
	// With the slash a link to a folder is the folder.
	err := filepath.WalkDir(root+string(filepath.Separator), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			found = append(found, source{files: []string{filepath.Clean(path)}, err: fmt.Errorf("%s: %w", filepath.Clean(path), cause(err))})
			return fs.SkipDir
		}
		name := entry.Name()
		if entry.IsDir() {
			if filepath.Clean(path) != filepath.Clean(root) && slices.Contains([]string{".git", "node_modules", "vendor"}, name) {
				return filepath.SkipDir
			}
			return nil
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return nil // a link to a folder, or to nothing
		}
		if isDockerfile(name) || name == "dockerfile" && !hasOther(path, "Dockerfile") {
			found = append(found, source{kind: dockerfileSource, files: []string{filepath.Clean(path)}})
		} else if slices.Contains(slices.Concat(composeNames, composeOverrides, bakeNames, []string{envName}), name) {
			folder := filepath.Dir(path)
			folders[folder] = append(folders[folder], name)
		}
		return nil
	})
	if folder := filepath.Clean(root); folder == "." && folders[folder] == nil {
		folders[folder] = []string{} // the environment may name files in it
	}
	for folder, names := range folders {
		found = append(found, projects(folder, names)...)
	}
	slices.SortFunc(found, func(a, b source) int { return strings.Compare(a.files[0], b.files[0]) })
	return found, err
}

// hasOther reports whether there is a file of that name beside another.
func hasOther(path, name string) bool {
	this, err := os.Stat(path)
	other, err2 := os.Stat(filepath.Join(filepath.Dir(path), name))
	return err2 == nil && (err != nil || !os.SameFile(this, other)) // letter case may not matter
}

func isDockerfile(name string) bool {
	// These lie beside a Dockerfile and have its name: what a build leaves out,
	// and buildx's policy.
	if strings.HasSuffix(name, ".dockerignore") || strings.HasSuffix(name, ".rego") {
		return false
	}
	return name == "Dockerfile" || name == "Containerfile" ||
		strings.HasPrefix(name, "Dockerfile.") || strings.HasSuffix(name, ".Dockerfile")
}

// What is read of one file is bounded, in bytes.
const (
	maxDockerfile = 64 << 20
	maxBake       = 1 << 20
)

// readSource reads a Dockerfile. One that somebody named may be standard input, a
// pipe or a device.
func (p *program) readSource(s source) ([]byte, error) {
	file := s.files[0]
	switch {
	case !s.named:
		return readRegular(file, maxDockerfile)
	case file == "-":
		return readAll(p.stdin, maxDockerfile)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read, so nothing can be lost
	return readAll(f, maxDockerfile)
}

// readRegular reads a file that nobody named, which may be a link to anything:
// what is no file, such as a device, may have no end.
func readRegular(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, limit)
}

func readAll(in io.Reader, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("larger than %d MiB, this is not a Dockerfile", limit>>20)
		if limit == maxBake {
			err = fmt.Errorf("larger than %d MiB, this is not a Bake file", limit>>20)
		}
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
