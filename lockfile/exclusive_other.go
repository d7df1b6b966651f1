//go:build !unix

package lockfile

// exclusive does nothing where folders cannot be locked.
func exclusive(string) (release func(), err error) { return func() {}, nil }
