//go:build !linux

package limit

import "net"

// queued cannot tell here.
func queued(net.Conn) (int64, bool) { return 0, false }
