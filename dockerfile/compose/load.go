package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	compose "github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"mirrorctl/dockerfile"
)

// maxFile bounds, in bytes, what is read of one file.
const maxFile = 4 << 20

// absent is what the first required variable that is not set is replaced with,
// and the numbers below it the next ones. A file needs many variables to run and
// few to be built, and who asks for its images may well have no passwords: it is
// an error only where it matters. A number may also stand for a port or a size.
const absent = 64738

// loader reads the files of one project.
type loader struct {
	folder string // paths are relative to it
	files  []file
	env    types.Mapping

	// What variables did to the values with this text: a required one was not
	// set, or some that were not set were taken for empty.
	required map[string]error
	unset    map[string][]string
	absent   map[string]string // the numbers in the place of required ones
}

type file struct {
	name string
	text []byte
	root *node

	workloads map[string]map[string]entry // what is in services and in jobs
}

func newLoader(names, environ []string) (*loader, error) {
	l := &loader{
		folder:   filepath.Dir(names[0]),
		env:      types.NewMapping(environ),
		required: map[string]error{},
		unset:    map[string][]string{},
		absent:   map[string]string{},
	}
	for _, name := range names {
		text, err := read(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		root, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.files = append(l.files, file{name, text, root, map[string]map[string]entry{"services": entries(root, "services"), "jobs": entries(root, "jobs")}})
	}
	beside := filepath.Join(l.folder, ".env")
	if info, err := os.Stat(beside); err != nil || info.IsDir() {
		return l, nil
	}
	text, err := read(beside)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", beside, err)
	}
	more, err := dotenv.ParseWithLookup(bytes.NewReader(text), func(key string) (string, bool) {
		value, ok := l.env[key]
		return value, ok
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", beside, err)
	}
	l.env = l.env.Merge(more)
	return l, nil
}

// read reads a file. What is none, such as a device, may have no end.
func read(name string) ([]byte, error) {
	var f *os.File
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if err == nil {
		f, err = os.Open(name)
	}
	if err != nil {
		var inPath *fs.PathError
		if errors.As(err, &inPath) {
			return nil, inPath.Err
		}
		return nil, err
	}
	defer f.Close() // only read, so nothing can be lost
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return text, err
}

// load merges the files into one model.
func (l *loader) load(ctx context.Context) (model *types.Project, err error) {
	// The library counts on its schema, which is not checked here: a service
	// that is null makes it panic.
	defer func() {
		if r := recover(); r != nil {
			err = l.invalid()
		}
	}()
	if !l.hasServices() {
		return nil, fmt.Errorf("%s: not a Compose file: there are no services in it", l.files[0].name)
	}
	// The library makes the path of every file absolute, and shows it.
	folder, err := filepath.Abs(l.folder)
	if err != nil {
		return nil, err
	}
	details := types.ConfigDetails{WorkingDir: folder, Environment: l.env}
	for _, f := range l.files {
		name, err := filepath.Abs(f.name)
		if err != nil {
			return nil, err
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: name, Content: f.text})
	}
	model, err = compose.LoadWithContext(ctx, details, func(o *compose.Options) {
		// The schema is not checked: a newer one than this library's may well
		// have the same images and builds.
		o.SkipValidation = true
		o.SkipConsistencyCheck = true
		o.SkipNormalization = true
		o.SkipResolveEnvironment = true
		o.SkipResolveLabels = true
		o.ResolvePaths = false
		o.Profiles = []string{"*"}
		o.ResourceLoaders = []compose.ResourceLoader{noNetwork{}}
		o.Interpolate.Substitute = l.substitute
		o.SetProjectName("project", true)
	})
	if err != nil {
		message := strings.ReplaceAll(err.Error(), folder+string(filepath.Separator), "")
		message = strings.Join(strings.Fields(message), " ")
		if !strings.Contains(message, "include") {
			message += l.orIncluded()
		}
		return nil, fmt.Errorf("%s: %s", l.files[0].name, message)
	}
	return model, nil
}

// invalid says what made the library panic, as far as that can be told.
func (l *loader) invalid() error {
	for _, f := range l.files {
		for _, section := range []string{"services", "jobs"} {
			all := f.workloads[section]
			for _, name := range slices.Sorted(maps.Keys(all)) {
				if e := all[name]; e.value.Tag == "!!null" {
					return fmt.Errorf("%s:%d: %s %s is empty", f.name, e.key.Line, strings.TrimSuffix(section, "s"), name)
				}
			}
		}
	}
	return fmt.Errorf("%s: not a valid Compose file: something in it is empty or of another type than it must be (docker compose config says what)%s", l.files[0].name, l.orIncluded())
}

// orIncluded says that a mistake may be in another file: the library does not.
func (l *loader) orIncluded() string {
	for _, f := range l.files {
		if _, include := find(f.root, "include"); include != nil {
			return " (in this file, or in one that it includes or extends)"
		}
		for _, e := range f.workloads["services"] {
			if _, other := find(e.value, "extends", "file"); other != nil {
				return " (in this file, or in one that it includes or extends)"
			}
		}
	}
	return ""
}

// substitute puts variables into a value, and remembers what was not set.
func (l *loader) substitute(text string, lookup template.Mapping) (string, error) {
	var unset []string
	value, err := template.SubstituteWithOptions(text, func(key string) (string, bool) {
		value, ok := lookup(key)
		if !ok && !slices.Contains(unset, key) {
			unset = append(unset, key)
		}
		return value, ok
	}, template.WithoutLogging)
	var missing *template.MissingRequiredError
	if !errors.As(err, &missing) {
		if err == nil && len(unset) > 0 {
			l.unset[value] = unset
		}
		return value, err
	}
	first := missing
	for errors.As(err, &missing) {
		if _, again := l.absent[missing.Variable]; again && missing != first || len(l.absent) > 1000 {
			return "", err
		}
		if l.absent[missing.Variable] == "" {
			l.absent[missing.Variable] = strconv.Itoa(absent - len(l.absent))
		}
		value, err = template.SubstituteWithOptions(text, func(key string) (string, bool) {
			if value := l.absent[key]; value != "" {
				return value, true
			}
			return lookup(key)
		}, template.WithoutLogging)
	}
	if err == nil {
		l.required[value] = first
	}
	return value, err
}

// because returns why a value is not what the file means, or nil.
func (l *loader) because(value string) error {
	err, ok := l.required[value]
	if !ok {
		return nil
	}
	return fmt.Errorf("%w; set it in the environment or in %s", err, filepath.Join(l.folder, ".env"))
}

// hint names the variables that left a value as it is.
func (l *loader) hint(value string) string {
	names := l.unset[value]
	if len(names) == 0 {
		return ""
	}
	are, them := "is", "it"
	if len(names) > 1 {
		are, them = "are", "them"
	}
	return fmt.Sprintf(" (%s %s not set; set %s in the environment or in %s)", strings.Join(names, ", "), are, them, filepath.Join(l.folder, ".env"))
}

// resolve returns the path of something that a file names.
func (l *loader) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(l.folder, path)
}

// noNetwork refuses files to include or extend that are elsewhere.
type noNetwork struct{}

func (noNetwork) Accept(path string) bool {
	return strings.HasPrefix(path, "oci://") || dockerfile.IsRemoteContext(path)
}

func (noNetwork) Load(_ context.Context, path string) (string, error) {
	return "", fmt.Errorf("include %s: it is not on this machine, and nothing is fetched to find images; include a copy of it", path)
}

func (noNetwork) Dir(path string) string { return path }
