package store

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// holder says, for people, which process has the lock of a byte of a file. It
// reads what the kernel lists: to open the file and ask would, when it is closed,
// take away the locks that this process has on it.
func holder(path string, at int64) string {
	const nobody = "which one is not known"
	var stat unix.Stat_t
	list, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Stat(path, &stat) != nil {
		return nobody
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	for _, line := range strings.Split(string(list), "\n") {
		// 1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 120 120
		fields := strings.Fields(line)
		if len(fields) != 8 || fields[3] != "WRITE" || fields[5] != file {
			continue
		}
		var first, last int64
		fmt.Sscan(fields[6], &first)
		if n, _ := fmt.Sscan(fields[7], &last); n == 1 && last < at || first > at { // otherwise it goes to EOF
			continue
		}
		return describeProcess(fields[4])
	}
	return nobody
}

// describeProcess tells what runs under a process id, and whether it was stopped.
func describeProcess(pid string) string {
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "process " + pid
	}
	text := fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
	status, _ := os.ReadFile("/proc/" + pid + "/status")
	if strings.Contains(string(status), "\nState:\tT") {
		text += ", which is stopped: let it go on (kill -CONT " + pid + ") or end it"
	}
	return text
}
