package serve

import "strings"

// The grammars of names, tags and digests, as scanners: they run for every
// request, and a regular expression costs more than the rest of the answer.
// The tests compare them with distribution/reference and go-digest.

// validPath reports whether s is a repository's path: components of [a-z0-9]+
// with single separators (., _, __, or any number of -) between, joined by /
// (distribution-spec, "Pulling manifests"), no longer than maxNameLength.
func validPath(s string) bool {
	if len(s) > maxNameLength {
		return false
	}
	for {
		component, rest, more := strings.Cut(s, "/")
		if !validComponent(component) {
			return false
		}
		if !more {
			return true
		}
		s = rest
	}
}

func validComponent(s string) bool {
	separator := "" // the one that ends just before i
	for i := range len(s) {
		c := s[i]
		switch {
		case isLower(c) || isDigit(c):
			separator = ""
		case i == 0:
			return false
		case separator == "" && (c == '.' || c == '_' || c == '-'):
			separator = s[i : i+1]
		case c == '-' && separator == "-":
		case c == '_' && separator == "_":
			separator = "__"
		default:
			return false
		}
	}
	return s != "" && separator == ""
}

// validTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isLower(c) && !isUpper(c) && !isDigit(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// validDigest reports whether s is a digest of an algorithm that the store can
// verify.
func validDigest(s string) bool {
	algorithm, hex, _ := strings.Cut(s, ":")
	switch {
	case algorithm == "sha256" && len(hex) == 64:
	case algorithm == "sha512" && len(hex) == 128:
	default:
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; !isDigit(c) && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// validHost reports whether s is a host name or an address, with or without a
// port: labels of letters, digits and inner hyphens joined by dots, or an IPv6
// address in brackets. It is as long as a name in DNS at most.
func validHost(s string) bool {
	if len(s) > 255 {
		return false
	}
	if strings.HasPrefix(s, "[") {
		address, rest, ok := strings.Cut(s[1:], "]")
		return ok && validIPv6(address) && (rest == "" || validPort(rest))
	}
	if i := strings.IndexByte(s, ':'); i >= 0 {
		if !validPort(s[i:]) {
			return false
		}
		s = s[:i]
	}
	for {
		label, rest, more := strings.Cut(s, ".")
		if !validLabel(label) {
			return false
		}
		if !more {
			return true
		}
		s = rest
	}
}

func validLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		inner := i > 0 && i < len(s)-1
		if !isLower(c) && !isUpper(c) && !isDigit(c) && (c != '-' || !inner) {
			return false
		}
	}
	return s != ""
}

func validIPv6(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isDigit(c) && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') && c != ':' {
			return false
		}
	}
	return s != ""
}

// validPort takes the colon too.
func validPort(s string) bool {
	if len(s) < 2 || s[0] != ':' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
