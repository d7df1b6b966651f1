package page

import (
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"mirrorctl/store"
)

// admin knows one user, as a server with basic authentication does.
func admin(w http.ResponseWriter, r *http.Request) (string, bool) {
	user, password, _ := r.BasicAuth()
	if password == "secret" && (user == "alice" || user == "bob") {
		return user, true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="mirrorctl"`)
	http.Error(w, "log in", http.StatusUnauthorized)
	return "", false
}

func TestRemove(t *testing.T) {
	b := newBuilder(t)
	pin := b.image(debian, "12", "RUN a")
	other := b.image(debian, "11", "RUN b")
	srv := b.serve(Options{Admin: admin})
	client := srv.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	address := func(pin store.Pin) string { return srv.URL + "/-/remove/" + pin.Name() }
	do := func(method, target, user string, form url.Values, header ...string) (*http.Response, string) {
		t.Helper()
		req := must(http.NewRequest(method, target, strings.NewReader(form.Encode())))
		if form != nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if user != "" {
			req.SetBasicAuth(user, "secret")
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res := must(client.Do(req))
		defer res.Body.Close()
		var text strings.Builder
		if _, err := io.Copy(&text, res.Body); err != nil {
			t.Fatal(err)
		}
		return res, text.String()
	}
	token := func(pin store.Pin, user string) string {
		t.Helper()
		res, text := do("GET", address(pin), user, nil)
		found := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(text)
		if res.StatusCode != 200 || found == nil {
			t.Fatalf("no form: %s\n%s", res.Status, text)
		}
		return html.UnescapeString(found[1])
	}
	mustHave(t, getRaw(t, srv, imageURL(pin.Name()), 200), "/-/remove/docker.io/library/debian:12")

	good := token(pin, "alice")
	for _, tt := range []struct {
		name, user string
		form       url.Values
		header     []string
		want       int
	}{
		{"no login", "", url.Values{"token": {good}}, nil, 401},
		{"no token", "alice", url.Values{}, nil, 403},
		{"a made-up token", "alice", url.Values{"token": {strings.Repeat("0", 64)}}, nil, 403},
		{"another user's token", "bob", url.Values{"token": {good}}, nil, 403},
		{"another image's token", "alice", url.Values{"token": {token(other, "alice")}}, nil, 403},
		{"from another site", "alice", url.Values{"token": {good}}, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"from another origin", "alice", url.Values{"token": {good}}, []string{"Origin", "https://evil.example"}, 403},
		{"a body without end", "alice", url.Values{"x": {strings.Repeat("x", 10_000)}, "token": {good}}, nil, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, text := do("POST", address(pin), tt.user, tt.form, tt.header...)
			if res.StatusCode != tt.want {
				t.Errorf("%s, want %d\n%s", res.Status, tt.want, text)
			}
			if _, err := b.store.Pin(t.Context(), debian, "12"); err != nil {
				t.Fatalf("the pin is gone: %v", err)
			}
		})
	}
	if res, _ := do("GET", address(pin)+"?token="+good, "alice", nil); res.StatusCode != 200 {
		t.Errorf("GET: %s", res.Status)
	}
	if _, err := b.store.Pin(t.Context(), debian, "12"); err != nil {
		t.Fatalf("a GET removed the pin: %v", err)
	}

	res, _ := do("POST", address(pin), "alice", url.Values{"token": {good}}, "Sec-Fetch-Site", "same-origin")
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/?removed=docker.io%2Flibrary%2Fdebian%3A12" {
		t.Fatalf("%s to %s", res.Status, res.Header.Get("Location"))
	}
	if _, err := b.store.Pin(t.Context(), debian, "12"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the pin after it was removed: %v", err)
	}
	events, err := b.store.History(t.Context(), 1, pin)
	if err != nil || len(events) != 1 || events[0].Note != "removed on the page by alice" {
		t.Errorf("history: %+v, %v", events, err)
	}
	mustHave(t, get(t, srv, res.Header.Get("Location"), 200), "docker.io/library/debian:12 was removed", "docker.io/library/debian:11")
	if res, _ := do("POST", address(pin), "alice", url.Values{"token": {good}}); res.StatusCode != 404 {
		t.Errorf("a second time: %s", res.Status)
	}
}
