package lockfile

// Sync is what one sync saw and did. All paths are clean, /-separated and
// relative to the lock.
type Sync struct {
	// Files holds the names of the images that each synced file needs. A file
	// that needs none is in it too; a file that could not be parsed is not, so
	// that its entries stay.
	Files map[string][]string
	// Deleted holds the files that are gone: they count as synced files that
	// need nothing. See [File.Deleted].
	Deleted []string
	// Images holds, by name, the images that are now complete: Digest,
	// MediaType, Size and Platforms; Name and UsedBy are not looked at. For an
	// image with nothing to do that is its old entry. An image that a file needs
	// and that is not here failed.
	Images map[string]Image
}

// Reconcile returns the lock after a sync. It is pure, and a second time with
// the same Sync it changes nothing.
//
//   - Only the synced files are added to and removed from the UsedBy of images.
//     An image that no file uses any more is dropped; one that a file outside
//     this sync uses never is.
//   - An image that was added by hand (without UsedBy) stays, and stays without
//     UsedBy also while files need it.
//   - An image that failed keeps its old entry unchanged, also its UsedBy; if it
//     had none, it gets none.
func Reconcile(old File, s Sync) File {
	synced := map[string]bool{}
	for _, file := range s.Deleted {
		synced[file] = true
	}
	users := map[string][]string{}
	for file, names := range s.Files {
		synced[file] = true
		for _, name := range names {
			users[name] = append(users[name], file)
		}
	}

	images := old.byName()
	for name, entry := range images {
		now, done := s.Images[name]
		if len(users[name]) > 0 && !done {
			continue // failed
		}
		files := users[name]
		for _, file := range entry.UsedBy {
			if !synced[file] {
				files = append(files, file)
			}
		}
		byHand := len(entry.UsedBy) == 0
		if !byHand && len(files) == 0 {
			delete(images, name)
			continue
		}
		if done {
			entry = now
		}
		entry.Name = name
		entry.UsedBy = sortedSet(files)
		if byHand {
			entry.UsedBy = nil
		}
		images[name] = entry
	}
	for name, files := range users {
		now, done := s.Images[name]
		if _, known := images[name]; known || !done {
			continue
		}
		now.Name = name
		now.UsedBy = sortedSet(files)
		images[name] = now
	}
	return sortedFile(images)
}
