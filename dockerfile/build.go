package dockerfile

import "regexp"

// A Build is a build that another file describes, such as a service of a
// Compose file or a target of a Bake file.
type Build struct {
	// Name is what that file calls it.
	Name string

	// File is the path of that file as it was given, and Line where in it the
	// build is described, from 1; 0 if that is not known.
	File string
	Line int

	// Context is the folder or the address that is the context of the build.
	Context string

	// Dockerfile is the path of the Dockerfile, unless Text or Remote is set.
	Dockerfile string

	// Text is the Dockerfile itself, if it is written in that file, and
	// TextLine the line in it at which Text begins; 0 if that is not known.
	Text     []byte
	TextLine int

	// Remote is the address of the context that has the Dockerfile, where that
	// cannot be read without a network.
	Remote string

	// Unknown has the build arguments whose values are not known, and why; any
	// value that is not empty stands for each in Options.
	Unknown map[string]string

	// Made are the full names of the images that the other builds of a project
	// make. Where they are built there is no need to look these up.
	Made []string

	// Options say how it is built. They have no AllStages, and no Platforms if
	// the file does not say any.
	Options Options
}

// Place returns the line in File for a line of Text. Where that is not known it
// is the line of the build.
func (b Build) Place(line int) int {
	if b.TextLine == 0 || line == 0 {
		return b.Line
	}
	return b.TextLine + line - 1
}

// remoteContext is what BuildKit fetches a context from: an address, or a git
// repository as git itself writes it, user@host:path.
var remoteContext = regexp.MustCompile(`^((https?|git|ssh)://|github\.com/|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:)`)

// IsRemoteContext says that a build context is fetched and is no folder here.
func IsRemoteContext(context string) bool { return remoteContext.MatchString(context) }
