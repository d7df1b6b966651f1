package store

import (
	"context"

	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Scrub hashes the whole store again and again.
type Scrub struct {
	// Period is how long one pass over the store takes. A small store is done
	// sooner, and rests until the period is over.
	Period time.Duration
	// Busy, if not nil, tells whether there is something more important to do. A
	// pass then goes on at a quarter of its rate, and catches up later.
	Busy func() bool
	// Began, Found and Ended, if not nil, are told what happens. after is where
	// an interrupted pass goes on, "" for a new one.
	Began func(blobs int, bytes int64, after digest.Digest)
	Found func(Damage)
	Ended func(Checked, time.Duration)

	floor float64 // the lowest rate; 0 is scrubFloor
}

const (
	// scrubFloor is the lowest rate of a scrub, in bytes per second.
	scrubFloor = 1 << 20
	// scrubCatchUp is by how much a scrub may be faster than its rate when it is
	// late, and slower when there is something more important to do.
	scrubCatchUp = 4
	// scrubBatch is how many blobs are listed at a time.
	scrubBatch = 256
	// scrubSave is how often the place is written down.
	scrubSave = time.Minute
)

// Scrub runs a scrub until ctx ends, whose error it returns, or the index cannot
// be read. It goes in the order of digests, and remembers in the file "scrub" of
// the store where it was, so that it goes on there after a restart. Of several
// processes one scrubs. One that may not write to the store begins at another
// place each time, which the clock says. What is damaged it takes out of service,
// as Verify does. Its reading has the lowest priority that the system knows, and
// stays out of the cache of files.
func (s *Store) Scrub(ctx context.Context, scrub Scrub) error {
	ended := make(chan error, 1)
	go func() {
		lowPriority() // of the thread, which ends with this goroutine
		ended <- s.scrub(ctx, scrub)
	}()
	return <-ended
}

func (s *Store) scrub(ctx context.Context, scrub Scrub) error {
	place, err := s.scrubPlace(ctx, scrub.Period)
	if err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	defer place.close()
	for {
		if place.begun.IsZero() || place.done {
			if err := sleep(ctx, time.Until(place.begun.Add(scrub.Period))); err != nil {
				return err
			}
			place.begun, place.after, place.done = time.Now(), "", false
		}
		if err := s.scrubOnce(ctx, scrub, place); err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("scrub: %w", err)
			}
			return err
		}
	}
}

// scrubOnce finishes a pass.
func (s *Store) scrubOnce(ctx context.Context, scrub Scrub, place *scrubPlace) error {
	var blobs int
	var left int64
	err := s.reader.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(size), 0) FROM blob WHERE digest > ?", place.after.String()).Scan(&blobs, &left)
	if err != nil {
		return err
	}
	if scrub.Began != nil {
		scrub.Began(blobs, left, place.after)
	}
	pace := newPace(ctx, scrub, left, time.Until(place.begun.Add(scrub.Period)))
	var checked Checked
	for {
		batch, err := list(ctx, s.reader, scanDescriptor, "SELECT digest, size FROM blob WHERE digest > ? ORDER BY digest LIMIT ?", place.after.String(), scrubBatch)
		if err != nil {
			return err
		}
		for _, b := range batch {
			d, err := s.examine(ctx, b, pace.reader)
			if err == nil && d != nil {
				d.Pins, err = s.PinsReaching(ctx, b.Digest)
			}
			if err != nil {
				return errors.Join(err, place.save())
			}
			if d != nil {
				checked.Damage = append(checked.Damage, *d)
				if scrub.Found != nil {
					scrub.Found(*d)
				}
			}
			checked.Blobs++
			checked.Bytes += b.Size
			place.after = b.Digest
			if time.Since(place.saved) > scrubSave {
				if err := place.save(); err != nil {
					return err
				}
			}
		}
		if len(batch) == 0 {
			place.done = true
			if scrub.Ended != nil {
				scrub.Ended(checked, time.Since(pace.began))
			}
			return place.save()
		}
	}
}

// scrubPlace is how far a scrub has come.
type scrubPlace struct {
	file  *os.File // locked; nil if the store cannot be written to
	saved time.Time
	begun time.Time // the pass
	after digest.Digest
	done  bool
}

// scrubPlace reads where a scrub was, once no other process scrubs.
func (s *Store) scrubPlace(ctx context.Context, period time.Duration) (*scrubPlace, error) {
	for {
		f, err := os.OpenFile(filepath.Join(s.dir, "scrub"), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			// The start of a digest is a number like any other.
			now := time.Now()
			part := float64(now.Sub(now.Truncate(period))) / float64(period)
			after := digest.NewDigestFromEncoded(digest.SHA256, fmt.Sprintf("%04x", int(part*0x10000))+strings.Repeat("0", 60))
			return &scrubPlace{begun: now, after: after}, nil
		}
		free, err := tryLock(f)
		if err == nil && free {
			p := &scrubPlace{file: f}
			p.load()
			return p, nil
		}
		f.Close()
		if err == nil {
			err = sleep(ctx, scrubSave)
		}
		if err != nil {
			return nil, err
		}
	}
}

// load reads the place: when the pass began, and the digest that was looked at
// last or "done". What cannot be read is the beginning.
func (p *scrubPlace) load() {
	content, _ := io.ReadAll(io.LimitReader(p.file, 1<<10))
	fields := strings.Fields(string(content))
	if len(fields) != 2 {
		return
	}
	begun, err := time.Parse(time.RFC3339, fields[0])
	if err != nil || begun.After(time.Now()) {
		return
	}
	if fields[1] == "done" {
		p.begun, p.done = begun, true
	} else if d := digest.Digest(fields[1]); checkDigest(d) == nil {
		p.begun, p.after = begun, d
	}
}

// save writes the place down. It need not survive the power.
func (p *scrubPlace) save() error {
	p.saved = time.Now()
	if p.file == nil || p.after == "" && !p.done {
		return nil
	}
	last := p.after.String()
	if p.done {
		last = "done"
	}
	line := p.begun.UTC().Format(time.RFC3339) + " " + last + "\n"
	err := p.file.Truncate(0)
	if err == nil {
		_, err = p.file.WriteAt([]byte(line), 0)
	}
	if IsFull(err) {
		return nil // the next time
	}
	return err
}

func (p *scrubPlace) close() {
	if p.file != nil {
		p.file.Close()
	}
}

// pace limits how fast a scrub reads.
type pace struct {
	ctx   context.Context
	busy  func() bool
	rate  float64 // bytes per second
	began time.Time
	read  int64
}

func newPace(ctx context.Context, scrub Scrub, bytes int64, left time.Duration) *pace {
	floor := scrub.floor
	if floor == 0 {
		floor = scrubFloor
	}
	// A pass that is late need not be done at once.
	left = max(left, scrub.Period/10)
	p := &pace{ctx: ctx, busy: scrub.Busy, rate: max(floor, float64(bytes)/left.Seconds()), began: time.Now()}
	if p.busy == nil {
		p.busy = func() bool { return false }
	}
	return p
}

// wait is called after n bytes.
func (p *pace) wait(n int) error {
	p.read += int64(n)
	pause := time.Duration(float64(n) / p.rate * float64(time.Second))
	longest := pause * scrubCatchUp
	if late := time.Since(p.began).Seconds() - float64(p.read)/p.rate; late > 0 {
		pause /= scrubCatchUp
	}
	for waited := time.Duration(0); ; waited += pause {
		if err := sleep(p.ctx, pause); err != nil {
			return err
		}
		if !p.busy() || waited+pause >= longest {
			return nil
		}
	}
}

func (p *pace) reader(f *os.File) io.Reader {
	dropCache(f) // what counts is what the disk has
	return &pacedReader{pace: p, file: f}
}

type pacedReader struct {
	*pace
	file *os.File
}

func (r *pacedReader) Read(b []byte) (int, error) {
	n, err := r.file.Read(b)
	if n > 0 {
		if waitErr := r.wait(n); waitErr != nil {
			return n, waitErr
		}
	}
	if errors.Is(err, io.EOF) {
		dropCache(r.file)
	}
	return n, err
}

// sleep waits, or returns the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
