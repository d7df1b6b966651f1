package page

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// humanSize is a number of bytes in units of 1000, with three digits.
func humanSize(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		value /= 1000
		switch {
		case value < 9.995:
			return fmt.Sprintf("%.2f %s", value, unit)
		case value < 99.95:
			return fmt.Sprintf("%.1f %s", value, unit)
		case value < 999.5:
			return fmt.Sprintf("%.0f %s", value, unit)
		}
	}
	return fmt.Sprintf("%.0f TB", value)
}

// ago is how long before now something was, in its largest unit.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{365 * 24 * time.Hour, "year"}, {30 * 24 * time.Hour, "month"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(now.Sub(then) / unit.d); n > 0 {
			return count(n, unit.name) + " ago"
		}
	}
	return "just now"
}

// when is a time as machines and title attributes have it.
func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// short is a digest as people recognise it.
func short(d digest.Digest) string {
	if len(d) < 19 {
		return string(d)
	}
	return string(d[:19])
}

// count is an integer with thousands set apart, and a noun.
func count(n any, noun string) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if s != "1" {
		noun += "s"
	}
	return s + " " + noun
}
