//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Every program must end within this time, so that a hanging one fails its test
// and not the whole run.
const patience = 2 * time.Minute

// process is a program that a test started and that ends with the test.
type process struct {
	*exec.Cmd
	name string
	log  string // path of its output
	done chan struct{}
}

// start runs cmd in the background, in a process group of its own, its output
// in a file that a failed test shows.
func start(tb testing.TB, cmd *exec.Cmd) *process {
	tb.Helper()
	p := &process{Cmd: cmd, name: filepath.Base(cmd.Path), done: make(chan struct{})}
	log, err := os.CreateTemp("", p.name+"-*.log")
	check(tb, err)
	p.log = log.Name()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(tb, cmd.Start())
	go func() {
		cmd.Wait()
		log.Close()
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.stop()
		if tb.Failed() {
			tb.Logf("%s wrote:\n%s", p.name, tail(p.output(), 2000))
		}
		os.Remove(p.log)
	})
	return p
}

// stop asks the program to end, and makes it end when it does not.
func (p *process) stop() {
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
	}
	p.kill()
}

// kill ends the program and whatever it started in its group, without a word.
func (p *process) kill() {
	syscall.Kill(-p.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// wait returns the exit code.
func (p *process) wait(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		tb.Fatalf("%s still runs after %v", p, patience)
	}
	return p.ProcessState.ExitCode()
}

func (p *process) output() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ready waits until the program answers, as told by probe.
func (p *process) ready(tb testing.TB, probe func() error) {
	tb.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if !p.running() {
			tb.Fatalf("%s ended with %v", p, p.ProcessState)
		}
		if err = probe(); err == nil {
			return
		}
	}
	tb.Fatalf("%s does not answer: %v", p, err)
}

// result is what a finished program left.
type result struct {
	command string
	stdout  string
	stderr  string
	code    int
}

func (r result) String() string {
	return fmt.Sprintf("%s\nexit code %d\nstdout: %s\nstderr: %s", r.command, r.code, tail(r.stdout, 4000), tail(r.stderr, 4000))
}

// call runs a program to its end.
func call(tb testing.TB, dir string, env []string, name string, args ...string) result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		tb.Fatalf("%s: %v", cmd, err)
	}
	return result{cmd.String(), stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must is call for a program that has to succeed; it returns stdout.
func must(tb testing.TB, dir string, env []string, name string, args ...string) string {
	tb.Helper()
	r := call(tb, dir, env, name, args...)
	if r.code != 0 {
		tb.Fatal(r)
	}
	return strings.TrimSpace(r.stdout)
}

// tempDir is tb.TempDir with a short name: sockets and overlay mounts below it
// have limits on their paths.
func tempDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "")
	check(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

var lastPort atomic.Int32

// address picks a free loopback address for a program that cannot be asked
// which one it took. The network namespace belongs to the tests, and the ports
// lie below those that the kernel hands to outgoing connections.
func address() string {
	return fmt.Sprintf("127.0.0.1:%d", 10000+lastPort.Add(1))
}

// dial is a probe for ready.
func dial(network, address string) func() error {
	return func() error {
		connection, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			connection.Close()
		}
		return err
	}
}

func writeFile(tb testing.TB, path, text string) string {
	tb.Helper()
	check(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	check(tb, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func tail(text string, n int) string {
	if len(text) > n {
		return "... " + text[len(text)-n:]
	}
	return text
}
