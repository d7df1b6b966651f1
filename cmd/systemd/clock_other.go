//go:build !linux

package systemd

// Reloading are the lines that begin a reload; READY=1 ends it.
func Reloading() []string { return []string{"RELOADING=1"} }
