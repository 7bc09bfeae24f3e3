package types

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Namespace separates what users store from what the store keeps about itself.
// It stands before the key, so that no user key can reach another namespace.
type Namespace byte

// The namespaces. The values are part of the disk and wire formats.
const (
	NSData      Namespace = 1 // what clients put under /kv/
	NSAuth      Namespace = 2 // users, groups, tokens, revocations
	NSJobs      Namespace = 3 // the job queue
	NSConflicts Namespace = 4 // versions that lost a conflict, under (key, uuid)
	NSCluster   Namespace = 5 // the roster of nodes
)

// Valid reports whether ns is one of the namespaces above.
func (ns Namespace) Valid() bool { return ns >= NSData && ns <= NSCluster }

// String gives the namespace's name as it appears in logs and problems.
func (ns Namespace) String() string {
	switch ns {
	case NSData:
		return "data"
	case NSAuth:
		return "auth"
	case NSJobs:
		return "jobs"
	case NSConflicts:
		return "conflicts"
	case NSCluster:
		return "cluster"
	}
	return fmt.Sprintf("namespace(%d)", byte(ns))
}

// Key names an item within its namespace. Keys of users obey ParseKey; keys of
// the other namespaces are made by the store and may hold any byte.
type Key string

// MaxKeyLen bounds a user's key, in bytes.
const MaxKeyLen = 1024

// MaxInternalKeyLen bounds any key, in bytes: the conflicts namespace appends a
// separator and a version id to a user's key.
const MaxInternalKeyLen = MaxKeyLen + 64

// ParseKey checks a user's key: valid UTF-8 of 1 to MaxKeyLen bytes, split into
// segments by '/', no segment empty, "." or "..", no control character
// (U+0000 to U+001F, U+007F to U+009F). It does not refuse the reserved first
// segments; see Reserved. The error says what is wrong and is ErrInvalidKey.
func ParseKey(s string) (Key, error) {
	if s == "" {
		return "", fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if len(s) > MaxKeyLen {
		return "", fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrInvalidKey, len(s), MaxKeyLen)
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%w: it is not valid UTF-8", ErrInvalidKey)
	}
	for i, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return "", fmt.Errorf("%w: control character U+%04X at byte %d", ErrInvalidKey, r, i)
		}
	}
	for rest, more := s, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch segment {
		case "":
			return "", fmt.Errorf("%w: it has an empty segment (a slash at an end, or two together)", ErrInvalidKey)
		case ".", "..":
			return "", fmt.Errorf("%w: %q is not allowed as a segment", ErrInvalidKey, segment)
		}
	}
	return Key(s), nil
}

// Reserved reports whether the key's first segment begins with an underscore:
// those paths belong to the store.
func (k Key) Reserved() bool { return strings.HasPrefix(string(k), "_") }

// Ref names one item: a key in a namespace.
type Ref struct {
	NS  Namespace
	Key Key
}

// String gives namespace:key, quoted, for logs and errors.
func (r Ref) String() string { return fmt.Sprintf("%s:%q", r.NS, string(r.Key)) }

// DataRef is the ref of a user's key.
func DataRef(k Key) Ref { return Ref{NS: NSData, Key: k} }
