package cmd

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/distribution/reference"

	"mirrorctl/dockerfile"
	"mirrorctl/dockerfile/bake"
	"mirrorctl/dockerfile/compose"
)

// Compose and Bake files are close to programs: a few bytes can compute for
// years, fill any memory, or lead to a file that never ends, and neither of the
// libraries that evaluate them can be stopped. So a process of its own evaluates
// each project, within these bounds, which are far from what people write.
const (
	maxEvaluation       = 10 * time.Second
	maxEvaluationMemory = 512 << 20 // bytes of heap
	maxEvaluationResult = 64 << 20  // bytes
	maxEvaluations      = 2         // at a time
)

// evaluateCommand is the command line of such a process. It is no command for
// people.
const evaluateCommand = "evaluate-for-discovery"

// exitMemory is its exit code when it has taken too much memory.
const exitMemory = 99

// An evaluationRequest is what it gets on standard input.
type evaluationRequest struct {
	Kind    sourceKind
	Files   []string
	Compose []string // the Compose files that buildx reads before the Bake files
}

// An evaluation is what it answers on standard output.
type evaluation struct {
	Images []evaluatedImage
	Builds []dockerfile.Build
	Failed []string // what is wrong with single services and targets
	Err    string   // why there is nothing at all
}

// An evaluatedImage is a compose.Image.
type evaluatedImage struct {
	Name    string
	Service string
	File    string
	Line    int
}

// evaluate evaluates a Compose or Bake source in a process of its own.
func (p *program) evaluate(ctx context.Context, s source) (evaluation, error) {
	select {
	case p.evaluations <- struct{}{}:
		defer func() { <-p.evaluations }()
	case <-ctx.Done():
		return evaluation{}, ctx.Err()
	}
	self, err := os.Executable()
	if err != nil {
		return evaluation{}, fmt.Errorf("%s: cannot be evaluated: %w", s.files[0], err)
	}
	var request, messages bytes.Buffer
	if err := gob.NewEncoder(&request).Encode(evaluationRequest{s.kind, s.files, s.compose}); err != nil {
		return evaluation{}, err
	}
	limited, cancel := context.WithTimeout(ctx, maxEvaluation)
	defer cancel()
	cmd := exec.CommandContext(limited, self)
	cmd.Args = []string{p.name, evaluateCommand}
	cmd.Stdin = &request
	cmd.Stderr = &limitedWriter{w: &messages, left: 4 << 10}
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return evaluation{}, fmt.Errorf("%s: cannot be evaluated: %w", s.files[0], err)
	}
	var result evaluation
	decoded := gob.NewDecoder(io.LimitReader(out, maxEvaluationResult)).Decode(&result)
	if decoded != nil {
		cancel() // it may go on writing
	}
	timedOut := errors.Is(limited.Err(), context.DeadlineExceeded)
	err = cmd.Wait()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return evaluation{}, ctx.Err()
	case decoded == nil && err == nil && result.Err != "":
		return evaluation{}, errors.New(result.Err)
	case decoded == nil && err == nil:
		return result, nil
	}
	why := "it describes too much" // so the result was cut
	switch {
	case timedOut:
		why = fmt.Sprintf("to evaluate it takes more than %v", maxEvaluation)
	case errors.As(err, &ended) && ended.ExitCode() == exitMemory, strings.Contains(messages.String(), "out of memory"):
		why = fmt.Sprintf("to evaluate it takes more than %d MiB of memory", maxEvaluationMemory>>20)
	case strings.Contains(messages.String(), "stack overflow"), strings.Contains(messages.String(), "stack exceeds"):
		why = "it is nested too deeply"
	case messages.Len() > 0:
		first, _, _ := strings.Cut(messages.String(), "\n")
		why = fmt.Sprintf("%q", first)
	}
	return evaluation{}, fmt.Errorf("%s: cannot be looked through: %s; look at what it, or a file that it includes, does", s.files[0], why)
}

// limitedWriter drops what goes over a limit.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(b []byte) (int, error) {
	n, err := l.w.Write(b[:min(len(b), l.left)])
	l.left -= n
	if err != nil {
		return n, err
	}
	return len(b), nil
}

// evaluateFor is the process that evaluates.
func evaluateFor(ctx context.Context, in io.Reader, out, messages io.Writer) int {
	debug.SetMaxStack(maxEvaluationMemory / 4)
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for end := time.Now().Add(2 * maxEvaluation); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if metrics.Read(sample); sample[0].Value.Uint64() > maxEvaluationMemory {
				os.Exit(exitMemory)
			}
		}
		os.Exit(exitFailure) // nobody has waited for so long
	}()
	var request evaluationRequest
	err := gob.NewDecoder(in).Decode(&request)
	var result evaluation
	if err == nil {
		switch request.Kind {
		case composeSource:
			err = result.compose(ctx, request)
		case bakeSource:
			err = result.bake(ctx, request)
		default:
			err = fmt.Errorf("no kind %d", request.Kind)
		}
	}
	if err != nil {
		result = evaluation{Err: err.Error()}
	}
	if err := gob.NewEncoder(out).Encode(result); err != nil {
		fmt.Fprintln(messages, err)
		return exitFailure
	}
	return 0
}

func (e *evaluation) compose(ctx context.Context, request evaluationRequest) error {
	project, err := compose.Load(ctx, request.Files, os.Environ())
	if err != nil {
		return err
	}
	for _, image := range project.Images {
		e.Images = append(e.Images, evaluatedImage{image.Name.String(), image.Service, image.File, image.Line})
	}
	e.Builds = project.Builds
	e.fail(project.Failed)
	return nil
}

func (e *evaluation) bake(ctx context.Context, request evaluationRequest) error {
	var files []bake.File
	for _, name := range request.Files {
		content, err := readRegular(name, maxBake)
		if err != nil {
			return fmt.Errorf("%s: %w", name, cause(err))
		}
		files = append(files, bake.File{Name: name, Text: content})
	}
	var services []dockerfile.Build
	if len(request.Compose) > 0 {
		// What is wrong with these is said where they are looked through.
		if project, err := compose.Load(ctx, request.Compose, os.Environ()); err == nil {
			services = project.Builds
		}
	}
	builds, failed, err := bake.Load(files, services, os.Environ())
	if err != nil {
		return err
	}
	e.Builds = builds
	e.fail(failed)
	return nil
}

func (e *evaluation) fail(all []error) {
	for _, err := range all {
		e.Failed = append(e.Failed, err.Error())
	}
}

// use returns an image of a service as a use of it.
func (i evaluatedImage) use(via string) (use, error) {
	name, err := reference.ParseNormalizedNamed(i.Name)
	if err != nil {
		return use{}, err
	}
	u := newUse(name, i.File, i.Line, kindCompose)
	u.Via, u.Build = via, i.Service
	return u, nil
}
