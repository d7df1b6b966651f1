package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"mirrorctl/cmd/systemd"
)

// listeners opens the addresses to listen on, and the one for metrics, which may be
// nil. With sockets from the service manager the default address is not needed; what
// is asked for comes on top.
func (p *program) listeners(o serveOptions) (all []net.Listener, admin net.Listener, err error) {
	passed, err := systemd.Listeners(p.getenv)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			for _, ln := range all {
				_ = ln.Close()
			}
		}
	}()
	for _, listeners := range passed {
		all = append(all, listeners...)
	}
	if len(all) == 0 || o.given["listen"].by != "" {
		for _, address := range o.given["listen"].values {
			ln, err := listenOn(address)
			if err != nil {
				return all, nil, err
			}
			all = append(all, ln)
		}
	}
	if address := o.text("admin-listen"); address != "" {
		admin, err = listenOn(address)
	}
	return all, admin, err
}

func listenOn(address string) (net.Listener, error) {
	network := "tcp"
	where := address
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		network, where = "unix", path
		if err := removeSocket(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
	}
	ln, err := net.Listen(network, where)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: the port is in use; choose another with --listen", address)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, cause(err))
	}
	return ln, nil
}

// removeSocket removes a socket that nobody listens on, as a kill leaves it.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cause(err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file that is no socket")
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return errors.New("another process listens there")
	}
	return os.Remove(path)
}
