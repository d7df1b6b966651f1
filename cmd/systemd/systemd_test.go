package systemd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// TestListeners starts this test again, as systemd starts a service for a socket.
func TestListeners(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no systemd")
	}
	if os.Getenv("MIRRORCTL_TEST_SOCKETS") != "" {
		getenv := func(name string) string {
			if name == "LISTEN_PID" { // which only the child itself can know here
				return strconv.Itoa(os.Getpid())
			}
			return os.Getenv(name)
		}
		all, err := Listeners(getenv)
		if err != nil {
			t.Fatal(err)
		}
		for name, listeners := range all {
			for _, ln := range listeners {
				c, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Write([]byte(name))
				c.Close()
			}
		}
		return
	}
	var files []*os.File
	var addresses []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files, addresses = append(files, file), append(addresses, ln.Addr().String())
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestListeners$")
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "MIRRORCTL_TEST_SOCKETS=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=main:admin:main")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var connections []net.Conn // all at first: the order in which they are answered is open
	for _, address := range addresses {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		connections = append(connections, c)
	}
	for i, want := range []string{"main", "admin", "main"} {
		got := make([]byte, len(want))
		if n, err := connections[i].Read(got); string(got[:n]) != want {
			t.Errorf("socket %d is %q: %v", i, got[:n], err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNoListeners(t *testing.T) {
	for _, vars := range []map[string]string{{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}} {
		if all, err := Listeners(env(vars)); len(all) != 0 || err != nil {
			t.Errorf("%v: %v, %v", vars, all, err)
		}
	}
	if _, err := Listeners(env(map[string]string{"LISTEN_FDS": "many", "LISTEN_PID": strconv.Itoa(os.Getpid())})); err == nil {
		t.Error("many are taken for a number")
	}
}

func TestNotify(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no systemd")
	}
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Notify(env(map[string]string{"NOTIFY_SOCKET": path}), Reloading()...); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1000)
	n, err := c.Read(got)
	if err != nil || !strings.HasPrefix(string(got[:n]), "RELOADING=1") {
		t.Errorf("%q: %v", got[:n], err)
	}
	if err := Notify(env(nil), "READY=1"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
}
