package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what commands print into the scripts that compare it")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mirrorctl": main, "exits": exits, "docker": fakeClient, "k3s": fakeClient, "kind": fakeClient})
}

func TestScripts(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		ContinueOnError:    true,
		Setup: func(env *testscript.Env) error {
			env.Values[hubsKey{}] = hubs{}
			env.Setenv("REPO", here)
			env.Setenv("BIN", filepath.SplitList(env.Getenv("PATH"))[0])
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command otherwise
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("MIRRORCTL_STORE", filepath.Join(env.WorkDir, "store"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"registry": registryCommand,
			"http":     httpCommand,
			"until":    untilCommand,
			"expand":   expandCommand,
			"port":     portCommand,
			"patch":    patchCommand,
		},
	})
}

// untilCommand is a command of the scripts: until REGEXP PROGRAM ARGS... runs the
// program again and again until its standard output matches.
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM ARGS...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("never: %s", args[0])
		}
	}
}

// exits is a command of the scripts: exits [-unheard] CODE PROGRAM ARGS... fails
// unless the program exits with that code. It is a program too, so that scripts
// can run it in the background and interrupt it. With -unheard nobody reads what
// the program prints: both streams are pipes whose reader has gone away.
func exits() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	args := os.Args[1:]
	unheard := args[0] == "-unheard"
	if unheard {
		args = args[1:]
	}
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	var err error
	if unheard {
		var r, w *os.File
		if r, w, err = os.Pipe(); err == nil {
			err = r.Close()
		}
		cmd.Stdout, cmd.Stderr = w, w
	}
	if err = errors.Join(err, cmd.Start()); err != nil {
		fmt.Fprintln(os.Stderr, "exits:", err)
		os.Exit(1)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended by itself
		}
	}()
	_ = cmd.Wait() // the state says it
	if got := cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[0] {
		fmt.Fprintf(os.Stderr, "exits: %s exited with %d, want %s\n", args[1], got, args[0])
		os.Exit(1)
	}
}

// httpCommand is http [-retry] METHOD URL ['Header: value'...]: it prints the
// status, the headers that clients of registries look at, and the body. It waits
// for a server that is not up yet, and trusts the authority in $CA.
func httpCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http METHOD URL ['Header: value'...]")
	}
	req, err := http.NewRequest(args[0], args[1], nil)
	ts.Check(err)
	for _, header := range args[2:] {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	client := http.DefaultClient
	if ca := ts.Getenv("CA"); ca != "" {
		trusted := x509.NewCertPool()
		trusted.AppendCertsFromPEM([]byte(ts.ReadFile(ca)))
		client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true}}
	}
	resp, err := client.Do(req)
	for start := time.Now(); err != nil && time.Since(start) < 20*time.Second; {
		time.Sleep(20 * time.Millisecond)
		resp, err = client.Do(req)
	}
	ts.Check(err)
	defer resp.Body.Close()
	fmt.Fprintln(ts.Stdout(), resp.Status)
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Link", "OCI-Filters-Applied", "Retry-After", "Www-Authenticate", "X-Mirrorctl-Cache"} {
		if value := resp.Header.Get(name); value != "" {
			fmt.Fprintf(ts.Stdout(), "%s: %s\n", name, value)
		}
	}
	fmt.Fprintln(ts.Stdout())
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

// expandCommand is expand FILE...: it puts the values of $VARIABLES into files.
func expandCommand(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o644))
	}
}

// portCommand is port NAME: it sets $NAME to an address that is free.
func portCommand(ts *testscript.TestScript, neg bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], ln.Addr().String())
	ts.Check(ln.Close())
}

// patchCommand is patch FILE OFFSET HEX: it writes bytes into a file.
func patchCommand(ts *testscript.TestScript, neg bool, args []string) {
	offset, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	data, err := hex.DecodeString(args[2])
	ts.Check(err)
	ts.Check(os.Chmod(ts.MkAbs(args[0]), 0o644)) // blobs are read-only
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(data, offset)
	ts.Check(errors.Join(err, f.Close()))
}

// TestSample holds that the sample is what its program writes.
func TestSample(t *testing.T) {
	fresh := t.TempDir()
	if out, err := exec.Command("go", "run", "./testdata/sample/gen", fresh).CombinedOutput(); err != nil {
		t.Fatalf("gen: %v\n%s", err, out)
	}
	want, got := tree(t, filepath.Join(fresh, "library")), tree(t, filepath.Join("testdata", "sample", "library"))
	if !maps.Equal(got, want) {
		t.Error("testdata/sample is not what its program writes: go run ./testdata/sample/gen")
	}
}

// tree reads the files of a folder.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, relErr := filepath.Rel(root, path)
		files[rel] = string(data)
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
