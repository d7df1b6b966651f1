//go:build !unix

package lockfile

// exclusive does nothing where folders cannot be locked.
func exclusive(string) (release func(), alone bool, err error) { return func() {}, false, nil }
