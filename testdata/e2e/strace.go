//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// traced are the system calls by which a program changes files, and those that
// tell where it does. An argument of read is of no interest but its result.
const traced = "openat,open,creat,close,read,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate," +
	"rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,copy_file_range,sendfile,splice"

// traceTo puts strace before a command, which writes down its system calls.
func traceTo(file, name string, args ...string) *exec.Cmd {
	return exec.Command("strace", append([]string{"-f", "-qq", "-xx", "-s", "16777216", "-e", "signal=none",
		"-e", "trace=" + traced, "-e", "raw=read,lseek", "-o", file, "--", name}, args...)...)
}

// systemCall is one of a trace.
type systemCall struct {
	name   string
	args   []string // strings are as the program gave them
	result int64
	failed bool
	began  bool // it has only begun; another entry has its end
}

// readTrace reads what strace wrote. A call during which another thread had one
// is there twice: when it began, and when it ended.
func readTrace(tb testing.TB, path string) (calls []systemCall) {
	tb.Helper()
	file, err := os.Open(path)
	check(tb, err)
	defer file.Close()
	begun := map[string]string{} // by thread
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return calls
		}
		thread, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		text = strings.TrimLeft(text, " ")
		if rest, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			begun[thread] = rest
			c, err := parseCall(rest + ") = 0")
			check(tb, err)
			c.began = true
			calls = append(calls, c)
			continue
		}
		if strings.HasPrefix(text, "<... ") {
			_, rest, _ := strings.Cut(text, " resumed>")
			text = begun[thread] + rest
			delete(begun, thread)
			c, err := parseCall(text)
			check(tb, err)
			calls = append(calls, c)
			continue
		}
		if !strings.Contains(text, "(") || strings.HasPrefix(text, "+++") {
			continue
		}
		c, err := parseCall(text)
		check(tb, err)
		if c.name == "fsync" || c.name == "fdatasync" || c.name == "close" {
			first := c
			first.began = true
			calls = append(calls, first)
		}
		calls = append(calls, c)
	}
}

// parseCall reads name(argument, ...) = result.
func parseCall(text string) (c systemCall, err error) {
	name, rest, _ := strings.Cut(text, "(")
	c.name = name
	for depth := 0; ; {
		end := strings.IndexAny(rest, `,()[]{}"`)
		if end < 0 {
			return c, fmt.Errorf("not a system call: %s", tail(text, 200))
		}
		switch before := strings.TrimSpace(rest[:end]); {
		case rest[end] == '"':
			length := strings.IndexByte(rest[end+1:], '"')
			value, err := unhex(rest[end+1 : end+1+length])
			if err != nil {
				return c, fmt.Errorf("%w: %s", err, tail(text, 200))
			}
			c.args = append(c.args, value)
			rest = strings.TrimPrefix(rest[end+length+2:], "...")
			if depth == 0 { // up to the comma, or the end
				rest = strings.TrimPrefix(rest, ",")
			}
			if depth == 0 && strings.HasPrefix(rest, ")") {
				return c, c.ends(rest)
			}
			continue
		case strings.ContainsRune("([{", rune(rest[end])):
			depth++
		case depth > 0 && rest[end] != ',':
			depth--
		case depth == 0:
			if before != "" {
				c.args = append(c.args, before)
			}
			if rest[end] == ')' {
				return c, c.ends(rest[end:])
			}
		}
		rest = rest[end+1:]
	}
}

// ends reads what follows the arguments.
func (c *systemCall) ends(rest string) error {
	_, result, _ := strings.Cut(rest, "= ")
	word, _, _ := strings.Cut(result, " ")
	if word == "?" || word == "" { // it was interrupted, or ended with the program
		c.failed = true
		return nil
	}
	var err error
	c.result, err = strconv.ParseInt(word, 0, 64)
	if err != nil { // a raw result may be an error, which is then a large number
		c.failed, err = true, nil
	}
	c.failed = c.failed || c.result < 0
	return err
}

// unhex reads \x61\x62.
func unhex(text string) (string, error) {
	out := make([]byte, len(text)/4)
	for i := range out {
		n, err := strconv.ParseUint(text[4*i+2:4*i+4], 16, 8)
		if err != nil {
			return "", err
		}
		out[i] = byte(n)
	}
	return string(out), nil
}

// replay makes on a disk what a traced program has done to it.
type replay struct {
	*disk
	root   string // of the disk, on the machine; other files are left out
	folder string // that the program ran in
	files  map[string]*opened
	syncs  map[string]syncing // by file, of those that have begun
	said   strings.Builder    // on standard output and standard error

	answered string // the digest that a client was told first
}

// opened is a file that the program has open.
type opened struct {
	*node
	offset int64
}

// syncing is what an fsync that has begun will make durable.
type syncing struct {
	*node
	written int
	content []byte
}

// step makes one call, and reports whether it changed the disk.
func (r *replay) step(c systemCall) (bool, error) {
	if c.began {
		switch file := r.files[c.args[0]]; {
		case file == nil:
		case c.name == "close": // another thread may get the number before it ends
			delete(r.files, c.args[0])
		case c.name == "fsync" || c.name == "fdatasync":
			r.syncs[c.args[0]] = syncing{file.node, file.written, file.content}
		}
		return false, nil
	}
	if c.failed {
		return false, nil
	}
	if pathsOf[c.name] != nil {
		return r.name(c)
	}
	switch c.name {
	case "open", "openat", "creat":
		return r.open(c)
	case "write":
		if c.args[0] == "1" || c.args[0] == "2" {
			r.said.WriteString(c.args[1])
			return true, nil
		}
		const header = "Docker-Content-Digest: "
		if _, digest, ok := strings.Cut(c.args[1], header); ok && r.answered == "" && r.files[c.args[0]] == nil {
			r.answered, _, _ = strings.Cut(digest, "\r")
			return true, nil
		}
	case "fsync", "fdatasync":
		s, there := r.syncs[c.args[0]]
		if there {
			r.sync(s.node, s.written, s.content)
			delete(r.syncs, c.args[0])
		}
		return there, nil
	}
	number := c.args[0]
	if strings.HasPrefix(number, "0x") { // raw
		n, err := strconv.ParseInt(number, 0, 64)
		if err != nil {
			return false, err
		}
		number = strconv.FormatInt(n, 10)
	}
	file := r.files[number]
	if file == nil {
		return false, nil
	}
	switch c.name {
	case "close":
		return false, nil
	case "read":
		file.offset += c.result
		return false, nil
	case "lseek":
		file.offset = c.result
		return false, nil
	case "write":
		file.write(writer{offset: file.offset, bytes: []byte(c.args[1][:c.result])})
		file.offset += c.result
	case "pwrite64":
		offset, err := strconv.ParseInt(c.args[3], 0, 64)
		if err != nil {
			return false, err
		}
		file.write(writer{offset: offset, bytes: []byte(c.args[1][:c.result])})
	case "ftruncate":
		size, err := strconv.ParseInt(c.args[1], 0, 64)
		if err != nil {
			return false, err
		}
		file.write(writer{offset: size, resize: true})
	default:
		return false, fmt.Errorf("%s on a file of the store, which the model does not know", c.name)
	}
	return true, nil
}

// path returns where a path is on the disk, or false for other files.
func (r *replay) path(name string) (string, bool) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.folder, name)
	}
	below, err := filepath.Rel(r.root, name)
	// The index of the WAL is in memory, and made anew after a crash.
	return below, err == nil && !strings.HasPrefix(below, "..") && !strings.HasSuffix(below, "-shm")
}

// pathsOf says which arguments of the calls that change names are paths. Others
// are not known to the model.
var pathsOf = map[string][]int{
	"rename": {0, 1}, "renameat": {1, 3}, "renameat2": {1, 3}, "unlink": {0}, "unlinkat": {1},
	"rmdir": {0}, "mkdir": {0}, "mkdirat": {1}, "link": {0, 1}, "linkat": {1, 3}, "symlinkat": {2},
}

func (r *replay) open(c systemCall) (bool, error) {
	if c.name == "openat" {
		if c.args[0] != "AT_FDCWD" {
			return false, nil
		}
		c.args = c.args[1:]
	}
	path, ours := r.path(c.args[0])
	if !ours {
		return false, nil
	}
	if path == "." {
		r.files[strconv.FormatInt(c.result, 10)] = &opened{node: r.disk.root}
		return false, nil
	}
	p, err := r.find(path)
	if err != nil {
		return false, err
	}
	flags, changed := c.args[1], false
	n := p.node()
	if n == nil {
		n, changed = &node{}, true
		r.put(map[place]*node{p: n})
	} else if strings.Contains(flags, "O_TRUNC") && len(n.content) > 0 {
		n.write(writer{resize: true})
		changed = true
	}
	if strings.Contains(flags, "O_APPEND") {
		return false, fmt.Errorf("%s is appended to, which the model does not know", path)
	}
	r.files[strconv.FormatInt(c.result, 10)] = &opened{node: n}
	return changed, nil
}

// name makes a call that changes names.
func (r *replay) name(c systemCall) (bool, error) {
	var at []place
	for _, i := range pathsOf[c.name] {
		path, ours := r.path(c.args[i])
		if !ours {
			return false, nil
		}
		p, err := r.find(path)
		if err != nil {
			return false, err
		}
		at = append(at, p)
	}
	switch {
	case strings.HasPrefix(c.name, "rename") && len(at) == 2:
		r.put(map[place]*node{at[1]: at[0].node(), at[0]: nil})
	case strings.HasPrefix(c.name, "unlink"), c.name == "rmdir":
		r.put(map[place]*node{at[0]: nil})
	case strings.HasPrefix(c.name, "mkdir"):
		r.put(map[place]*node{at[0]: newFolder()})
	default:
		return false, fmt.Errorf("%s %q, which the model does not know", c.name, c.args)
	}
	return true, nil
}
