package types

import (
	"bytes"
	"slices"
)

// MaxContext bounds a context's entries, so that a key that many nodes wrote
// does not grow without end.
const MaxContext = 16

// ContextEntry says: this version descends from Origin's version of Timestamp,
// and from all that Origin wrote to the key before.
type ContextEntry struct {
	Origin    NodeID
	Timestamp Timestamp
}

// Context is a small version vector: for each origin the timestamp of its
// newest version that a version descends from, sorted by origin. It tells an
// overwrite from a conflict, also when versions in between were never seen.
//
// It may be short of entries (see Extend), and then reports a conflict too
// many, never one too few.
type Context []ContextEntry

// Covers reports whether a version with this context descends from v.
func (c Context) Covers(v Version) bool {
	for _, e := range c {
		if e.Origin == v.Origin {
			return e.Timestamp >= v.Timestamp
		}
	}
	return false
}

// Extend gives the context of a version written over v, whose own context is
// c. Above MaxContext entries the oldest is dropped. c is not changed.
func (c Context) Extend(v Version) Context {
	out := make(Context, 0, len(c)+1)
	out = append(out, c...)
	i, found := slices.BinarySearchFunc(out, v.Origin, func(e ContextEntry, id NodeID) int {
		return bytes.Compare(e.Origin[:], id[:])
	})
	switch {
	case !found:
		out = slices.Insert(out, i, ContextEntry{v.Origin, v.Timestamp})
	case out[i].Timestamp < v.Timestamp:
		out[i].Timestamp = v.Timestamp
	}
	if len(out) > MaxContext {
		oldest := 0
		for i, e := range out {
			if e.Timestamp < out[oldest].Timestamp {
				oldest = i
			}
		}
		out = slices.Delete(out, oldest, oldest+1)
	}
	return out
}
