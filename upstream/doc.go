// Package upstream reaches other registries: it resolves tags and brings whole
// images into a store, each byte once.
//
// A registry has one or more endpoints: its mirrors, asked first, and the
// registry itself or what the configuration puts in its place. Every endpoint
// has an HTTP client of its own, so that neither credentials nor TLS settings
// can reach another host. regclient speaks the protocol; a transport below it
// adds what it lacks: ranges, so that downloads resume, the ns parameter for
// mirrors, the referrers API as it is needed here, and a limit on silence. A
// failure that may pass is tried again here and not by regclient.
//
// Nothing that an upstream sends is trusted: the store hashes all content
// itself, and every read has a limit in size and time.
package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/regclient/regclient/config"
	"golang.org/x/sync/semaphore"

	"mirrorctl/store"
)

// Registry is how a registry is reached. The zero value means: at its own
// address, with the credentials of the docker configuration.
type Registry struct {
	URL      string   // http(s)://host[:port][/prefix], or ocidir://folder; "" is the registry's own address
	Mirrors  []string // http(s)://host[:port][/prefix], asked first
	Username string   // for URL; never sent to mirrors
	Password string
	CA       []byte // PEM, trusted for URL and mirrors besides the system's authorities
	Insecure bool   // do not verify TLS certificates of URL
}

// Options configure a Client.
type Options struct {
	Registries map[string]Registry // by name: docker.io, ghcr.io
	Jobs       int                 // blobs in transfer at a time; 0 is DefaultJobs
	// Connections is how many connections to one registry blobs may be read over
	// at a time where one per blob is slow; 0 is DefaultConnections, 1 is never
	// more than one per blob.
	Connections int
	Timeout     time.Duration // how long an upstream may send next to nothing; 0 is DefaultTimeout
	Wait        bool          // for a registry's budget, instead of giving up
	UserAgent   string
	// Guarded refuses registries, and redirects of theirs, that lead to this
	// machine or to a private network, unless the registry has a URL or its name
	// is an address. It is for a client that strangers make ask.
	Guarded bool
	Log     *slog.Logger // nil is silent
}

const (
	// DefaultJobs is how many blobs are transferred at a time.
	DefaultJobs = 6
	// DefaultTimeout is how long an upstream may send next to nothing.
	DefaultTimeout = 30 * time.Second
)

// Client fetches images from upstreams into one store. It is safe for
// concurrent use.
type Client struct {
	store *store.Store
	opts  Options
	log   *slog.Logger

	transfers  chan struct{}       // taken slots of blobs, of all registries together
	precedence precedence          // of what clients wait for
	ahead      *semaphore.Weighted // bytes of blobs that are here before their turn
	poll       time.Duration       // between looks at a budget that is used up
	silence    time.Duration       // Options.Timeout
	pause      time.Duration       // before something is tried again
	received   atomic.Int64        // bytes of blobs, over the network
	creds      func() ([]config.Host, error)

	mu         sync.Mutex
	flights    map[digest.Digest]*flight // content that is on its way
	asked      sync.Map                  // what Config asked for, by name or by repository and digest
	registries map[string]*registry
	lease      *store.Lease
}

// Received is how many bytes of blobs have come over the network, and how many blobs
// are on their way.
func (c *Client) Received() (bytes int64, transfers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received.Load(), len(c.flights)
}

// New returns a client that fetches into st. It contacts nobody yet. Close it
// before the store.
func New(st *store.Store, opts Options) *Client {
	if opts.Jobs <= 0 {
		opts.Jobs = DefaultJobs
	}
	if opts.Connections <= 0 {
		opts.Connections = DefaultConnections
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		store:      st,
		opts:       opts,
		log:        opts.Log,
		transfers:  make(chan struct{}, opts.Jobs),
		precedence: newPrecedence(),
		ahead:      semaphore.NewWeighted(maxAhead),
		silence:    opts.Timeout,
		poll:       budgetPoll,
		pause:      firstPause,
		creds:      sync.OnceValues(config.DockerLoad),
		flights:    map[digest.Digest]*flight{},
		registries: map[string]*registry{},
	}
}

// Close ends the protection of what was fetched but not pinned, and idle
// connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.registries {
		for _, e := range r.endpoints {
			e.http.CloseIdleConnections()
		}
	}
	if c.lease == nil {
		return nil
	}
	err := c.lease.Close()
	c.lease = nil
	return err
}

// hold returns the client's lease, which starts with the first fetch.
func (c *Client) hold(ctx context.Context) (*store.Lease, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lease == nil {
		lease, err := c.store.NewLease(ctx)
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", c.store.Dir(), err)
		}
		c.lease = lease
	}
	return c.lease, nil
}
