package cmd

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes remembers each write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

func (w *writes) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := strings.Join(w.all, "|")
	w.all = nil
	return all
}

func TestLineBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out writes
		b := newLineBuffer(&out)
		write := func(lines ...string) {
			for _, line := range lines {
				if n, err := b.Write([]byte(line)); n != len(line) || err != nil {
					t.Fatal(n, err)
				}
			}
		}
		want := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := out.take(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		write("1\n", "2\n", "3\n")
		want(0, "1\n") // a first line at once
		want(gatherTime, "2\n3\n")
		write("4\n")
		want(gatherTime-time.Millisecond, "")
		want(time.Millisecond, "4\n")
		want(gatherTime, "") // a pause
		write("5\n", "6\n")
		want(0, "5\n")
		if err := b.Flush(); err != nil {
			t.Fatal(err)
		}
		want(0, "6\n")
		want(2*gatherTime, "")

		long := strings.Repeat("x", gatherSize-1) + "\n"
		write("7\n", "8\n", long)
		want(0, "7\n|8\n"+long) // no more than that waits
		want(2*gatherTime, "")
	})
}
