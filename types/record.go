package types

import "github.com/google/uuid"

// Flags qualify a record. The values are part of the disk and wire formats.
type Flags uint8

// The flags.
const (
	FlagTombstone Flags = 1 << 0 // the key was deleted by this version; no value
	FlagRaw       Flags = 1 << 1 // the value is bytes, not JSON
)

// Meta describes an item beside its value.
type Meta struct {
	Owner       string // who owns the item; "root" where no user wrote it
	Group       string
	Mode        uint16 // 12 permission bits: owner, group, others x create, delete, write, read
	ContentType string // of a raw value; empty for JSON
}

// Record is one version of one key. Records are immutable once written: whoever
// holds one may share its slices and must not write to them.
type Record struct {
	Ref
	Version
	Context   Context
	Flags     Flags
	ExpiresAt int64 // Unix ms; 0 = never. Absolute, set by the writer
	PurgeAt   int64 // Unix ms; 0 = never. When the record may be forgotten
	Meta      Meta
	Value     []byte
}

// Tombstone reports whether this version deleted the key.
func (r *Record) Tombstone() bool { return r.Flags&FlagTombstone != 0 }

// Raw reports whether the value is bytes and not JSON.
func (r *Record) Raw() bool { return r.Flags&FlagRaw != 0 }

// Live reports whether the record is a value that readers see at now (Unix ms):
// no tombstone and not expired.
func (r *Record) Live(now int64) bool {
	return !r.Tombstone() && (r.ExpiresAt == 0 || r.ExpiresAt > now)
}

// Purged reports whether the horizon (Unix ms) has passed the record: it is
// absent everywhere, removed from disk or not.
func (r *Record) Purged(horizon int64) bool { return r.PurgeAt != 0 && r.PurgeAt <= horizon }

// PurgeTime gives the purge_at of a record: the greatest of its timestamp, its
// expiry and the horizon, plus grace, rounded up to 10 s; all in Unix ms. It is
// 0 for a record that neither expires nor is a tombstone.
func PurgeTime(tombstone bool, timestamp Timestamp, expiresAt, horizon, grace int64) int64 {
	if !tombstone && expiresAt == 0 {
		return 0
	}
	const step = 10_000
	at := max(timestamp.Millis(), expiresAt, horizon) + grace
	return (at + step - 1) / step * step
}

// ConflictKey is the key in the conflicts namespace of a version of key that
// lost. User keys hold no NUL, so the keys of one user key are contiguous and
// sort by it.
func ConflictKey(key Key, id VersionID) Key {
	return key + "\x00" + Key(id.String())
}

// ParseConflictKey takes a key of the conflicts namespace apart.
func ParseConflictKey(k Key) (Key, VersionID, bool) {
	const tail = 1 + 36
	if len(k) <= tail || k[len(k)-tail] != 0 {
		return "", VersionID{}, false
	}
	id, err := uuid.Parse(string(k[len(k)-tail+1:]))
	return k[:len(k)-tail], VersionID(id), err == nil
}
