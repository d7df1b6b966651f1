package access

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// hash is quick and therefore weak.
func hash(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func users(t testing.TB, logins ...string) *Users {
	t.Helper()
	var text strings.Builder
	for _, login := range logins {
		user, password, _ := strings.Cut(login, ":")
		text.WriteString(user + ":" + hash(t, password) + "\n")
	}
	u, err := ParseUsers("htpasswd", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParseUsers(t *testing.T) {
	good := hash(t, "x")
	for text, want := range map[string]string{
		"":                   "htpasswd: no users; htpasswd -B adds one",
		"# nobody\n\n":       "htpasswd: no users",
		"ann:" + good:        "",
		"ann:$2y" + good[3:]: "", // as Apache's htpasswd writes it
		"ann:" + good + "\r\n# c\n\nbob:" + good + "\n": "",
		"ann":                                   "htpasswd:1: must be USER:HASH",
		":" + good:                              "htpasswd:1: must be USER:HASH",
		"ann:$apr1$abc$0123456789abcdefghijk":   "htpasswd:1: user ann: the hash is not one of bcrypt; make it with htpasswd -B",
		"ann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=": "htpasswd:1: user ann: the hash is not one of bcrypt",
		"ann:swordfish":                         "htpasswd:1: user ann: the hash is not one of bcrypt",
		"ann:" + good[:50]:                      "htpasswd:1: user ann: the bcrypt hash is damaged",
		"ann:$2a$99" + good[6:]:                 "htpasswd:1: user ann: the bcrypt hash is damaged",
		"ann:$2a$16" + good[6:]:                 "htpasswd:1: user ann: bcrypt's cost is 16, more than 15",
		"ann:" + good + "\nann:" + good:         "htpasswd:2: user ann is there twice",
	} {
		_, err := ParseUsers("htpasswd", []byte(text))
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "swordfish") || strings.Contains(err.Error(), good[10:20])) {
			t.Errorf("shows the hash: %v", err)
		}
	}
	_, err := ParseUsers("htpasswd", []byte("a\nb:c\n"))
	if err == nil || !strings.Contains(err.Error(), ":1:") || !strings.Contains(err.Error(), ":2:") {
		t.Errorf("not all mistakes: %v", err)
	}
}

func TestCheck(t *testing.T) {
	u := users(t, "ann:swordfish", "bob:hunter2")
	for range 2 { // checked, and remembered
		for login, want := range map[string]bool{
			"ann:swordfish": true, "bob:hunter2": true,
			"ann:hunter2": false, "bob:swordfish": false, "eve:swordfish": false,
			"ann:": false, "annswordfish:": false, "an:nswordfish": false,
			"ann:" + strings.Repeat("x", 100): false,
		} {
			user, password, _ := strings.Cut(login, ":")
			if got, err := u.Check(t.Context(), user, password); got != want || err != nil {
				t.Errorf("%s: %v, %v", login, got, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u.turns <- struct{}{} // somebody else's
	for len(u.turns) < cap(u.turns) {
		u.turns <- struct{}{}
	}
	if _, err := u.Check(ctx, "ann", "new"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if ok, err := u.Check(ctx, "ann", "swordfish"); !ok || err != nil {
		t.Errorf("who is known has to wait: %v", err)
	}
	for range cap(u.waiting) {
		u.waiting <- struct{}{}
	}
	if _, err := u.Check(t.Context(), "ann", "new"); !errors.Is(err, errBusy) {
		t.Errorf("got %v", err)
	}
}

// TestRemembered holds that guesses neither fill the memory nor make the mirror
// forget who is known.
func TestRemembered(t *testing.T) {
	u := users(t, "ann:swordfish")
	if ok, _ := u.Check(t.Context(), "ann", "swordfish"); !ok {
		t.Fatal("refused")
	}
	var all sync.WaitGroup
	for half := range 2 {
		all.Go(func() {
			for i := range maxRemembered {
				u.remember([32]byte{byte(half), byte(i), byte(i >> 8)}, false)
			}
		})
	}
	all.Wait()
	if len(u.remembered) > maxRemembered {
		t.Errorf("%d are remembered", len(u.remembered))
	}
	known := 0
	for _, right := range u.remembered {
		if right {
			known++
		}
	}
	if known != 1 {
		t.Errorf("%d logins are known", known)
	}
}

func FuzzParseUsers(f *testing.F) {
	f.Add([]byte("ann:" + hash(f, "x") + "\n"))
	f.Add([]byte("# c\nann:$2y$05$abc\nbob\n:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if u, err := ParseUsers("f", text); err == nil && len(u.hashes) == 0 {
			t.Error("no users and no error")
		}
	})
}

// BenchmarkCheck is what a request with a known login costs.
func BenchmarkCheck(b *testing.B) {
	u := users(b, "ann:swordfish")
	for b.Loop() {
		if ok, err := u.Check(b.Context(), "ann", "swordfish"); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
