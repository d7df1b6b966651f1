package metrics

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"mirrorctl/serve"
	"mirrorctl/store"
)

func full() *Metrics {
	return New(Sources{
		Version:     "test",
		Totals:      func(context.Context) (store.Totals, error) { return store.Totals{Pins: 2, Blobs: 7, Bytes: 1000}, nil },
		Connections: func() map[string]float64 { return map[string]float64{"open": 3, "slow": 1} },
		Refused:     func() map[string]float64 { return map[string]float64{"login": 4} },
		Upstream:    func() (int64, int) { return 5000, 2 },
		Budgets:     func() map[string]Budget { return map[string]Budget{"docker.io": {100, 42}} },
		Expiry:      func() (time.Time, bool) { return time.Unix(2_000_000_000, 0), true },
		Reload:      func() (time.Time, bool) { return time.Unix(1_900_000_000, 0), true },
	})
}

// scrape is what Prometheus reads.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	m := full()
	var manifest serve.Kind
	for k := range serve.Kinds {
		if k.String() == "manifest" {
			manifest = k
		}
	}
	for _, end := range []struct {
		status int
		cache  string
	}{{200, "hit"}, {200, "hit"}, {404, "miss"}, {405, ""}, {9999, "whatever a client says"}} {
		m.Begin(manifest)
		m.End(manifest, end.status, end.cache, 10, time.Millisecond)
	}
	m.Begin(manifest)
	text := scrape(t, m)
	for _, line := range []string{
		`mirrorctl_requests_total{cache="hit",kind="manifest",status="200"} 2`,
		`mirrorctl_requests_total{cache="miss",kind="manifest",status="404"} 1`,
		`mirrorctl_requests_total{cache="none",kind="manifest",status="405"} 1`,
		`mirrorctl_requests_total{cache="none",kind="manifest",status="0"} 1`,
		`mirrorctl_response_bytes_total{kind="manifest"} 50`,
		`mirrorctl_requests_in_flight{kind="manifest"} 1`,
		`mirrorctl_connections 3`,
		`mirrorctl_connections_cut_total{reason="slow"} 1`,
		`mirrorctl_requests_refused_total{reason="login"} 4`,
		`mirrorctl_upstream_received_bytes_total 5000`,
		`mirrorctl_upstream_budget_remaining{registry="docker.io"} 42`,
		`mirrorctl_store_bytes 1000`,
		`mirrorctl_certificate_expiry_timestamp_seconds 2e+09`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(text, "whatever") {
		t.Error("a label has what a client said")
	}
}

// The dashboard asks for metrics that there are.
func TestDashboard(t *testing.T) {
	content, err := os.ReadFile("../../deploy/grafana/mirrorctl.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(content) {
		t.Fatal("it is no JSON")
	}
	m := full()
	m.Begin(0)
	m.End(0, 200, "hit", 1, time.Millisecond)
	text := scrape(t, m)
	names := regexp.MustCompile(`mirrorctl_[a-z_]+[a-z]`).FindAllString(string(content), -1)
	if len(names) < 12 {
		t.Fatalf("it asks for %d metrics", len(names))
	}
	for _, name := range names {
		if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("there is no %s", name)
		}
	}
}
