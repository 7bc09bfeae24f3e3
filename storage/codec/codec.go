// Package codec is the one binary form of a record: on disk, on the wire and in
// backups.
//
// Layout of version 1; integers are big-endian, "uvarint" is that of
// encoding/binary, and a text is a uvarint length and its bytes:
//
//	offset  size  field
//	0       1     format version, 1
//	1       1     flags
//	2       1     namespace
//	3       8     timestamp
//	11      16    origin
//	27      8     origin_joined, Unix ms
//	35      16    uuid
//	51      var   expires_at, uvarint, Unix ms, 0 = never
//	        var   purge_at, uvarint, Unix ms, 0 = never
//	        1     number of context entries, at most types.MaxContext
//	        24*n  context: origin (16), timestamp (8), sorted by origin
//	        2     mode
//	        var   owner, group, content type: three texts
//	        var   key: text
//	        var   value: uvarint length and its bytes
//	        4     CRC32C (Castagnoli) of all that stands before it
//
// Invariants:
//   - Decode accepts exactly what Append makes: every record has one encoding,
//     and each length is checked before it is used.
//   - The checksum covers the key, so that a record found under another key, or
//     a bit that flipped anywhere, is noticed.
//
// The package does no I/O and knows nothing of where the bytes are kept.
package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"kvs/types"
)

// Version is the format version that this package writes and reads.
const Version = 1

// MaxValue bounds a record's value, in bytes, so that a damaged length is never
// allocated.
const MaxValue = 256 << 20

const (
	maxText      = 1024
	contextEntry = 16 + 8
	fixed        = 51 // bytes before the first variable field
	trailer      = 4  // CRC32C
	knownFlags   = types.FlagTombstone | types.FlagRaw
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Error says what is wrong with an encoded record, and where. It is
// types.ErrCorrupt.
type Error struct {
	Offset int // bytes from the start of the record
	Reason string
}

// Error gives reason and offset.
func (e *Error) Error() string { return fmt.Sprintf("%s at offset %d", e.Reason, e.Offset) }

// Is makes every Error a types.ErrCorrupt.
func (e *Error) Is(target error) bool { return target == types.ErrCorrupt }

// Size gives the length of r's encoding, in bytes, at most a few too many.
func Size(r *types.Record) int {
	return fixed + 2*binary.MaxVarintLen64 + 1 + len(r.Context)*contextEntry + 2 +
		len(r.Meta.Owner) + len(r.Meta.Group) + len(r.Meta.ContentType) + len(r.Key) + len(r.Value) + 3*2 + 2 + 5 + trailer
}

// Append adds the encoding of r to dst.
func Append(dst []byte, r *types.Record) []byte {
	if len(r.Context) > types.MaxContext {
		panic(fmt.Sprintf("codec: %d context entries, invariant: at most %d", len(r.Context), types.MaxContext))
	}
	start := len(dst)
	dst = append(dst, Version, byte(r.Flags), byte(r.NS))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Timestamp))
	dst = append(dst, r.Origin[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.OriginJoined))
	dst = append(dst, r.UUID[:]...)
	dst = binary.AppendUvarint(dst, uint64(r.ExpiresAt))
	dst = binary.AppendUvarint(dst, uint64(r.PurgeAt))
	dst = append(dst, byte(len(r.Context)))
	for _, e := range r.Context {
		dst = append(dst, e.Origin[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.Timestamp))
	}
	dst = binary.BigEndian.AppendUint16(dst, r.Meta.Mode)
	dst = appendText(dst, r.Meta.Owner)
	dst = appendText(dst, r.Meta.Group)
	dst = appendText(dst, r.Meta.ContentType)
	dst = appendText(dst, string(r.Key))
	dst = binary.AppendUvarint(dst, uint64(len(r.Value)))
	dst = append(dst, r.Value...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Decode reads the record at the start of b and gives what follows it. The
// record's value aliases b. The error is an *Error.
func Decode(b []byte) (types.Record, []byte, error) {
	d := decoder{b: b}
	rec := d.record()
	if d.err != nil {
		return types.Record{}, nil, d.err
	}
	return rec, b[d.off:], nil
}

// DecodeOne reads b as exactly one record.
func DecodeOne(b []byte) (types.Record, error) {
	rec, rest, err := Decode(b)
	if err == nil && len(rest) != 0 {
		return types.Record{}, &Error{len(b) - len(rest), "bytes after the record"}
	}
	return rec, err
}

// decoder walks b. After the first error it yields zero values, so that the
// caller looks at err once, at the end.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &Error{d.off, reason}
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b)-d.off {
		d.fail("record is cut short")
		return nil
	}
	out := d.b[d.off : d.off+n : d.off+n]
	d.off += n
	return out
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.off:])
	if n <= 0 || n > 1 && d.b[d.off+n-1] == 0 { // a trailing zero byte would be a second spelling
		d.fail("malformed integer")
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) millis() int64 {
	v := d.uvarint()
	if v > 1<<62 {
		d.fail("time out of range")
	}
	return int64(v)
}

func (d *decoder) sized(limit int, what string) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail(what + " is too long")
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) record() (r types.Record) {
	if v := d.take(1); v != nil && v[0] != Version {
		d.off = 0
		d.fail(fmt.Sprintf("record format %d, this program reads %d", v[0], Version))
		return r
	}
	if b := d.take(2); b != nil {
		r.Flags, r.NS = types.Flags(b[0]), types.Namespace(b[1])
		if r.Flags&^knownFlags != 0 || !r.NS.Valid() {
			d.fail("unknown flags or namespace")
		}
	}
	r.Timestamp = types.Timestamp(d.u64())
	copy(r.Origin[:], d.take(16))
	r.OriginJoined = int64(d.u64())
	copy(r.UUID[:], d.take(16))
	r.ExpiresAt, r.PurgeAt = d.millis(), d.millis()
	r.Context = d.context()
	if b := d.take(2); b != nil {
		r.Meta.Mode = binary.BigEndian.Uint16(b)
	}
	r.Meta.Owner = string(d.sized(maxText, "owner"))
	r.Meta.Group = string(d.sized(maxText, "group"))
	r.Meta.ContentType = string(d.sized(maxText, "content type"))
	r.Key = types.Key(d.sized(types.MaxInternalKeyLen, "key"))
	r.Value = d.sized(MaxValue, "value")
	end := d.off
	if sum := d.take(trailer); sum != nil && binary.BigEndian.Uint32(sum) != crc32.Checksum(d.b[:end], castagnoli) {
		d.off = end
		d.fail("checksum does not match")
	}
	return r
}

func (d *decoder) context() types.Context {
	n := d.take(1)
	if n == nil || n[0] == 0 {
		return nil
	}
	if n[0] > types.MaxContext {
		d.fail("too many context entries")
		return nil
	}
	entries := d.take(int(n[0]) * contextEntry)
	if entries == nil {
		return nil
	}
	out := make(types.Context, n[0])
	for i := range out {
		e := entries[i*contextEntry:]
		copy(out[i].Origin[:], e)
		out[i].Timestamp = types.Timestamp(binary.BigEndian.Uint64(e[16:]))
		if i > 0 && bytes.Compare(out[i-1].Origin[:], out[i].Origin[:]) >= 0 {
			d.fail("context is not sorted")
			return nil
		}
	}
	return out
}

// ValueOf gives the value, of length n, within the encoding of one record.
func ValueOf(encoded []byte, n int) []byte {
	end := len(encoded) - trailer
	return encoded[end-n : end : end]
}
