package upstream

import (
	"fmt"
	"testing"
	"time"
)

// How many connections a blob comes to, where so many bring so much.
func TestPace(t *testing.T) {
	const one = 10e6 // bytes a second
	for name, tt := range map[string]struct {
		limit int
		rate  func(connections int) float64
		want  int
	}{
		"each its own":     {24, func(n int) float64 { return one * float64(n) }, 24},
		"limit of 16":      {16, func(n int) float64 { return one * float64(n) }, 16},
		"limit of 2":       {2, func(n int) float64 { return one * float64(n) }, 2},
		"shared":           {16, func(int) float64 { return one }, 1},
		"hurt":             {16, func(n int) float64 { return one / float64(n) }, 1},
		"eight are enough": {16, func(n int) float64 { return one * float64(min(n, 8)) }, 8},
		"little more":      {16, func(n int) float64 { return one * (1 + float64(n)/100) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			p := newPace(one, 100*time.Millisecond, tt.limit, now)
			for range 2000 {
				now = now.Add(5 * time.Millisecond)
				p.add(int(tt.rate(p.target)*0.005), now)
			}
			if p.target != tt.want {
				t.Errorf("%d connections, want %d", p.target, tt.want)
			}
		})
	}
}

func TestSlow(t *testing.T) {
	for _, tt := range []struct {
		rate float64
		rest int64
		want bool
	}{
		{10e6, 48e6, true},
		{10e6, 1 << 30, true},
		{10e6, 15 << 20, false}, // little is left
		{10e6, 19e6, false},     // soon done
		{100e6, 1 << 30, false}, // fast
		{40e6, 6 << 30, true},   // would take minutes
		{1, minRest, true},      // next to nothing comes
		{100e6, 1 << 40, false}, // still fast
		{49e6, 17 << 20, false}, // soon done
		{49e6, 120 << 20, true}, //
		{10e6, minRest - 1, false},
	} {
		if got := slow(tt.rate, tt.rest); got != tt.want {
			t.Errorf("slow(%v, %d) = %v", tt.rate, tt.rest, got)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string]string{
		"bytes 0-99/100":   "0 99 100 true",
		"bytes 5-5/*":      "5 5 -1 true",
		"bytes 10-99/1000": "10 99 1000 true",
	} {
		first, last, total, ok := parseContentRange(s)
		if got := fmt.Sprint(first, last, total, ok); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
	for _, s := range []string{
		"", "bytes", "bytes ", "bytes */100", "bytes 0-99", "bytes 0-99/", "bytes 0-100/100", "bytes 9-5/100",
		"bytes -5/100", "bytes +1-5/100", "bytes 0x1-5/100", "bytes 0-99/100/2", "bytes=0-99/100", "items 0-9/10",
		"bytes 0-99999999999999999999/*", "bytes 0-1/-1", "bytes 1_0-20/30",
	} {
		if first, last, total, ok := parseContentRange(s); ok {
			t.Errorf("%q: taken for %d-%d/%d", s, first, last, total)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-99/100", "bytes 5-5/*", "bytes */100", "bytes 0-99", "bytes 007-8/9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if !ok {
			if first != 0 || last != 0 || total != 0 {
				t.Errorf("%q: %d %d %d although it is none", s, first, last, total)
			}
			return
		}
		if first < 0 || last < first || total != -1 && total <= last {
			t.Errorf("%q: %d-%d/%d", s, first, last, total)
		}
		whole := "*"
		if total >= 0 {
			whole = fmt.Sprint(total)
		}
		a, b, c, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", first, last, whole))
		if !ok || a != first || b != last || c != total {
			t.Errorf("%q: not the same when written and read again", s)
		}
	})
}
