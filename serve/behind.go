package serve

import "mirrorctl/store"

// Behind returns the repository that a mirror with these options serves under a
// path: what stands behind the mirror's own address in an image name, such as
// ubuntu, ghcr.io/owner/app or, with an alias, ghcr/owner/app. It reads names as
// requests are read. The error is one of the options.
func (o Options) Behind(path string) (repo store.Repository, ok bool, err error) {
	n, err := newNames(o.DefaultRegistry, o.Aliases)
	if err != nil {
		return store.Repository{}, false, err
	}
	repo, ok = n.repository("", path)
	return repo, ok, nil
}
