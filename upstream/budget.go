package upstream

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"mirrorctl/store"
)

// Budget is how many requests for manifests a registry grants: Docker Hub counts
// every GET of one, and no HEAD (https://docs.docker.com/docker-hub/usage/pulls/;
// the headers ratelimit-limit and ratelimit-remaining).
type Budget struct {
	Limit     int           // in a window
	Remaining int           // of it, as the last answer said
	Window    time.Duration // 0 if the registry does not say
}

// String says what is left: "76 of 100 pulls in 6h".
func (b Budget) String() string {
	s := fmt.Sprintf("%d of %d pulls", b.Remaining, b.Limit)
	if b.Window > 0 {
		window := b.Window.String() // 6h0m0s
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(window, zero) {
				window = window[:len(window)-2]
			}
		}
		s += " in " + window
	}
	return s
}

// parseBudget reads the headers of an answer: "100;w=21600", the second part in
// seconds (draft-polli-ratelimit-headers).
func parseBudget(header http.Header) (b Budget, ok bool) {
	limit, window, ok1 := parseQuota(header.Get("Ratelimit-Limit"))
	remaining, _, ok2 := parseQuota(header.Get("Ratelimit-Remaining"))
	return Budget{Limit: limit, Remaining: remaining, Window: window}, ok1 && ok2
}

func parseQuota(s string) (n int, window time.Duration, ok bool) {
	number, parameters, _ := strings.Cut(s, ";")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	for _, parameter := range strings.Split(parameters, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if seconds, err := strconv.ParseInt(value, 10, 32); key == "w" && err == nil && seconds > 0 {
			window = time.Duration(seconds) * time.Second
		}
	}
	return n, window, true
}

// ledger remembers the last budget that an endpoint told.
type ledger struct {
	mu     sync.Mutex
	budget Budget
	known  bool
}

func (l *ledger) note(header http.Header) {
	b, ok := parseBudget(header)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.budget, l.known = b, true
}

func (l *ledger) last() (Budget, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.budget, l.known
}

// Budget returns what a registry last said of its budget, false if it said
// nothing or has mirrors, which come first.
func (c *Client) Budget(name string) (Budget, bool) {
	r, err := c.registry(name)
	if err != nil || len(r.endpoints) > 1 || r.endpoints[0].tr == nil {
		return Budget{}, false
	}
	return r.endpoints[0].tr.ledger.last()
}

// budgetPoll is how often a used-up budget is looked at again while waiting for
// it. HEAD requests are not counted.
const budgetPoll = time.Minute

// afford makes sure that a registry grants n more requests for manifests before
// the first of them is made: an image that breaks off in the middle has used up
// what another could have needed. It returns ErrRateLimited, or waits if the
// client is to.
func (c *Client) afford(ctx context.Context, repo store.Repository, tag string, n int) error {
	for waited := time.Duration(0); ; waited += c.poll {
		b, known := c.Budget(repo.Registry)
		if !known || n <= b.Remaining || n > b.Limit && b.Remaining > 0 {
			return nil // or as far as it goes: what has come is kept
		}
		if !c.opts.Wait || b.Window > 0 && waited > b.Window+c.poll {
			return &Error{
				Cause: ErrRateLimited, Detail: fmt.Sprintf("%s needs %d more requests, %s are left", repo.Registry, n, b),
				Hint: "wait, log in for a larger limit (docker login), or let mirrorctl wait with --wait", Err: ErrRateLimited,
			}
		}
		c.log.Warn("waiting for the registry's budget", "registry", repo.Registry, "needed", n, "left", b.String())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.poll):
		}
		err := c.ask(ctx, repo, func(e *endpoint) error {
			_, err := c.head(ctx, e, repo, tag)
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.log.Info("the budget cannot be looked at", "registry", repo.Registry, "err", err)
		}
	}
}
