package upstream

import (
	"errors"
	"strings"
	"testing"
)

// wantError checks cause and wording: short, with what must be named in it, and
// nothing said twice.
func wantError(t *testing.T, err error, cause error, mentions ...string) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want one that is %q", err, cause)
		return
	}
	var failed *Error
	if !errors.As(err, &failed) {
		t.Errorf("%T %v is no *Error", err, err)
		return
	}
	text := err.Error()
	t.Logf("%s; %s", text, failed.Hint)
	for _, m := range mentions {
		if n := strings.Count(text, m); n != 1 {
			t.Errorf("%q is %d times in %q", m, n, text)
		}
	}
	if len(text) > 260 || strings.Contains(text, "\n") {
		t.Errorf("too long: %q", text)
	}
}
