package serve

import "mirrorctl/store"

// Behind returns the repository that a mirror with these options serves under a
// path of one of its addresses, host or host:port: what stands behind that in an
// image name, such as ubuntu, ghcr.io/owner/app or, with an alias, ghcr/owner/app.
// It reads names as requests are read. The error is one of the options.
func (o Options) Behind(address, path string) (repo store.Repository, ok bool, err error) {
	n, err := newNames(o)
	if err != nil {
		return store.Repository{}, false, err
	}
	repo, ok = n.repository(n.virtual(address), path)
	return repo, ok, nil
}
