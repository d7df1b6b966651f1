package limit

import (
	"net"

	"golang.org/x/sys/unix"
)

// queued is how many bytes the kernel has that the other side has not
// acknowledged (tcp(7), SIOCOUTQ).
func queued(c net.Conn) (n int64, ok bool) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return 0, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, false
	}
	var bytes int
	var failed error
	err = raw.Control(func(fd uintptr) { bytes, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return int64(bytes), err == nil && failed == nil
}
