package store

import (
	"slices"
	"testing"
	"time"
)

func TestPrune(t *testing.T) {
	s := newStore(t)
	for i, tag := range []string{"never", "long-ago", "lately"} {
		c := numbered(i)
		mustAdd(t, s, c, debian, tag, c.manifests[len(c.manifests)-1].Digest)
	}
	c, root := debianImage()
	mustAdd(t, s, c, debian, "one", root.Digest)
	mustAdd(t, s, c, debian, "two", root.Digest)
	if _, err := s.writer.Exec("UPDATE pin SET pinned_at = 1000"); err != nil {
		t.Fatal(err)
	}
	use := func(tag string, at int64) {
		t.Helper()
		if err := s.RecordUsage(t.Context(), []Usage{{debian, tag, 1, time.Unix(at, 0)}}); err != nil {
			t.Fatal(err)
		}
	}
	use("long-ago", 2000)
	use("lately", 9000)
	use("one", 3000)
	use("two", 4000)

	idle, err := s.Idle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, i := range idle {
		order = append(order, i.Reference)
	}
	if want := []string{"never", "long-ago", "one", "two", "lately"}; !slices.Equal(order, want) {
		t.Fatalf("idle = %q, want %q", order, want)
	}

	// What would happen is what happens: the two names of one image free it with
	// the second.
	before := onDisk(t, s.dir)
	until := time.Unix(5000, 0)
	next := func(i Idle, _ Freed) bool { return i.Since.Before(until) }
	would, wouldFree, err := s.Prune(t.Context(), idle, next, true)
	if err != nil {
		t.Fatal(err)
	}
	if after := onDisk(t, s.dir); len(after) != len(before) || count(t, s, "SELECT count(*) FROM pin") != 5 || count(t, s, "SELECT count(*) FROM history WHERE action = 'remove'") != 0 {
		t.Fatal("looking has changed something")
	}
	use("never", 8000) // after it was listed
	again, againFree, err := s.Prune(t.Context(), idle, next, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(again) != len(would)-1 || againFree.Blobs >= wouldFree.Blobs {
		t.Errorf("%d would go, %+v, before one was used, and %d, %+v, after", len(would), wouldFree, len(again), againFree)
	}
	removed, freed, err := s.Prune(WithNote(t.Context(), "gc"), idle, next, false)
	if err != nil {
		t.Fatal(err)
	}
	if freed != againFree || !slices.Equal(removed, again) {
		t.Errorf("removed %v, %+v; would have %v, %+v", removed, freed, again, againFree)
	}
	left, err := s.Idle(t.Context())
	if err != nil || len(left) != 2 || left[0].Reference != "never" || left[1].Reference != "lately" {
		t.Errorf("left %v, %v", left, err)
	}
	if n := count(t, s, "SELECT count(*) FROM history WHERE action = 'remove' AND note = 'gc'"); n != 3 {
		t.Errorf("%d removals in the history, want 3", n)
	}
	checkClean(t, s)
}

func TestRecordingSince(t *testing.T) {
	s := newStore(t)
	if since, err := s.RecordingSince(t.Context()); err != nil || !since.IsZero() {
		t.Fatalf("at first: %v, %v", since, err)
	}
	if err := s.StartRecording(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.Exec("UPDATE recording SET since = 1000"); err != nil {
		t.Fatal(err)
	}
	if err := s.StartRecording(t.Context()); err != nil {
		t.Fatal(err)
	}
	if since, err := s.RecordingSince(t.Context()); err != nil || since.Unix() != 1000 || count(t, s, "SELECT count(*) FROM recording") != 1 {
		t.Errorf("a second start moved it to %v, %v", since, err)
	}
}
