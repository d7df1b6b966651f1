// Package systemd speaks with the service manager: it takes the sockets that it
// opened, and tells it how the service is.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// firstSocket is the file descriptor of the first socket (sd_listen_fds(3)).
const firstSocket = 3

// Listeners returns the sockets that were passed to this process, by their names
// in FileDescriptorName=, in their order; none if it was not started for a socket.
// It may be called once.
func Listeners(getenv func(string) string) (map[string][]net.Listener, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	count, err := strconv.ParseUint(getenv("LISTEN_FDS"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS of the service manager: %w", err)
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	all := map[string][]net.Listener{}
	for i := range int(count) {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		file := os.NewFile(uintptr(firstSocket+i), name)
		ln, err := net.FileListener(file)
		_ = file.Close() // the listener has a copy
		if err != nil {
			return nil, fmt.Errorf("socket %d (%s) of the service manager: %w", i, name, err)
		}
		all[name] = append(all[name], ln)
	}
	return all, nil
}

// Notify tells the service manager about the service (sd_notify(3)): each line is
// an assignment, such as READY=1. Without a service manager it does nothing.
func Notify(getenv func(string) string, lines ...string) error {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") { // an abstract socket
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(strings.Join(lines, "\n")))
	return err
}
