package serve

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// LogFormat is how an access log writes a request.
type LogFormat string

const (
	LogOff  LogFormat = "off"  // not at all
	LogText LogFormat = "text" // a line for people
	LogJSON LogFormat = "json" // an object per line
)

// AccessLog returns a handler that answers with next and writes one line to w
// when an answer ends, also if it broke off. Each line is one call of Write;
// the calls do not overlap. Errors of w are ignored, because a mirror should
// outlive its log.
//
// A line has the time when the request came (UTC), the client's address
// without port, method, path with ns, status, bytes of the body sent, duration
// in milliseconds, and hit, miss or, for what is neither, a dash:
//
//	2026-01-31T12:00:00.123Z 10.0.0.7 GET /v2/library/debian/manifests/12?ns=docker.io 200 1850 0.214ms hit
//
// As JSON the fields are time, client, method, path, status, bytes,
// duration_ms and cache (absent for neither). Whatever a client sends, a line
// is one line of printable ASCII or of JSON: what is not, quotes and backslashes
// are percent-encoded, and what is too long cut.
//
// The [http.ResponseWriter] that next gets keeps ReadFrom, so that files are
// still sent by sendfile, Flush, and the rest by Unwrap. The error is an
// unknown format.
func AccessLog(next http.Handler, format LogFormat, w io.Writer) (http.Handler, error) {
	switch format {
	case LogOff:
		return next, nil
	case LogText, LogJSON:
		return &accessLog{next: next, format: format, w: w}, nil
	}
	return nil, fmt.Errorf("access log %q: must be off, text or json", string(format))
}

type accessLog struct {
	next    http.Handler
	format  LogFormat
	records sync.Pool // of *record
	mu      sync.Mutex
	w       io.Writer // guarded by mu
}

// A record is what a request needs for its line. It is used again, so that the
// log costs no allocation.
type record struct {
	recorder
	line []byte
}

func (l *accessLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	out, used := l.records.Get().(*record)
	if !used {
		out = &record{line: make([]byte, 0, 256)}
	}
	out.recorder = recorder{ResponseWriter: w}
	// Deferred, so that an answer that ends by a panic is seen too: a Content
	// that must not finish an answer ends it with http.ErrAbortHandler.
	returned := false
	defer func() {
		if out.status == 0 {
			// What net/http makes of an answer without a status.
			if out.status = http.StatusOK; !returned {
				out.status = http.StatusInternalServerError
			}
		}
		out.line = l.appendLine(out.line[:0], r, &out.recorder, start, time.Since(start))
		l.mu.Lock()
		_, _ = l.w.Write(out.line)
		l.mu.Unlock()
		out.recorder = recorder{} // which the request's memory hangs on
		l.records.Put(out)
	}()
	l.next.ServeHTTP(out, r)
	returned = true
}

// appendLine appends the line of a request.
func (l *accessLog) appendLine(b []byte, r *http.Request, out *recorder, start time.Time, took time.Duration) []byte {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	var cache string
	if v := out.Header()["X-Mirrorctl-Cache"]; len(v) > 0 {
		cache = v[0]
	}
	milliseconds := float64(took.Microseconds()) / 1e3
	start = start.UTC()

	if l.format == LogText {
		b = start.AppendFormat(b, "2006-01-02T15:04:05.000Z")
		b = appendPrintable(append(b, ' '), client)
		b = appendPrintable(append(b, ' '), r.Method)
		b = appendPath(append(b, ' '), r)
		b = strconv.AppendInt(append(b, ' '), int64(out.status), 10)
		b = strconv.AppendInt(append(b, ' '), out.bytes, 10)
		b = strconv.AppendFloat(append(b, ' '), milliseconds, 'f', 3, 64)
		b = append(b, "ms "...)
		if cache == "" {
			cache = "-"
		}
		return append(append(b, cache...), '\n')
	}
	// By hand: encoding/json takes longer than the answer. No field needs escapes.
	b = start.AppendFormat(append(b, `{"time":"`...), time.RFC3339Nano)
	b = appendPrintable(append(b, `","client":"`...), client)
	b = appendPrintable(append(b, `","method":"`...), r.Method)
	b = appendPath(append(b, `","path":"`...), r)
	b = strconv.AppendInt(append(b, `","status":`...), int64(out.status), 10)
	b = strconv.AppendInt(append(b, `,"bytes":`...), out.bytes, 10)
	b = strconv.AppendFloat(append(b, `,"duration_ms":`...), milliseconds, 'f', -1, 64)
	if cache != "" {
		b = append(append(append(b, `,"cache":"`...), cache...), '"')
	}
	return append(b, "}\n"...)
}

// maxLogField limits what of a client's words goes into a line, in bytes.
const maxLogField = 1024

func appendPath(b []byte, r *http.Request) []byte {
	b = appendPrintable(b, r.URL.EscapedPath())
	if ns := rawQueryValue(r.URL.RawQuery, "ns"); ns != "" {
		b = appendPrintable(append(b, "?ns="...), ns)
	}
	return b
}

// appendPrintable appends s with everything percent-encoded that is not a
// visible ASCII character, or is one that JSON escapes.
func appendPrintable(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	const hex = "0123456789ABCDEF"
	limit := len(b) + maxLogField
	for i := range len(s) {
		if len(b) >= limit {
			return append(b, "..."...)
		}
		if c := s[i]; c > ' ' && c < 0x7f && c != '"' && c != '\\' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

// recorder remembers what of an answer goes into the log.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	// An informational status comes before the real one.
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom hands the reader itself to the next writer: net/http sends a file
// by sendfile only if it gets the file.
func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	return n, err
}

// Flush is for those who ask for an [http.Flusher] and do not know
// [http.ResponseController].
func (w *recorder) Flush() { _ = w.FlushError() }

func (w *recorder) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
