package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func listed(pins []Listed) (names []string) {
	for _, pin := range pins {
		names = append(names, pin.Name())
	}
	return names
}

func TestList(t *testing.T) {
	s := newStore(t)
	roots := map[string]digest.Digest{}
	for i, tag := range []string{"9", "10", "11"} {
		c := numbered(i)
		roots[tag] = c.manifests[len(c.manifests)-1].Digest
		mustAdd(t, s, c, debian, tag, roots[tag])
	}
	app := Repository{Registry: "ghcr.io", Path: "owner/app_1"}
	c := numbered(7)
	mustAdd(t, s, c, app, "Latest", c.manifests[len(c.manifests)-1].Digest)

	at := time.Unix(1_700_000_000, 0).UTC()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.RecordUsage(t.Context(), []Usage{
		{debian, "10", 2, at}, {debian, "9", 1, at.Add(time.Hour)}, {debian, "nobody's", 1, at},
	}))
	check(s.RecordUsage(t.Context(), []Usage{{debian, "10", 3, at.Add(-time.Hour)}}))
	check(s.RecordStandings(t.Context(), []Standing{
		{debian, "9", at, "vanished", ""}, {debian, "10", at, "moved", roots["9"]}, {debian, "nobody's", at, "moved", ""},
	}))
	const all = "docker.io/library/debian:10 docker.io/library/debian:11 docker.io/library/debian:9 ghcr.io/owner/app_1:Latest"
	for _, tt := range []struct {
		name  string
		query Query
		want  string
		total int
	}{
		{"all", Query{Limit: 10}, all, 4},
		{"first two", Query{Limit: 2}, "docker.io/library/debian:10 docker.io/library/debian:11", 4},
		{"next two", Query{Limit: 2, Offset: 2}, "docker.io/library/debian:9 ghcr.io/owner/app_1:Latest", 4},
		{"word", Query{Search: "debian:1", Limit: 10}, "docker.io/library/debian:10 docker.io/library/debian:11", 2},
		{"words, any case", Query{Search: "  latest  GHCR ", Limit: 10}, "ghcr.io/owner/app_1:Latest", 1},
		{"a letter that LIKE knows", Query{Search: "app_1", Limit: 10}, "ghcr.io/owner/app_1:Latest", 1},
		{"which is itself alone", Query{Search: "debian_9", Limit: 10}, "", 0},
		{"percent", Query{Search: "%", Limit: 10}, "", 0},
		{"quote", Query{Search: "'", Limit: 10}, "", 0},
		{"digest", Query{Search: roots["11"].String()[:20], Limit: 10}, "docker.io/library/debian:11", 1},
		{"digest as people copy it", Query{Search: roots["11"].Encoded()[:12], Limit: 10}, "docker.io/library/debian:11", 1},
		{"moved", Query{State: "moved", Limit: 10}, "docker.io/library/debian:10", 1},
		{"most used", Query{Order: ByHits, Limit: 1}, "docker.io/library/debian:10", 4},
		{"last used", Query{Order: ByUsed, Limit: 1}, "docker.io/library/debian:9", 4},
		{"an order that nobody knows", Query{Order: "1; DROP TABLE pin", Limit: 10}, all, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pins, total, err := s.List(t.Context(), tt.query)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(listed(pins)); got != "["+tt.want+"]" || total != tt.total {
				t.Errorf("List = %s of %d, want [%s] of %d", got, total, tt.want, tt.total)
			}
		})
	}
	pins, _, err := s.List(t.Context(), Query{Limit: 3})
	check(err)
	if u := pins[0].Usage; u.Hits != 5 || !u.Last.Equal(at) {
		t.Errorf("usage of debian:10 = %d hits until %v, want 5 until %v", u.Hits, u.Last, at)
	}
	if st := pins[0].Standing; st.State != "moved" || st.Now != roots["9"] || !st.At.Equal(at) {
		t.Errorf("standing of debian:10 = %+v", st)
	}
	if !pins[1].Usage.Last.IsZero() || !pins[1].Standing.At.IsZero() {
		t.Errorf("debian:11 was neither used nor asked for: %+v", pins[1])
	}
	states, err := s.States(t.Context())
	check(err)
	if states["moved"] != 1 || states["vanished"] != 1 || states[""] != 2 {
		t.Errorf("states = %v", states)
	}
	registries, err := s.Registries(t.Context())
	check(err)
	if !slices.Equal(registries, []string{"docker.io", "ghcr.io"}) {
		t.Errorf("registries = %q", registries)
	}
	totals, err := s.Totals(t.Context())
	check(err)
	if totals.Pins != 4 || totals.Blobs != count(t, s, "SELECT count(*) FROM blob") || totals.Bytes <= 0 {
		t.Errorf("totals = %+v", totals)
	}
}

// What is known of a reference goes with its pin, and what an upstream said with
// the digest that it was said of.
func TestRemoveForgets(t *testing.T) {
	s := newStore(t)
	old, root := debianImage()
	mustAdd(t, s, old, debian, "12", root.Digest)
	record := func() {
		t.Helper()
		if err := s.RecordUsage(t.Context(), []Usage{{debian, "12", 1, time.Now()}}); err != nil {
			t.Fatal(err)
		}
		if err := s.RecordStandings(t.Context(), []Standing{{debian, "12", time.Now(), "moved", ""}}); err != nil {
			t.Fatal(err)
		}
	}
	record()
	moved := numbered(1)
	to := moved.manifests[len(moved.manifests)-1].Digest
	if _, err := add(t.Context(), s, moved, debian, "12", to, true); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "SELECT count(*) FROM standing"); n != 0 {
		t.Errorf("%d standings after the pin moved", n)
	}
	if n := count(t, s, "SELECT count(*) FROM usage"); n != 1 {
		t.Errorf("%d usages after the pin moved, want that of the reference", n)
	}
	record()
	if _, _, err := s.Remove(WithNote(t.Context(), "by hand"), debian, "12"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "SELECT (SELECT count(*) FROM standing) + (SELECT count(*) FROM usage)"); n != 0 {
		t.Errorf("%d rows are left of a removed pin", n)
	}
	events, err := s.History(t.Context(), 10, Pin{Repository: debian, Reference: "12"})
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range events {
		actions = append(actions, e.Action+" "+e.Note)
	}
	if want := []string{"remove by hand", "move ", "pin "}; !slices.Equal(actions, want) {
		t.Errorf("history = %q, want %q", actions, want)
	}
}
