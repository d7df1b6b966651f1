//go:build !unix

package cmd

import (
	"io/fs"
	"os"
)

// keepOwner does nothing where files have no owner that could be kept.
func keepOwner(*os.File, fs.FileInfo) {}
