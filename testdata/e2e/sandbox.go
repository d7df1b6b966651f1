//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// The test binary runs three times, one inside the other, told apart by this
// variable: outside (prepares), init (process 1 of the sandbox), tests.
const stageVariable = "MIRRORCTL_E2E_STAGE"

// Set by the outside stage for the tests.
const (
	workVariable   = "MIRRORCTL_E2E_WORK"   // folder for everything the run writes
	rootfsVariable = "MIRRORCTL_E2E_ROOTFS" // folder that rootfs.sh filled
	binaryVariable = "MIRRORCTL_E2E_BINARY" // the mirrorctl under test; built if unset
	fullVariable   = "MIRRORCTL_E2E_FULL"   // not empty: sizes of real life where the gate takes smaller ones
)

// The programs that the tests need. A missing one fails the run at once: a
// skipped client would look like a client that works.
var programs = []string{
	"debootstrap", "zstd", "ip", // the images and the sandbox
	"strace",
	"docker-registry", "registry", // the upstreams
	"docker", "dockerd", "containerd", "ctr", "runc", "podman", "buildah", "skopeo", "crane", "regctl", "buildkitd", "buildctl", "buildx", // the clients
}

// outside prepares, starts the sandbox and cleans up after it.
func outside() int {
	if os.Geteuid() != 0 {
		return complain(errors.New("the end-to-end tests need root: they run container daemons and mount file systems"))
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			return complain(fmt.Errorf("%w; .ci/run installs what the tests need", err))
		}
	}
	// A short path: sockets live below it, and their names end at 107 bytes.
	work, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(work)
	// From here on Ctrl-C ends the children, and then this process tidies up.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	if err := prepare(work); err != nil {
		return complain(err)
	}

	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), stageVariable+"=init")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	// The death signal is sent when the thread ends, not the process.
	runtime.LockOSThread()
	if err := child.Start(); err != nil {
		return complain(err)
	}
	go func() {
		<-interrupted
		child.Process.Kill()
	}()
	child.Wait()
	return child.ProcessState.ExitCode()
}

// prepare does what needs the network or the machine's own caches.
func prepare(work string) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	rootfs := filepath.Join(cache, "mirrorctl-ci", "rootfs")
	script := exec.Command("./rootfs.sh", rootfs)
	script.Stderr = os.Stderr
	if err := script.Run(); err != nil {
		return fmt.Errorf("rootfs.sh: %w", err)
	}
	if os.Getenv(binaryVariable) == "" {
		binary := filepath.Join(work, "mirrorctl")
		build := exec.Command("go", "build", "-o", binary, "mirrorctl")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("go build: %w", err)
		}
		os.Setenv(binaryVariable, binary)
	}
	os.Setenv(workVariable, work)
	os.Setenv(rootfsVariable, rootfs)
	// Debian's clients first: another docker or containerd may stand before them
	// on PATH, and dockerd starts the containerd that it finds.
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"))
	// t.TempDir and all clients follow it.
	return os.Setenv("TMPDIR", work)
}

// initProcess sets the sandbox up, starts the tests and inherits, as every
// process 1 does, the children that daemons leave behind.
func initProcess() int {
	const private = syscall.MS_REC | syscall.MS_PRIVATE
	err := errors.Join(
		syscall.Mount("", "/", "", private, ""),
		syscall.Mount("proc", "/proc", "proc", 0, ""),
		// Sockets and state of the machine's own daemons stay out of sight.
		syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
	)
	if err != nil {
		return complain(fmt.Errorf("setting up the mounts of the sandbox: %w", err))
	}
	if output, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return complain(fmt.Errorf("ip: %w: %s", err, output))
	}
	env := []string{stageVariable + "=tests"}
	for _, setting := range os.Environ() {
		// Nobody's own settings, logins or proxies have a say in the tests.
		name, _, _ := strings.Cut(setting, "=")
		switch name {
		case "PATH", "TMPDIR", "LANG", workVariable, rootfsVariable, binaryVariable, fullVariable:
			env = append(env, setting)
		}
	}
	env = append(env, "HOME="+os.Getenv(workVariable))
	tests, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return complain(err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return complain(err)
		case pid == tests.Pid && status.Signaled():
			return complain(fmt.Errorf("the tests ended by %v", status.Signal()))
		case pid == tests.Pid:
			return status.ExitStatus()
		}
	}
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}
