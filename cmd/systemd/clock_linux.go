package systemd

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Reloading are the lines that begin a reload; READY=1 ends it. The time tells the
// service manager which of several reloads it is.
func Reloading() []string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return []string{"RELOADING=1"}
	}
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)}
}
