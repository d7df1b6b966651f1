package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParseBudget(t *testing.T) {
	for _, tt := range []struct {
		limit, remaining string
		want             Budget
		ok               bool
		says             string
	}{
		{"100;w=21600", "76;w=21600", Budget{100, 76, 6 * time.Hour}, true, "76 of 100 pulls in 6h"},
		{"200", "0", Budget{200, 0, 0}, true, "0 of 200 pulls"},
		{" 10 ; w=90", "3", Budget{10, 3, 90 * time.Second}, true, "3 of 10 pulls in 1m30s"},
		{"10;burst=5;w=60", "3;w=x", Budget{10, 3, time.Minute}, true, "3 of 10 pulls in 1m"},
		{"10;w=-5", "3", Budget{10, 3, 0}, true, "3 of 10 pulls"},
		{"", "76;w=21600", Budget{}, false, ""},
		{"100;w=21600", "", Budget{}, false, ""},
		{"-1", "1", Budget{}, false, ""},
		{"99999999999999999999", "1", Budget{}, false, ""},
	} {
		header := http.Header{}
		header.Set("RateLimit-Limit", tt.limit)
		header.Set("RateLimit-Remaining", tt.remaining)
		got, ok := parseBudget(header)
		if ok != tt.ok || ok && (got != tt.want || got.String() != tt.says) {
			t.Errorf("%q, %q: %+v %v, says %q", tt.limit, tt.remaining, got, ok, got)
		}
	}
}

// counting makes the registry count requests for manifests as Docker Hub does.
func (f *fake) counting(left *atomic.Int64) {
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			refused := r.Method == http.MethodGet && left.Add(-1) < 0
			w.Header().Set("RateLimit-Limit", "100;w=21600")
			w.Header().Set("RateLimit-Remaining", fmt.Sprintf("%d;w=21600", max(left.Load(), 0)))
			if refused {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
		}
		serve(w, r)
	})
}

func twoPlatforms(f *fake, tag string) {
	var all []v1.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		all = append(all, platform(f.image([]v1.Descriptor{f.blob(random(100))}), arch))
	}
	f.index(all, tag)
}

func TestBudget(t *testing.T) {
	f, st := newFake(t), newStore(t)
	twoPlatforms(f, "1")
	var left atomic.Int64
	left.Store(2) // the index and one of two manifests
	f.counting(&left)
	c := newClient(t, st, f)
	_, err := fetchTag(t, c, "1")
	if !errors.Is(err, ErrRateLimited) || !strings.Contains(fmt.Sprint(err), "needs 2 more requests, 1 of 100 pulls in 6h are left") {
		t.Errorf("got %v", err)
	}
	if n := left.Load(); n != 1 {
		t.Errorf("%d requests are left: an image was begun that could not be ended", n)
	}
	left.Store(2)
	if _, err := fetchTag(t, c, "1"); err != nil { // the index is here
		t.Error(err)
	}
	if b, ok := c.Budget("example.test"); !ok || b.Remaining != 0 || b.Limit != 100 {
		t.Errorf("budget %v %v", b, ok)
	}
}

func TestBudgetWait(t *testing.T) {
	f, st := newFake(t), newStore(t)
	twoPlatforms(f, "1")
	var left atomic.Int64
	left.Store(1)
	f.counting(&left)
	c := newClient(t, st, f)
	c.opts.Wait, c.poll = true, 20*time.Millisecond
	go func() {
		time.Sleep(200 * time.Millisecond)
		left.Store(50)
	}()
	if _, err := fetchTag(t, c, "1"); err != nil {
		t.Error(err)
	}
	checkStored(t, st, f)

	// Where a registry tells no budget, 429 is waited for.
	f, st = newFake(t), newStore(t)
	f.simple(100, "1")
	var refused atomic.Int64
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method == http.MethodGet && refused.Add(1) < 2*tries {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		serve(w, r)
	})
	c = newClientOf(t, st, Registry{URL: f.URL})
	c.opts.Wait, c.poll = true, time.Millisecond
	if _, err := fetchTag(t, c, "1"); err != nil {
		t.Error(err)
	}

	// Waiting ends with the command.
	left.Store(0)
	f, st = newFake(t), newStore(t)
	twoPlatforms(f, "1")
	f.counting(&left)
	c = newClientOf(t, st, Registry{URL: f.URL})
	c.opts.Wait = true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	name := named(t, "example.test/team/app:1")
	root, err := c.Resolve(ctx, name)
	if err == nil {
		_, err = c.Fetch(ctx, name, root, false, &Progress{})
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
