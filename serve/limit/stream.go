package limit

import (
	"io"
	"net/http"
	"time"
)

// Streams returns a handler that answers with next, and ends a stream of HTTP/2
// whose client does not let it go on: the connection of such a client looks idle.
// Other answers go on as they are.
func (l *Limiter) Streams(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if limits := l.limits.Load(); r.ProtoMajor >= 2 && limits.MinRate > 0 {
			w = &stream{ResponseWriter: w, limiter: l, limits: limits, pace: pace{limits.Patience}}
		}
		next.ServeHTTP(w, r)
	})
}

// stream is an answer that its client has to take.
type stream struct {
	http.ResponseWriter
	limiter *Limiter
	limits  *Limits
	pace    pace
}

func (s *stream) Write(b []byte) (int, error) {
	began := time.Now()
	// A stream cannot go on after its deadline, so it has all the time that these
	// bytes may take.
	limit := s.pace.credit + time.Duration(float64(len(b))/float64(s.limits.MinRate)*float64(time.Second))
	if err := http.NewResponseController(s.ResponseWriter).SetWriteDeadline(began.Add(limit)); err != nil {
		return 0, err
	}
	n, err := s.ResponseWriter.Write(b)
	took := time.Since(began)
	s.pace.took(int64(n), took, s.limits)
	s.pace.credit = max(s.pace.credit, 2*least)
	if err != nil && took >= limit {
		s.limiter.tooSlow.Add(1)
	}
	return n, err
}

// ReadFrom keeps the pieces of a large answer small enough to see how it goes.
func (s *stream) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, src)
}

func (s *stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }
