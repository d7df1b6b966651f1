package limit

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
)

// table has the open connections.
type table struct {
	mu   sync.Mutex
	open map[*conn]struct{}
	of   map[netip.Prefix]int // how many each client has
	seen Counts
}

// admit takes a connection in, if the limits allow it.
func (t *table) admit(c *conn, limits *Limits) bool {
	t.mu.Lock()
	var evicted []*conn
	defer func() {
		t.mu.Unlock()
		for _, old := range evicted {
			_ = old.Close() // its handler notices; there is none to tell otherwise
		}
	}()
	if limits.PerClient > 0 && t.of[c.client] >= limits.PerClient && c.client.IsValid() && !exempt(c.client, limits.Exempt) {
		t.seen.RefusedClient++
		return false
	}
	if limits.Connections > 0 && len(t.open) >= limits.Connections {
		if evicted = t.longestWaiting(); len(evicted) == 0 {
			t.seen.RefusedTotal++
			return false
		}
		for _, old := range evicted {
			t.remove(old)
		}
		t.seen.Evicted += int64(len(evicted))
	}
	t.open[c] = struct{}{}
	t.of[c.client]++
	return true
}

// longestWaiting returns connections that have no request. It is some of them, so
// that a flood of new connections does not look at all others each time.
func (t *table) longestWaiting() []*conn {
	type since struct {
		conn *conn
		at   int64
	}
	var waiting []since
	for c := range t.open {
		if at := c.waiting.Load(); at != 0 {
			waiting = append(waiting, since{c, at})
		}
	}
	slices.SortFunc(waiting, func(a, b since) int { return cmp.Compare(a.at, b.at) })
	var longest []*conn
	for _, w := range waiting[:(len(waiting)+31)/32] {
		longest = append(longest, w.conn)
	}
	return longest
}

func exempt(client netip.Prefix, all []netip.Prefix) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Overlaps(client) })
}

func (t *table) leave(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(c)
}

func (t *table) remove(c *conn) {
	if _, ok := t.open[c]; !ok {
		return
	}
	delete(t.open, c)
	if t.of[c.client]--; t.of[c.client] == 0 {
		delete(t.of, c.client)
	}
}

func (t *table) counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.seen
	counts.Open = int64(len(t.open))
	return counts
}
