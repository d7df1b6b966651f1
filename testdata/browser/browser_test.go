// Package browser looks at the pages of mirrorctl serve with a real browser:
// Debian's chromium. It is a module of its own, because chromedp is no part of
// mirrorctl.
package browser

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// mirror is a running mirrorctl serve.
type mirror struct {
	url string
}

// build returns the program: that in MIRRORCTL, or one made of this tree.
func build(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("MIRRORCTL"); program != "" {
		return program
	}
	program := filepath.Join(t.TempDir(), "mirrorctl")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func start(t *testing.T, upstream *registry, args ...string) mirror {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "mirrorctl.toml")
	text := fmt.Sprintf("[registry.\"docker.io\"]\nurl = %q\n", upstream.server.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	args = append([]string{"--store", filepath.Join(dir, "store"), "--config", config, "serve", "--listen", address, "--pull-through", "docker.io", "--grace", "1s"}, args...)
	cmd := exec.Command(build(t), args...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	m := mirror{"http://" + address}
	for range 200 {
		if res, err := http.Get(m.url + "/v2/"); err == nil {
			res.Body.Close()
			return m
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the mirror does not answer")
	return m
}

// pull asks for a tag, so that the mirror pins it.
func (m mirror) pull(t *testing.T, repository, tag string) {
	t.Helper()
	res, err := http.Get(m.url + "/v2/" + repository + "/manifests/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
		t.Fatalf("pull: %s, %v", res.Status, err)
	}
}

// window opens a browser. What its console says, and requests to others than the
// mirror, fail the test.
func window(t *testing.T, m mirror) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1200, 900))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	chromedp.ListenTarget(ctx, func(event any) {
		switch event := event.(type) {
		case *log.EventEntryAdded:
			if event.Entry.Level == log.LevelError && !strings.Contains(event.Entry.Text, "401") {
				t.Errorf("the browser says: %s %s", event.Entry.Text, event.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(event.Request.URL, m.url) {
				t.Errorf("the page asks for %s", event.Request.URL)
			}
		}
	})
	run(t, ctx, log.Enable(), network.Enable())
	return ctx
}

func run(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// picture keeps a screenshot in the folder that MIRRORCTL_SCREENSHOTS names.
func picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("MIRRORCTL_SCREENSHOTS")
	if dir == "" {
		return
	}
	var image []byte
	run(t, ctx, chromedp.FullScreenshot(&image, 100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), image, 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	var s string
	run(t, ctx, chromedp.Text(selector, &s, chromedp.ByQuery))
	return s
}

// until waits for a condition on the page, in its own words. An error may be that
// the page is just another one.
func until(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	var ok bool
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = chromedp.Run(ctx, chromedp.Evaluate("Boolean("+expression+")", &ok)); ok && err == nil {
			return
		}
	}
	t.Fatalf("waiting for %s: %v; the page says:\n%s", expression, err, text(t, ctx, "body"))
}

func TestPages(t *testing.T) {
	upstream := newRegistry(t)
	upstream.image("library/debian", "bookworm", map[string]int{
		"# debian.sh --arch 'amd64' out/ 'bookworm' '@1763337600'": 48_000,
	}, "# debian.sh --arch 'amd64' out/ 'bookworm' '@1763337600'")
	upstream.image("library/python", "3.13-slim", map[string]int{
		"# debian.sh --arch 'amd64' out/ 'bookworm' '@1763337600'":                              48_000,
		"RUN /bin/sh -c apt-get update && apt-get install -y ca-certificates tzdata # buildkit": 21_000,
		"RUN /bin/sh -c wget -O python.tar.xz https://www.python.org/ftp/python # buildkit":     34_000,
		"CMD [\"python3\"]": 250,
	}, "# debian.sh --arch 'amd64' out/ 'bookworm' '@1763337600'",
		"RUN /bin/sh -c apt-get update && apt-get install -y ca-certificates tzdata # buildkit",
		"RUN /bin/sh -c wget -O python.tar.xz https://www.python.org/ftp/python # buildkit", "CMD [\"python3\"]")
	upstream.image("nvidia/cuda", "12.4.1-base", map[string]int{"base": 100, "ADD cuda": 8 << 20}, "base", "ADD cuda")
	m := start(t, upstream)
	for _, name := range []string{"library/debian bookworm", "library/python 3.13-slim"} {
		repository, tag, _ := strings.Cut(name, " ")
		m.pull(t, repository, tag)
	}
	ctx := window(t, m)

	// Both are here after a moment, and a search finds one of them.
	for range 100 {
		run(t, ctx, chromedp.Navigate(m.url+"/"))
		if s := text(t, ctx, "main"); strings.Contains(s, "debian:bookworm") && strings.Contains(s, "python:3.13-slim") && !strings.Contains(s, "Arriving") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	picture(t, ctx, "list-light")
	run(t, ctx, input.DispatchKeyEvent(input.KeyDown).WithKey("/").WithText("/"))
	until(t, ctx, `document.activeElement.id === "q"`)
	run(t, ctx, chromedp.SendKeys("#q", "PYTHON\r", chromedp.ByQuery))
	until(t, ctx, `location.search === "?q=PYTHON" && document.querySelectorAll("table.list tbody tr").length === 1`)

	// The image, its layers and what to copy.
	run(t, ctx, chromedp.Click("table.list tbody a", chromedp.ByQuery))
	until(t, ctx, `document.querySelector("h1")?.textContent === "docker.io/library/python:3.13-slim"`)
	run(t, ctx, chromedp.Evaluate(`document.querySelectorAll("details").forEach((d) => { d.open = true; })`, nil))
	until(t, ctx, `document.querySelectorAll(".layers .bar rect").length === 10 && document.querySelector(".layers .shared") !== null`)
	var widths []float64
	run(t, ctx, chromedp.Evaluate(`[...document.querySelectorAll(".layers")][0] && [...document.querySelectorAll(".layers")[0].querySelectorAll("rect")].map((r) => r.getBoundingClientRect().width)`, &widths))
	if len(widths) != 5 || widths[1] < 1.2*widths[3] || widths[3] < 1.2*widths[2] || widths[2] <= widths[4] {
		t.Errorf("bars are %.1f wide; they should be to the scale of 48, 21, 34 and 0.25 kB after the configuration", widths)
	}
	picture(t, ctx, "image-light")
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		run(t, ctx, browser.SetPermission(&browser.PermissionDescriptor{Name: name}, browser.PermissionSettingGranted).WithOrigin(m.url))
	}
	run(t, ctx, chromedp.Click(".pulls button.copy", chromedp.ByQuery))
	until(t, ctx, `document.querySelector(".pulls button.copy").textContent === "Copied"`)
	var copied string
	run(t, ctx, chromedp.Evaluate(`navigator.clipboard.readText()`, &copied, chromedp.EvalAsValue, awaitPromise))
	if want := "docker pull " + strings.TrimPrefix(m.url, "http://") + "/docker.io/library/python:3.13-slim"; copied != want {
		t.Errorf("copied %q, want %q", copied, want)
	}

	// A transfer moves, without the page being loaded again, and ends.
	run(t, ctx, chromedp.Navigate(m.url+"/"))
	upstream.slow.Store(true)
	m.pull(t, "nvidia/cuda", "12.4.1-base")
	until(t, ctx, `document.querySelector("#arriving .quiet")?.textContent.includes("MB/s")`)
	first := text(t, ctx, "#arriving")
	picture(t, ctx, "live")
	until(t, ctx, fmt.Sprintf(`document.querySelector("#arriving").innerText !== %q`, first))
	upstream.slow.Store(false)
	until(t, ctx, `document.getElementById("live").hidden`)

	// Dark, and narrow: nothing is wider than the window.
	run(t, ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}),
		chromedp.Navigate(m.url+"/-/image/docker.io/library/python:3.13-slim"))
	var background string
	run(t, ctx, chromedp.Evaluate(`getComputedStyle(document.body).backgroundColor`, &background))
	if background != "rgb(20, 23, 27)" {
		t.Errorf("dark mode has the background %s", background)
	}
	run(t, ctx, chromedp.Evaluate(`document.querySelectorAll("details").forEach((d) => { d.open = true; })`, nil))
	picture(t, ctx, "image-dark")
	run(t, ctx, chromedp.EmulateViewport(360, 740))
	for i, path := range []string{"/", "/-/image/docker.io/library/python:3.13-slim", "/-/clients", "/-/clients/containerd"} {
		run(t, ctx, chromedp.Navigate(m.url+path), chromedp.Evaluate(`document.querySelectorAll("details").forEach((d) => { d.open = true; })`, nil))
		var over float64
		run(t, ctx, chromedp.Evaluate(`document.documentElement.scrollWidth - innerWidth`, &over))
		if over > 0 {
			t.Errorf("%s is %.0f pixels wider than a narrow window", path, over)
		}
		picture(t, ctx, fmt.Sprintf("narrow-%d", i))
	}
	run(t, ctx, chromedp.EmulateViewport(1200, 900), chromedp.Navigate(m.url+"/-/clients/containerd"))
	picture(t, ctx, "clients-dark")
}

// Whom --admin names can remove a pin: a question, then it is gone from the list.
func TestRemove(t *testing.T) {
	upstream := newRegistry(t)
	upstream.image("library/debian", "bookworm", map[string]int{"a": 1000}, "a")
	users := filepath.Join(t.TempDir(), "users")
	// The password is robot.
	if err := os.WriteFile(users, []byte("ci:$2a$04$quo.FFpWptp3bweNRY0FKeXXD52kMR85xpYmY6VRLZ4Nd9SNZ.W8e\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, upstream, "--htpasswd", users, "--require-login", "none", "--admin", "ci")
	m.pull(t, "library/debian", "bookworm")
	ctx := window(t, m)
	const image = "docker.io/library/debian:bookworm"
	for range 100 {
		run(t, ctx, chromedp.Navigate(m.url+"/"))
		if strings.Contains(text(t, ctx, "main"), "1 to 1 of 1") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	run(t, ctx, network.SetExtraHTTPHeaders(network.Headers{"Authorization": "Basic Y2k6cm9ib3Q="}),
		chromedp.Click("table.list tbody a", chromedp.ByQuery))
	until(t, ctx, `document.querySelector("h1")?.textContent === "`+image+`"`)
	run(t, ctx, chromedp.Click(".danger a", chromedp.ByQuery))
	until(t, ctx, `document.querySelector("h1")?.textContent === "Remove `+image+`?"`)
	picture(t, ctx, "remove")
	run(t, ctx, chromedp.Click("main button.danger", chromedp.ByQuery))
	until(t, ctx, `document.querySelector(".message")?.textContent === "`+image+` was removed."`)
	if s := text(t, ctx, "main"); !strings.Contains(s, "Nothing is pinned yet") {
		t.Errorf("the list after it was removed:\n%s", s)
	}
}

// A page without scripts shows the same and leads to the same.
func TestWithoutScripts(t *testing.T) {
	upstream := newRegistry(t)
	upstream.image("library/debian", "bookworm", map[string]int{"a": 1000}, "a")
	m := start(t, upstream)
	m.pull(t, "library/debian", "bookworm")
	ctx := window(t, m)
	run(t, ctx, emulation.SetScriptExecutionDisabled(true))
	for range 100 {
		run(t, ctx, chromedp.Navigate(m.url+"/?q=debian"))
		if strings.Contains(text(t, ctx, "main"), "1 to 1 of 1") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	run(t, ctx, chromedp.Click("table.list tbody a", chromedp.ByQuery), chromedp.WaitVisible(".pulls", chromedp.ByQuery))
	if s := text(t, ctx, "main"); !strings.Contains(s, "docker pull") || !strings.Contains(s, "linux/arm64") {
		t.Errorf("the image without scripts:\n%s", s)
	}
}
