//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"mirrorctl/testdata/faults"
)

// toHub sends what a proxy asks to a real registry.
type toHub struct {
	address   string
	transport *http.Transport
}

func (h toHub) RoundTrip(q *http.Request) (*http.Response, error) {
	q.URL.Scheme, q.URL.Host = "http", h.address
	return h.transport.RoundTrip(q)
}

// memories are the peaks of programs that have ended, in MB.
type memories struct {
	mu   sync.Mutex
	most float64
}

// program is mirrorctl as it is installed, under a program that tells its memory
// when it ends.
func (m *memories) program(dir string) faults.Program {
	return func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
		figures, err := os.CreateTemp(dir, "figures-")
		if err != nil {
			fmt.Fprintln(stderr, err)
			return -1
		}
		figures.Close()
		defer os.Remove(figures.Name())
		cmd := exec.CommandContext(ctx, "time", append([]string{"-q", "-f", "%M", "-o", figures.Name(), os.Getenv(binaryVariable)}, args[1:]...)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) } // time itself ignores it
		err = cmd.Run()
		text, _ := os.ReadFile(figures.Name())
		var kibibytes float64
		fmt.Sscan(string(text), &kibibytes)
		m.mu.Lock()
		m.most = max(m.most, kibibytes*1024/1e6)
		m.mu.Unlock()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
			fmt.Fprintln(stderr, err)
			return -1
		}
		return cmd.ProcessState.ExitCode()
	}
}

// Faults between the program and a real registry.
func TestFaults(t *testing.T) {
	const limit = 150 // MB
	hub := startHub(t, "distribution-3")
	base := hub.url() + "/v2/" + faults.Repository
	faults.Push(func(kind, reference, mediaType string, data []byte) {
		if kind == "blobs" {
			hub.pushBlob(t, base, blob{digest: reference, size: int64(len(data)), open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
			return
		}
		hub.send(t, http.MethodPut, base+"/manifests/"+reference, mediaType, bytes.NewReader(data), int64(len(data)), http.StatusCreated)
	})
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	var memory memories
	rig := &faults.Rig{
		Program: memory.program(t.TempDir()), Backend: toHub{hub.address, &http.Transport{DisableCompression: true}},
		Dir: filepath.Join(tempDir(t), "faults"), Parallel: 8, Every: 10,
	}
	if full() {
		rig.Every = 1
	}
	rig.Run(t)
	t.Logf("peak memory of a process: %.0f MB", memory.most)
	if memory.most > limit {
		t.Errorf("a process took %.0f MB, more than %d", memory.most, limit)
	}
}
