//go:build unix

package cmd

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file the owner that another has. Only root can, and for
// anybody else the file is worth more than its owner.
func keepOwner(file *os.File, like fs.FileInfo) {
	if stat, ok := like.Sys().(*syscall.Stat_t); ok {
		_ = file.Chown(int(stat.Uid), int(stat.Gid))
	}
}
