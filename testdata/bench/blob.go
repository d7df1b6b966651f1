package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// blobs measures the download of a large blob by one client and by eight, and
// how long the first byte takes.
func blobs(ctx context.Context, b *bench) error {
	m, err := newImages(b.dir, b.blob)
	if err != nil {
		return err
	}
	servers, stop, err := b.servers(ctx, m)
	if err != nil {
		return err
	}
	defer stop()
	// What all are compared with.
	reference := "nginx"
	if !slices.ContainsFunc(servers, func(s *server) bool { return s.name == reference }) {
		reference = "bare handler"
	}
	for _, clients := range []int{1, 8} {
		t := newTable(fmt.Sprintf("Blob of %d MiB, clients at a time: %d", b.blob>>20, clients),
			column{"MB/s", "%.0f", true}, column{"server's processor time, s/GB", "%.3f", true})
		err := turns(b.rounds, servers, func(s *server) error {
			before, err := s.cpu()
			if err != nil {
				return err
			}
			began := time.Now()
			var wait sync.WaitGroup
			errs := make([]error, clients)
			for i := range clients {
				wait.Go(func() {
					errs[i] = download(s.address, s.url(largeRepository, "blobs", m.layer.digest.String()), b.blob)
				})
			}
			wait.Wait()
			took := time.Since(began)
			if err := errors.Join(errs...); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			after, err := s.cpu()
			gigabytes := float64(b.blob) * float64(clients) / 1e9
			t.add(s.name, gigabytes*1e3/took.Seconds(), (after-before).Seconds()/gigabytes)
			return err
		})
		if err != nil {
			return err
		}
		t.print(b.out, names(servers, reference))
	}
	t := newTable("First byte of a blob, of 200 requests over one connection", column{"µs", "%.0f", true})
	err = turns(b.rounds, servers, func(s *server) error {
		took, err := firstByte(s.address, s.url(largeRepository, "blobs", m.layer.digest.String()))
		t.add(s.name, float64(took)/1e3)
		return err
	})
	if err != nil {
		return err
	}
	t.print(b.out, names(servers, reference))
	return nil
}

// download reads a body of size bytes with as little work as a client can have.
func download(address, url string, size int64) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nConnection: close\r\n\r\n", path(url, address), address); err != nil {
		return err
	}
	buffer := make([]byte, 1<<20)
	var total int64
	for {
		n, err := conn.Read(buffer)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if total < size || total > size+4096 { // the head is in it
		return fmt.Errorf("%d bytes for a blob of %d", total, size)
	}
	return nil
}

func path(url, address string) string { return url[len("http://"+address):] }

// firstByte is the median of the time until the answer to a request for the
// first byte of a blob.
func firstByte(address, url string) (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var all []time.Duration
	for range 200 {
		request, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Range", "bytes=0-0")
		began := time.Now()
		response, err := client.Do(request)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		all = append(all, time.Since(began))
		if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusPartialContent {
			return 0, fmt.Errorf("%s: %s: %w", address, response.Status, err)
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}
