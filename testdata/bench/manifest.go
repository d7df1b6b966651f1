package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// manifests measures requests for an index, by tag and by digest, over 32
// connections that are kept open.
func manifests(ctx context.Context, b *bench) error {
	m, err := newImages(b.dir, 1<<20)
	if err != nil {
		return err
	}
	servers, stop, err := b.servers(ctx, m)
	if err != nil {
		return err
	}
	defer stop()
	digest, err := m.index.Digest()
	if err != nil {
		return err
	}
	for _, reference := range []string{"latest", digest.String()} {
		t := newTable("Index by "+map[bool]string{true: "tag", false: "digest"}[reference == "latest"]+", 32 connections",
			column{"requests/s", "%.0f", true}, column{"server's processor time, µs/request", "%.1f", true})
		err := turns(b.rounds, servers, func(s *server) error {
			rate, each, err := b.request(ctx, s, s.url(indexRepository, "manifests", reference))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			t.add(s.name, rate, each)
			return nil
		})
		if err != nil {
			return err
		}
		t.print(b.out, names(servers, "bare handler"))
	}
	return nil
}

// names are those of the servers, one of them first.
func names(servers []*server, first string) []string {
	all := []string{first}
	for _, s := range servers {
		if s.name != first {
			all = append(all, s.name)
		}
	}
	return all
}

const accept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkFailed   = regexp.MustCompile(`Non-2xx|Socket errors`)
)

// request sends requests for some seconds. It returns how many were answered in
// a second, and how many microseconds the server's processes worked for each.
func (b *bench) request(ctx context.Context, s *server, url string) (rate, each float64, err error) {
	if _, ok := installed("wrk"); !ok {
		return 0, 0, errors.New("wrk is needed: apt-get install wrk")
	}
	probe, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	probe.Header.Set("Accept", accept) // distribution 2.8 has no index for those who do not
	response, err := http.DefaultClient.Do(probe)
	if err != nil {
		return 0, 0, err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, 0, fmt.Errorf("%s: %s", url, response.Status)
	}
	before, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	out, err := command(ctx, b.dir, "wrk", "-t", "2", "-c", "32", "-d", strconv.Itoa(b.seconds)+"s",
		"-H", "Accept: "+accept, url)
	if err != nil {
		return 0, 0, err
	}
	after, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	requests, rated := wrkRequests.FindStringSubmatch(out), wrkRate.FindStringSubmatch(out)
	if requests == nil || rated == nil || wrkFailed.MatchString(out) {
		return 0, 0, fmt.Errorf("wrk: %s", out)
	}
	n, err := strconv.ParseFloat(requests[1], 64)
	if err != nil {
		return 0, 0, err
	}
	rate, err = strconv.ParseFloat(rated[1], 64)
	return rate, float64((after-before)/time.Nanosecond) / 1e3 / n, err
}
