package cmd

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The names under which docker compose and buildx bake look for files that
// nobody named, the best first.
var (
	composeNames     = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	composeOverrides = []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"}
	bakeNames        = []string{"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl"}
)

// projects puts the Compose and the Bake files of a folder together. Further
// Compose files under other names are projects of their own: docker compose
// passes them over, but somebody may name them.
func projects(folder string, names []string) []source {
	pick := func(from []string) []string {
		var out []string
		for _, name := range from {
			if slices.Contains(names, name) {
				out = append(out, filepath.Join(folder, name))
			}
		}
		return out
	}
	var found []source
	chosen := chosenFiles(folder, slices.Contains(names, envName), "COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR")
	if len(chosen.files) > 0 {
		chosen.kind = composeSource
		found = append(found, chosen)
	}
	all := pick(composeNames)
	for i, file := range all {
		files := []string{file}
		if overrides := pick(composeOverrides); i == 0 && len(overrides) > 0 {
			files = append(files, overrides[0])
		}
		if !slices.Contains(chosen.files, file) {
			found = append(found, source{kind: composeSource, files: files})
		}
	}
	chosen = chosenFiles(folder, false, "BUILDX_BAKE_FILE", "BUILDX_BAKE_PATH_SEPARATOR")
	isCompose := func(file string) bool { return kindOf(file) == composeSource }
	if files := slices.DeleteFunc(slices.Clone(chosen.files), isCompose); len(files) > 0 {
		chosen.kind, chosen.compose = bakeSource, slices.DeleteFunc(chosen.files, func(file string) bool { return !isCompose(file) })
		chosen.files = files
		found = append(found, chosen)
	}
	if files := pick(bakeNames); len(files) > 0 && !slices.Contains(chosen.files, files[0]) {
		found = append(found, source{kind: bakeSource, files: files, compose: all})
	}
	return found
}

// envName is the file with the variables of a Compose project.
const envName = ".env"

// chosenFiles returns the files that the environment, or .env in a folder if it
// has one, names in place of the usual ones. The environment is about the current
// folder. Without such a name there are no files.
func chosenFiles(folder string, hasEnv bool, name, separator string) source {
	var text []byte
	if hasEnv {
		// Who cannot read it will say so.
		text, _ = readRegular(filepath.Join(folder, envName), maxBake)
	}
	value, sep := variable(text, name), variable(text, separator)
	if folder == "." {
		value, sep = cmp.Or(os.Getenv(name), value), cmp.Or(os.Getenv(separator), sep)
	}
	var s source
	for _, file := range strings.Split(value, cmp.Or(sep, string(os.PathListSeparator))) {
		if file == "" {
			continue
		}
		if strings.Contains(file, "$") {
			file = filepath.Join(folder, envName)
			return source{files: []string{file}, err: fmt.Errorf("%s: %s has variables in it, and is not looked at; name the Compose files", file, name)}
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(folder, file)
		}
		s.files = append(s.files, file)
	}
	return s
}

// variable returns the value of a variable in an .env file, without its quotes.
// Its own variables are not put in.
func variable(text []byte, name string) string {
	value := ""
	for _, m := range regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?`+name+`[ \t]*=[ \t]*(.*?)[ \t\r]*$`).FindAllSubmatch(text, -1) {
		value = string(m[1])
	}
	for _, quote := range []string{`"`, "'"} {
		if rest, ok := strings.CutPrefix(value, quote); ok {
			value, _, _ = strings.Cut(rest, quote)
			return value
		}
	}
	value, _, _ = strings.Cut(value, " #")
	return strings.TrimSpace(value)
}
