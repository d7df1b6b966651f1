package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// scrubPass runs a scrub until the end of a pass, or until stop is true for a
// blob that was found damaged.
func scrubPass(t *testing.T, s *Store, scrub Scrub) (began digest.Digest, checked Checked) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := scrub.Found
	scrub.Began = func(_ int, _ int64, after digest.Digest) { began = after }
	scrub.Found = func(d Damage) {
		checked.Damage = append(checked.Damage, d)
		if found != nil {
			found(d)
			cancel()
		}
	}
	scrub.Ended = func(c Checked, _ time.Duration) { checked = c; cancel() }
	if err := s.Scrub(ctx, scrub); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return began, checked
}

// imageOf adds an image of n layers and returns the digests that it reaches, sorted.
func imageOf(t *testing.T, s *Store, n int) (Pin, []digest.Digest) {
	t.Helper()
	c := newContent()
	var layers []v1.Descriptor
	for i := range n {
		layers = append(layers, c.layer(fmt.Sprint("layer ", i)))
	}
	pin := mustAdd(t, s, c, debian, "12", c.image("linux/amd64", layers...).Digest)
	var all []digest.Digest
	for d := range must[map[digest.Digest]int64](t)(reachable(t.Context(), s.reader, pin.Digest)) {
		all = append(all, d)
	}
	slices.Sort(all)
	return pin, all
}

func TestScrub(t *testing.T) {
	s := newStore(t)
	pin, all := imageOf(t, s, 20)
	ro := must[*Store](t)(OpenReadOnly(t.Context(), s.dir))
	defer ro.Close()
	if _, checked := scrubPass(t, ro, Scrub{Period: time.Hour}); checked.Blobs != len(all) || len(checked.Damage) != 0 {
		t.Errorf("a clean store: %+v", checked)
	}
	// The next pass is due in an hour, also for another process.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Scrub(ctx, Scrub{Period: time.Hour, Began: func(int, int64, digest.Digest) { t.Error("began too early") }}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}

	damage(t, s, all[3], func(b []byte) []byte { b[0] ^= 1; return b })
	damage(t, s, all[10], func(b []byte) []byte { return b[:len(b)-1] })
	// Stopped when it finds the first, the next process goes on there.
	after, checked := scrubPass(t, ro, Scrub{Period: time.Millisecond, Found: func(Damage) {}})
	if after != "" || len(checked.Damage) != 1 || checked.Damage[0].Digest != all[3] || checked.Damage[0].Pins[0].Name() != pin.Name() {
		t.Errorf("from %s: %+v", after, checked)
	}
	after, checked = scrubPass(t, s, Scrub{Period: time.Hour})
	if after != all[3] || checked.Blobs != len(all)-4 || len(checked.Damage) != 1 || checked.Damage[0].Digest != all[10] {
		t.Errorf("from %s: %+v", after, checked)
	}
	for _, d := range []digest.Digest{all[3], all[10]} {
		if _, _, err := ro.Blob(t.Context(), debian, d); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s is served: %v", d, err)
		}
	}
}

// What is written in the place of the place is the beginning.
func TestScrubPlace(t *testing.T) {
	s := newStore(t)
	_, all := imageOf(t, s, 3)
	begun := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	for text, want := range map[string]digest.Digest{
		"": "", "x": "", "x y z": "", begun: "", begun + " x": "", "2999-01-01T00:00:00Z " + all[1].String(): "",
		begun + " " + all[1].String(): all[1],
	} {
		if err := os.WriteFile(filepath.Join(s.dir, "scrub"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if after, _ := scrubPass(t, s, Scrub{Period: time.Hour}); after != want {
			t.Errorf("%q: began after %q", text, after)
		}
	}
}

// The rate is what the period asks for, and a quarter of it beside other work.
func TestPace(t *testing.T) {
	busy := false
	p := newPace(t.Context(), Scrub{Period: time.Second, Busy: func() bool { return busy }, floor: 1}, 100<<20, time.Second)
	if p.rate != 100<<20 {
		t.Errorf("rate is %v", p.rate)
	}
	p.began = p.began.Add(time.Hour) // it is early
	measure := func() time.Duration {
		began := time.Now()
		if err := p.wait(1 << 20); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	if took := measure(); took < 10*time.Millisecond {
		t.Errorf("1 MiB at 100 MiB/s took %v", took)
	}
	busy = true
	if took := measure(); took < 40*time.Millisecond {
		t.Errorf("1 MiB at a quarter of 100 MiB/s took %v", took)
	}
	if p := newPace(t.Context(), Scrub{Period: time.Hour}, 1, time.Hour); p.rate != scrubFloor {
		t.Errorf("the lowest rate is %v", p.rate)
	}
}
