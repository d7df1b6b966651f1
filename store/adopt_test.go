package store

import (
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A file that the index does not know is taken in and held, and one that is not
// what its name says is removed.
func TestAdopt(t *testing.T) {
	s := newStore(t)
	l := newLease(t, s)
	good, bad := []byte("left by a crash"), digest.FromString("something else")
	for d, content := range map[digest.Digest][]byte{digest.FromBytes(good): good, bad: good} {
		if err := os.WriteFile(s.blobPath(d), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		what   string
		digest digest.Digest
		want   bool
	}{
		{"nothing there", digest.FromString("not here"), false},
		{"something else", bad, false},
		{"left by a crash", digest.FromBytes(good), true},
		{"again", digest.FromBytes(good), true},
	} {
		if err := l.Adopt(t.Context(), tt.digest); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
		if got := must[bool](t)(s.Has(t.Context(), tt.digest)); got != tt.want {
			t.Errorf("%s: in the index %v, want %v", tt.what, got, tt.want)
		}
	}
	if _, err := os.Stat(s.blobPath(bad)); err == nil {
		t.Error("the bad file is still there")
	}
	must[Freed](t)(s.Collect(t.Context(), 0))
	if there := must[bool](t)(s.Has(t.Context(), digest.FromBytes(good))); !there {
		t.Error("what was adopted is not held")
	}
}
