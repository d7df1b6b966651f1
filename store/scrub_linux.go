package store

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// lowPriority lets the disk serve everybody else first (ioprio_set(2), class
// idle). It keeps the calling goroutine on a thread of its own, which ends with
// it. The processor is not asked for the same (SCHED_IDLE): Go stops all threads
// of the process now and then, and would wait for one that nobody lets run. A
// scrub takes little of it anyway.
func lowPriority() {
	const (
		whoProcess = 1 // IOPRIO_WHO_PROCESS; 0 is the calling thread
		classIdle  = 3 << 13
	)
	runtime.LockOSThread()
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle) // without it, it is as any other
}

// dropCache takes a file out of the page cache.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // advice
}
