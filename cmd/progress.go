package cmd

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// display shows how a sync goes. It is safe for concurrent use.
type display interface {
	// start says that an image is being fetched.
	start(j *job, d digest.Digest)
	// done says what became of an image, which may not have been started.
	done(j *job)
	// close leaves the terminal as it was found.
	close()
}

// newDisplay shows bars on a terminal and lines elsewhere. Failures are always
// said; --quiet and --json silence the rest.
func (p *program) newDisplay(silent bool) display {
	if p.quiet || silent {
		return &lines{w: p.stderr, failuresOnly: true}
	}
	if f, ok := p.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBars(f, func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 80, 24
			}
			return width, height
		})
	}
	return &lines{w: p.stderr}
}

// lines prints one line when an image starts and one when it is done.
type lines struct {
	mu           sync.Mutex
	w            io.Writer
	failuresOnly bool
}

func (l *lines) start(j *job, d digest.Digest) {
	if !l.failuresOnly {
		l.print(fmt.Sprintf("%s: fetching %s", j.name, short(d)))
	}
}

func (l *lines) done(j *job) {
	if text := j.line(); text != "" && (!l.failuresOnly || j.err != nil) {
		l.print(text)
	}
}

func (l *lines) print(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "mirrorctl: %s\n", printableLines(text))
}

func (l *lines) close() {}

// bars draws a bar per image at the bottom of the terminal; finished images
// scroll away above them as one line each.
type bars struct {
	w    io.Writer
	size func() (width, height int)

	mu     sync.Mutex
	active []*bar
	drawn  int // lines on the screen below the finished ones
	stop   chan struct{}
	ended  sync.WaitGroup
}

type bar struct {
	job *job
	bar *progressbar.ProgressBar
}

// frame is how often the bars are drawn.
const frame = 100 * time.Millisecond

func newBars(w io.Writer, size func() (int, int)) *bars {
	b := &bars{w: w, size: size, stop: make(chan struct{})}
	b.ended.Go(func() {
		tick := time.NewTicker(frame)
		defer tick.Stop()
		for {
			select {
			case <-b.stop:
				return
			case <-tick.C:
				b.mu.Lock()
				b.draw("")
				b.mu.Unlock()
			}
		}
	})
	return b
}

func (b *bars) start(j *job, _ digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = append(b.active, &bar{job: j})
}

func (b *bars) done(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = slices.DeleteFunc(b.active, func(a *bar) bool { return a.job == j })
	text := j.line()
	if text != "" {
		text = "mirrorctl: " + printableLines(text)
	}
	b.draw(text)
}

func (b *bars) close() {
	close(b.stop)
	b.ended.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = nil
	b.draw("")
}

// draw replaces the bars on the screen, in one write so that nothing flickers;
// above is a finished line to print over them. The caller holds the lock.
func (b *bars) draw(above string) {
	if above == "" && b.drawn == 0 && len(b.active) == 0 {
		return
	}
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\r", b.drawn) // up to the first bar
	}
	out.WriteString("\x1b[J") // and clear from there
	if above != "" {
		out.WriteString(above + "\n")
	}
	width, height := b.size()
	b.drawn = 0
	for _, a := range b.active[:min(len(b.active), max(height-2, 1))] {
		out.WriteString(a.render(width) + "\n")
		b.drawn++
	}
	_, _ = io.WriteString(b.w, out.String()) // a terminal that is gone is no reason to stop
}

// render returns the bar as one line that fits the width: a longer one would
// wrap, and the screen could not be redrawn.
func (a *bar) render(width int) string {
	name := familiar(a.job.name.String())
	// Only what has to come over the network counts: with what was here before,
	// rate and time left would be wrong.
	transferred := a.job.progress.Transferred.Load()
	total := a.job.progress.TotalBytes.Load() - (a.job.progress.Bytes.Load() - transferred)
	const details = 48 // percentage, bytes, rate and times
	room := max(width-details-2, 8)
	nameWidth := min(len(name), max(room*2/3, 8))
	if len(name) > nameWidth {
		name = "…" + name[len(name)-nameWidth+1:]
	}
	if total <= 0 {
		return clip(name+"  reading manifests", width)
	}
	if a.bar == nil {
		a.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(io.Discard), // drawn here, many at a time
			progressbar.OptionShowBytes(true),
			progressbar.OptionShowCount(),
			progressbar.OptionThrottle(0),
			progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}),
			progressbar.OptionSetWidth(max(room-nameWidth, 4)),
		)
	}
	a.bar.Describe(name)
	a.bar.ChangeMax64(total)
	_ = a.bar.Set64(min(transferred, total-1)) // a full bar is finished, but the total may still grow
	return clip(strings.TrimSpace(strings.Trim(a.bar.String(), "\r\n")), width)
}

// clip cuts a line to the width of the terminal.
func clip(s string, width int) string {
	runes := []rune(s)
	if len(runes) >= width && width > 1 {
		return string(runes[:width-1])
	}
	return s
}
