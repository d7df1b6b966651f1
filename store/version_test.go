package store

import (
	"testing"
)

func TestVersion(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	ro := must[*Store](t)(OpenReadOnly(ctx, s.dir))
	defer ro.Close()
	c, root := debianImage()
	last := must[int64](t)(ro.Version(ctx))
	own := must[int64](t)(s.Version(ctx))
	changes := []func(){
		func() { mustAdd(t, s, c, debian, "bookworm", root.Digest) },
		func() { must[Pin](t)(s.PinPublished(ctx, debian, "12", root.Digest, false)) },
		func() {
			if _, _, err := s.Remove(ctx, debian, "12"); err != nil {
				t.Fatal(err)
			}
		},
	}
	for i, change := range changes {
		if again := must[int64](t)(ro.Version(ctx)); again != last {
			t.Errorf("%d: without a change the version went from %d to %d", i, last, again)
		}
		change()
		now := must[int64](t)(ro.Version(ctx))
		if now == last {
			t.Errorf("%d: a change is not seen", i)
		}
		last = now
		if now := must[int64](t)(s.Version(ctx)); now == own {
			t.Errorf("%d: a change of its own is not seen", i)
		} else {
			own = now
		}
	}
	// Another connection counts from a number of its own, which must not be
	// taken for the same version.
	ro.version.mu.Lock()
	ro.version.close()
	ro.version.mu.Unlock()
	if now := must[int64](t)(ro.Version(ctx)); now == last {
		t.Errorf("on another connection the version is the same")
	}
}

func BenchmarkVersion(b *testing.B) {
	s := newStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Version(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
