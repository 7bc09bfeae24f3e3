package types

import (
	"bytes"
	"cmp"
	"time"

	"github.com/google/uuid"
)

// Timestamp is a hybrid logical clock reading (Kulkarni et al., "Logical
// Physical Clocks", 2014): 48 bits of Unix milliseconds, then 16 bits of a
// counter that carries into the milliseconds. Comparing the integers compares
// the times.
type Timestamp uint64

// TimestampOf is the first timestamp of a Unix millisecond.
func TimestampOf(ms int64) Timestamp { return Timestamp(ms) << 16 }

// Millis gives the Unix milliseconds, which is what the HTTP interface shows.
func (t Timestamp) Millis() int64 { return int64(t >> 16) }

// Time gives the wall-clock part.
func (t Timestamp) Time() time.Time { return time.UnixMilli(t.Millis()) }

// NodeID is a node's UUID: made once, kept in its data directory.
type NodeID uuid.UUID

// String gives the usual text form.
func (n NodeID) String() string { return uuid.UUID(n).String() }

// IsZero reports whether the id is unset.
func (n NodeID) IsZero() bool { return n == NodeID{} }

// ParseNodeID reads the text form of a node's UUID.
func ParseNodeID(s string) (NodeID, error) {
	id, err := uuid.Parse(s)
	return NodeID(id), err
}

// VersionID names one version of one key. The node that takes the write makes
// it (UUID version 7); a client never chooses one.
type VersionID uuid.UUID

// String gives the usual text form.
func (v VersionID) String() string { return uuid.UUID(v).String() }

// ParseVersionID reads the text form of a version's UUID.
func ParseVersionID(s string) (VersionID, error) {
	id, err := uuid.Parse(s)
	return VersionID(id), err
}

// Version is what orders the versions of a key.
type Version struct {
	Timestamp    Timestamp
	Origin       NodeID    // the node that took the write
	OriginJoined int64     // when that node first joined, Unix ms; here because membership views differ
	UUID         VersionID // unique
}

// Compare gives +1 if v wins over w, -1 if w wins, 0 if they are one version:
// the greater timestamp wins, then the origin that joined earlier, then the
// lexicographically smaller uuid.
func (v Version) Compare(w Version) int {
	if c := cmp.Compare(v.Timestamp, w.Timestamp); c != 0 {
		return c
	}
	if c := cmp.Compare(w.OriginJoined, v.OriginJoined); c != 0 {
		return c
	}
	return bytes.Compare(w.UUID[:], v.UUID[:])
}
