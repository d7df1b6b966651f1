package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func init() {
	roles["nobody"] = roleNobody
	roles["full"] = roleFull
	roles["crowded"] = roleCrowded
}

// roleNobody reads a store that it may not write to.
func roleNobody(ctx context.Context, dir string) error {
	if os.Getenv("STORE_TEST_MOUNT") != "" { // for this process only
		flags := uintptr(syscall.MS_BIND)
		for _, more := range []uintptr{0, syscall.MS_REMOUNT | syscall.MS_RDONLY} {
			if err := syscall.Mount(dir, dir, "", flags|more, ""); err != nil {
				return err
			}
		}
	} else if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err == nil {
		return errors.New("may write to the store")
	}
	s, err := OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		pin, err := s.Pin(ctx, debian, "bookworm")
		if err != nil {
			return err
		}
		checked, err := s.Verify(ctx, []Pin{pin}, nil)
		if err != nil || len(checked.Damage) > 0 || checked.Blobs == 0 {
			return fmt.Errorf("verify: %+v, %w", checked, err)
		}
	}
	_, err = s.Pin(ctx, debian, "moving")
	return err
}

// A server that runs as another user, or on a read-only mount, reads the store
// while nobody else has it open and while others write to it.
func TestReadOnlyForOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	s := must[*Store](t)(Open(t.Context(), dir))
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	mustAdd(t, s, c, debian, "moving", root.Digest)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"after a writer was closed", "after one was killed"} {
		if when == "after one was killed" {
			killWriter(t, dir)
		}
		mounted := child(t, "nobody", dir)
		mounted.Env = append(mounted.Env, "STORE_TEST_MOUNT=1")
		mounted.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		for what, cmd := range map[string]*exec.Cmd{"another user": child(t, "nobody", dir), "read-only mount": mounted} {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v: %s", what, when, err, out)
			}
		}
	}

	s = open(t, dir)
	done := make(chan error)
	go func() {
		out, err := child(t, "nobody", dir).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	for i := 0; ; i++ {
		other := newContent()
		d := other.image("linux/amd64", other.layer(fmt.Sprint(i)))
		must[Pin](t)(add(t.Context(), s, other, debian, "moving", d.Digest, true))
		must[Freed](t)(s.Collect(t.Context(), 0))
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("beside a writer: %v", err)
			}
			return
		default:
		}
	}
}

// killWriter kills a process in the middle of a transaction, which leaves the WAL
// and its index as they are.
func killWriter(t *testing.T, dir string) {
	t.Helper()
	cmd := child(t, "lock", dir)
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	must[string](t)(bufio.NewReader(out).ReadString('\n'))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// roleFull fills a small disk, which is mounted for this process only.
func roleFull(ctx context.Context, dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return err
	}
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	c, root := debianImage()
	if _, err := add(ctx, s, c, debian, "bookworm", root.Digest, false); err != nil {
		return err
	}
	l, err := s.NewLease(ctx)
	if err != nil {
		return err
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 8<<20>>4)
	w, err := l.Writer(ctx, v1.Descriptor{Digest: digest.FromBytes(big), Size: int64(len(big))})
	if err != nil {
		return err
	}
	_, err = w.ReadFrom(bytes.NewReader(big))
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("writing to a full disk: %w", err)
	}
	if w.Offset() == 0 || w.Offset() >= int64(len(big)) {
		return fmt.Errorf("%d bytes fit", w.Offset())
	}
	if err := w.Close(); err != nil {
		return err
	}
	// Nothing works that needs room, and nothing breaks.
	other := newContent()
	d := other.index(other.image("linux/amd64", other.layer(string(noise(100_000)))), other.image("linux/arm64"))
	if _, err := add(ctx, s, other, debian, "other", d.Digest, false); err == nil {
		return errors.New("published on a full disk")
	}
	if checked, err := s.Verify(ctx, nil, nil); err != nil || len(checked.Damage) > 0 {
		return fmt.Errorf("full: %+v, %w", checked, err)
	}
	if _, err := s.Pin(ctx, debian, "bookworm"); err != nil {
		return err
	}
	// The partial download is what can go.
	if err := os.Remove(w.file.Name()); err != nil {
		return err
	}
	if _, err := add(ctx, s, other, debian, "other", d.Digest, false); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if checked, err := s.Verify(ctx, nil, nil); err != nil || len(checked.Damage) > 0 {
		return fmt.Errorf("afterwards: %+v, %w", checked, err)
	}
	return s.Close()
}

// roleCrowded opens a store where only some of its files find room.
func roleCrowded(ctx context.Context, dir string) error {
	for files := 1; ; files++ {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("nr_inodes=%d", files)); err != nil {
			return err
		}
		s, err := Open(ctx, dir)
		if err == nil {
			return s.Close()
		}
		if !IsFull(err) {
			return fmt.Errorf("with room for %d files: %w", files, err)
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			return err
		}
	}
}

func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, role := range []string{"full", "crowded"} {
		cmd := child(t, role, t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", role, err, out)
		}
	}
}

// Who waits for a process that was stopped hears that, and how to end it.
func TestStoppedMessage(t *testing.T) {
	s := newStore(t)
	cmd := child(t, "lock", s.dir)
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	must[string](t)(bufio.NewReader(out).ReadString('\n'))
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := s.hasty.Exec("PRAGMA busy_timeout = 100"); err != nil {
		t.Fatal(err)
	}
	_, err := s.NewLease(t.Context())
	want := fmt.Sprintf("process %d (store.test), which is stopped: let it go on (kill -CONT %[1]d) or end it", cmd.Process.Pid)
	if !errors.Is(err, ErrLocked) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want ... %s", err, want)
	}
}
