package lockfile

import (
	_ "crypto/sha256" // a digest is only valid when its algorithm is linked in
	_ "crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"mime"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"mirrorctl/lockfile/stricttoml"
)

// check calls report for each thing that makes an image unfit for the file. at
// is the key in the image's table.
func (image Image) check(report func(at stricttoml.Key, err error)) {
	named, err := checkName(image.Name)
	if err != nil {
		report(stricttoml.Key{"name"}, err)
	}
	if err := checkDigest(image.Digest); err != nil {
		report(stricttoml.Key{"digest"}, err)
	} else if pinned, ok := named.(reference.Digested); ok && pinned.Digest() != image.Digest {
		report(stricttoml.Key{"digest"}, fmt.Errorf("the name says %s, the digest %s", pinned.Digest(), image.Digest))
	}
	if err := checkMediaType(image.MediaType); err != nil {
		report(stricttoml.Key{"media_type"}, err)
	}
	if image.Size < 0 {
		report(stricttoml.Key{"size"}, fmt.Errorf("size %d is negative", image.Size))
	}
	for i, file := range image.UsedBy {
		if err := checkFile(file); err != nil {
			report(stricttoml.Key{"used_by", strconv.Itoa(i)}, err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(image.Platforms)) {
		err := checkPlatformKey(key)
		if err == nil {
			err = checkDigest(image.Platforms[key])
		}
		if err != nil {
			report(stricttoml.Key{"platforms", key}, err)
		}
	}
}

// checkName takes only the one spelling that a reference is normalised to, so
// that no image can be in the file under two names.
func checkName(name string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	full := named.String()
	if reference.IsNameOnly(named) {
		return nil, fmt.Errorf("name %q has neither tag nor digest: write %s:latest", name, full)
	}
	if full != name {
		return nil, fmt.Errorf("name %q is not fully qualified: write %s", name, full)
	}
	return named, nil
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d, err)
	}
	return nil
}

func checkMediaType(s string) error {
	if _, params, err := mime.ParseMediaType(s); err != nil || len(params) > 0 || !strings.Contains(s, "/") ||
		strings.TrimSpace(s) != s {
		return fmt.Errorf("media type %q: not of the form type/subtype", s)
	}
	return nil
}

func checkFile(file string) error {
	switch {
	case !utf8.ValidString(file):
		return fmt.Errorf("path %q is not valid UTF-8", file)
	case strings.ContainsRune(file, 0):
		return fmt.Errorf("path %q holds a zero byte", file)
	case path.IsAbs(file):
		return fmt.Errorf("path %q is absolute: paths are relative to the lock", file)
	case file == "" || file == "." || path.Clean(file) != file || path.Base(file) == "..":
		return fmt.Errorf("path %q is not the clean path of a file", file)
	}
	return nil
}

// checkPlatformKey takes os/arch[/variant][:os.version][#n].
func checkPlatformKey(key string) error {
	err := fmt.Errorf("platform %q: not of the form os/arch[/variant]", key)
	rest, number, numbered := strings.Cut(key, "#")
	if n, numErr := strconv.Atoi(number); numbered && (numErr != nil || n < 2 || strconv.Itoa(n) != number) {
		return err
	}
	rest, version, versioned := strings.Cut(rest, ":")
	if versioned && !isPlatformWord(version) {
		return err
	}
	words := strings.Split(rest, "/")
	if len(words) < 2 || len(words) > 3 || slices.ContainsFunc(words, func(w string) bool { return !isPlatformWord(w) }) {
		return err
	}
	return nil
}

func isPlatformWord(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-+", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// checkAll is check over a File, for one that does not come from text.
func (f File) checkAll() error {
	var errs []error
	seen := map[string]bool{}
	for _, image := range f.Images {
		if seen[image.Name] {
			errs = append(errs, fmt.Errorf("image %q is there twice", image.Name))
		}
		seen[image.Name] = true
		image.check(func(_ stricttoml.Key, err error) {
			errs = append(errs, fmt.Errorf("image %q: %w", image.Name, err))
		})
	}
	return errors.Join(errs...)
}
