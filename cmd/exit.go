package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

// Exit codes; scripts rely on them.
const (
	exitFailure     = 1   // nothing was done, or not what was asked for
	exitUsage       = 2   // the command line is wrong
	exitSome        = 3   // some images failed, the rest are done
	exitConflict    = 4   // the lock and the files or the store disagree
	exitIntegrity   = 5   // content in the store is damaged
	exitInterrupted = 130 // Ctrl-C
	exitPipe        = 141 // nobody reads standard output any more; as if SIGPIPE had ended the program
)

// codedError ends the program with a code. Its text may be empty when
// everything has been said.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func withCode(code int, format string, args ...any) error {
	return &codedError{code: code, err: fmt.Errorf(format, args...)}
}

func usageErrorf(format string, args ...any) error {
	return withCode(exitUsage, format, args...)
}

// usageErrorFrom turns what the cli package finds wrong with the flags into a
// usage error.
func usageErrorFrom(c *cli.Context, err error, _ bool) error {
	help, known := "mirrorctl --help", c.App.Flags
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != c.App.Name {
		help, known = "mirrorctl "+c.Command.Name+" --help", append(c.Command.Flags, known...)
	}
	if flag, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		var names []string
		for _, f := range known {
			names = append(names, f.Names()...)
		}
		if near := nearest(flag, names); near != "" {
			return usageErrorf("unknown flag --%s; did you mean --%s?", flag, near)
		}
		return usageErrorf("unknown flag --%s; see %s", flag, help)
	}
	if flag, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		return usageErrorf("--%s needs a value; see %s", strings.TrimPrefix(flag, "-"), help)
	}
	text := strings.TrimSuffix(strings.Replace(err.Error(), " for flag -", " for --", 1), ": parse error")
	return usageErrorf("%s; see %s", text, help)
}

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var coded *codedError
	var conflict *store.ConflictError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, syscall.EPIPE):
		return exitPipe
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &conflict):
		return exitConflict
	case errors.Is(err, store.ErrMismatch), errors.Is(err, store.ErrDamaged),
		errors.Is(err, store.ErrIndexDamaged), errors.Is(err, store.ErrIndexLost):
		return exitIntegrity
	}
	return exitFailure
}

// errSaid is an error whose message has been printed already.
var errSaid = errors.New("")

// printError prints an error that ends the program, each part of a joined one
// on a line of its own.
func (p *program) printError(err error) {
	if coded, ok := err.(*codedError); ok { //nolint:errorlint // what is inside has nothing to add
		p.printError(coded.err)
		return
	}
	var joined interface{ Unwrap() []error }
	if err != nil && errors.As(err, &joined) && fmt.Sprintf("%T", err) == "*errors.joinError" {
		for _, part := range joined.Unwrap() {
			p.printError(part)
		}
		return
	}
	if err == nil || err.Error() == "" || errors.Is(err, syscall.EPIPE) {
		return
	}
	if p.logFormat == "json" {
		p.log.Error(err.Error())
	} else {
		fmt.Fprintf(p.stderr, "mirrorctl: %s\n", printableLines(err.Error()))
	}
}

// imageError is what went wrong with one image: which, why, who needs it, and
// what to do next.
type imageError struct {
	name  string
	where string // Dockerfile:1, "" if no file names it
	err   error
	hint  string
}

func (e *imageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.name, e.err)
	if e.where != "" {
		fmt.Fprintf(&b, " (%s)", e.where)
	}
	if hint := e.nextStep(); hint != "" {
		fmt.Fprintf(&b, "; %s", hint)
	}
	return b.String()
}

func (e *imageError) Unwrap() error { return e.err }

func (e *imageError) nextStep() string {
	var failed *upstream.Error
	if e.hint == "" && errors.As(e.err, &failed) {
		return failed.Hint
	}
	if e.hint == "" {
		return diskHint(e.err)
	}
	return e.hint
}

// storeError adds what to do about a store that cannot be used.
func storeError(err error) error {
	if hint := diskHint(err); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}

// updateLock is lockfile.Update, and adds what to do about a full disk.
func updateLock(path string, change func(lockfile.File) lockfile.File) (changed bool, err error) {
	if changed, err = lockfile.Update(path, change); store.IsFull(err) {
		err = fmt.Errorf("%w; free some space there, then run the command again: only the lock is left to write", err)
	}
	return changed, err
}

func diskHint(err error) string {
	switch {
	case errors.Is(err, store.ErrIndexLost):
		return "run mirrorctl sync --locked where mirror.lock is: it takes over the blobs that are here, after hashing them, and fetches only what is missing"
	case errors.Is(err, store.ErrIndexDamaged):
		return "move index.db, index.db-wal and index.db-shm out of the store, or put them back from a backup; without them mirrorctl sync --locked takes over the blobs that are here, after hashing them, and fetches only what is missing"
	case errors.Is(err, store.ErrLocked):
		return "run the command again when it is done"
	case store.IsFull(err):
		return "free some space (mirrorctl rm, or mirrorctl gc --partials-older-than=0s), then run the command again: it goes on where it stopped"
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrPermission), strings.Contains(err.Error(), "readonly database"):
		return "choose a folder that can be written with --store"
	}
	return ""
}
