package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestMain lets the test binary be another process: one to share a store with,
// or to kill.
func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv("STORE_TEST_ROLE")]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(context.Background(), os.Getenv("STORE_TEST_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var roles = map[string]func(context.Context, string) error{
	"open":  roleOpen,
	"churn": roleChurn,
	"write": roleWrite,
	"lock":  roleLock,
}

func child(t testing.TB, role, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), must[string](t)(os.Executable()))
	cmd.Env = append(os.Environ(), "STORE_TEST_ROLE="+role, "STORE_TEST_DIR="+dir,
		"GORACE=atexit_sleep_ms=0") // or the race detector makes each child last a second
	return cmd
}

func roleOpen(ctx context.Context, dir string) error {
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	_, err = s.Pins(ctx)
	return errors.Join(err, s.Close())
}

// roleChurn publishes and removes random images until it is killed, and tells
// on standard output what is done: "+ repository tag digest", "? repository tag"
// before a pin is removed or moved, whose fate is unknown from then on.
func roleChurn(ctx context.Context, dir string) error {
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	l, err := s.NewLease(ctx)
	if err != nil {
		return err
	}
	for {
		repo := Repository{"docker.io", fmt.Sprintf("library/r%d", r.IntN(2))}
		tag := fmt.Sprintf("v%d", r.IntN(6))
		fmt.Printf("? %s %s\n", repo.Path, tag)
		switch r.IntN(6) {
		case 0, 1:
			if _, _, err := s.Remove(ctx, repo, tag); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		case 2:
			if _, err := s.Collect(ctx, 0); err != nil {
				return err
			}
			if err := l.Close(); err != nil {
				return err
			}
			if l, err = s.NewLease(ctx); err != nil {
				return err
			}
		default:
			c, root := randomContent(r)
			for range 2 {
				c.layer(string(noise(r.IntN(200_000)))) // which nothing lists
			}
			if err := c.put(ctx, l); err != nil {
				return err
			}
			pin, err := l.Publish(ctx, c.at(repo, tag, root.Digest), true)
			if err != nil {
				return err
			}
			fmt.Printf("+ %s %s %s\n", repo.Path, tag, pin.Digest)
		}
	}
}

func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	done := map[string]string{} // what was reported: repository and tag -> digest
	kills, reported := 30, 0
	if testing.Short() {
		kills = 5
	}
	for range kills {
		cmd := child(t, "churn", dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(50*time.Millisecond+rand.N(200*time.Millisecond), func() { cmd.Process.Kill() })
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // the last line may have been cut short
			}
			fields := strings.Fields(line)
			key := fields[1] + ":" + fields[2]
			delete(done, key)
			if fields[0] == "+" {
				done[key] = fields[3]
				reported++
			}
		}
		if cmd.Wait(); timer.Stop() {
			t.Fatalf("the child ended by itself: %s", stderr.String())
		}

		s := must[*Store](t)(Open(t.Context(), dir))
		checkClean(t, s)
		for key, d := range done {
			path, tag, _ := strings.Cut(key, ":")
			pin, err := s.Pin(t.Context(), Repository{"docker.io", path}, tag)
			if err != nil || pin.Digest.String() != d {
				t.Errorf("%s was pinned to %s: %s, %v", key, d, pin.Digest, err)
				continue
			}
			if checked, err := s.Verify(t.Context(), []Pin{pin}, nil); err != nil || len(checked.Damage) > 0 || checked.Blobs == 0 {
				t.Errorf("%s: %+v, %v", key, checked, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, %d pins reported", kills, reported)

	// Nothing of it all stays when the pins go.
	s := open(t, dir)
	for _, pin := range must[[]Pin](t)(s.Pins(t.Context())) {
		if _, _, err := s.Remove(t.Context(), pin.Repository, pin.Reference); err != nil {
			t.Fatal(err)
		}
	}
	must[Freed](t)(s.Collect(t.Context(), 0))
	if files := onDisk(t, dir); len(files) > 4 { // lock, index.db, -wal, -shm
		t.Errorf("left: %v", files)
	}
}

// roleWrite writes one blob and says how.
func roleWrite(ctx context.Context, dir string) error {
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := s.NewLease(ctx)
	if err != nil {
		return err
	}
	b := noise(2 << 20)
	w, err := l.Writer(ctx, v1.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))})
	if errors.Is(err, ErrExists) {
		fmt.Println("found")
		return nil
	}
	if err != nil {
		return err
	}
	for off := w.Offset(); off < int64(len(b)); off += 64 << 10 {
		if _, err := w.Write(b[off:min(off+64<<10, int64(len(b)))]); err != nil {
			return err
		}
	}
	fmt.Println("wrote")
	return errors.Join(w.Commit(ctx), w.Close())
}

func TestProcessesWriteOneDigest(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	var group sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for range 4 {
		group.Go(func() {
			out, err := child(t, "write", dir).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			got[strings.TrimSpace(string(out))]++
		})
	}
	group.Wait()
	if got["wrote"] != 1 || got["found"] != 3 {
		t.Errorf("%v", got)
	}
}

// roleLock begins a write transaction and does not end it.
func roleLock(ctx context.Context, dir string) error {
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	if _, err := begin(ctx, s.writer); err != nil {
		return err
	}
	fmt.Println("locked")
	select {}
}

// Another process that was stopped in the middle of a transaction must not keep
// an interrupted command from ending, nor readers from reading.
func TestInterruptWhileLocked(t *testing.T) {
	s := newStore(t)
	c, root := debianImage()
	mustAdd(t, s, c, debian, "bookworm", root.Digest)
	cmd := child(t, "lock", s.dir)
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := s.Remove(ctx, debian, "bookworm"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("removed: %v", err)
	}
	if _, err := s.Manifest(t.Context(), debian, "bookworm"); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if _, _, err := s.Remove(t.Context(), debian, "bookworm"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
