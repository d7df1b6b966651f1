package serve

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// Check is a part of a mirror that has to work, for /readyz.
type Check struct {
	Name string
	// Works returns what is wrong. It is called concurrently, with a deadline.
	Works func(context.Context) error
}

// Status answers for those who watch a mirror: /healthz, whether it runs; /readyz,
// whether it can answer clients, with a line for each part; /metrics. Everything
// else goes on to next.
func Status(next, metrics http.Handler, checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			writeStatus(w, r, http.StatusOK, "ok: running\n")
		case "/readyz":
			ready(w, r, checks)
		case "/metrics":
			metrics.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// readyWithin is how long a part may take to say that it works.
const readyWithin = 5 * time.Second

func ready(w http.ResponseWriter, r *http.Request, checks []Check) {
	ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
	defer cancel()
	status := http.StatusOK
	var text strings.Builder
	for _, c := range checks {
		if err := c.Works(ctx); err != nil {
			status = http.StatusServiceUnavailable
			text.WriteString("failed: " + c.Name + "\n") // why is for the log alone
			continue
		}
		text.WriteString("ok: " + c.Name + "\n")
	}
	writeStatus(w, r, status, text.String())
}

func writeStatus(w http.ResponseWriter, r *http.Request, status int, text string) {
	header := w.Header()
	header["X-Content-Type-Options"] = headerNosniff
	header.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		WriteError(w, r, http.StatusMethodNotAllowed, codeUnsupported, "only GET and HEAD")
		return
	}
	writeBody(w, r, status, "text/plain; charset=utf-8", []byte(text))
}
