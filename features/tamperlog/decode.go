package tamperlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"kvs/storage"
	"kvs/types"
)

// FormatError says what is wrong with an encoded block or checkpoint, and where.
// It is types.ErrCorrupt.
type FormatError struct {
	Offset int // bytes from the start
	Reason string
}

// Error gives reason and offset.
func (e *FormatError) Error() string { return fmt.Sprintf("%s at offset %d", e.Reason, e.Offset) }

// Is makes every FormatError a types.ErrCorrupt.
func (e *FormatError) Is(target error) bool { return target == types.ErrCorrupt }

// DecodeBlock reads b as exactly one block. It accepts exactly what Encode
// makes; nothing of the block aliases b. The error is a *FormatError.
func DecodeBlock(b []byte) (Block, error) {
	end := len(b) - sha256.Size
	if len(b) < minBlock {
		return Block{}, &FormatError{len(b), "the block is cut short"}
	}
	if b[0] != blockVersion {
		return Block{}, wrongVersion(b[0])
	}
	hash := Hash(sha256.Sum256(b[:end]))
	if hash != Hash(b[end:]) {
		return Block{}, &FormatError{end, "the hash does not match what the block holds"}
	}
	d := decoder{b: b[:end]}
	h := d.header()
	block := Block{First: h.first, Previous: h.previous, Seq: h.seq, Time: h.time, Prev: h.prev, Hash: hash}
	if d.err == nil && h.count*minEntry > uint64(end-d.off) {
		d.fail("there is no room for so many entries")
	}
	if d.err != nil {
		return Block{}, d.err
	}
	block.Entries = make([]Entry, h.count)
	for i := range block.Entries {
		e := &block.Entries[i]
		e.N, e.Time, e.Seq = h.first+uint64(i), h.time, h.seq
		if d.entry(e); d.err != nil {
			return Block{}, d.err
		}
	}
	if d.off != end {
		return Block{}, &FormatError{d.off, "bytes after the last entry"}
	}
	return block, nil
}

// decodeHeader reads the start of a block alone, whose hash it does not check.
func decodeHeader(b []byte) (header, error) {
	if len(b) < minBlock {
		return header{}, &FormatError{len(b), "the block is cut short"}
	}
	d := decoder{b: b}
	h := d.header()
	if d.err != nil {
		return header{}, d.err
	}
	return h, nil
}

func wrongVersion(v byte) *FormatError {
	return &FormatError{0, fmt.Sprintf("the format is %d, this program reads %d", v, blockVersion)}
}

// decoder walks b. After the first error it yields zero values, so that the
// caller looks at err once, at the end.
type decoder struct {
	b      []byte
	off    int
	err    error
	actors []storage.Actor
	seen   map[storage.Actor]struct{} // once there are two
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &FormatError{d.off, reason}
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b)-d.off {
		d.fail("it is cut short")
		return nil
	}
	out := d.b[d.off : d.off+n]
	d.off += n
	return out
}

func (d *decoder) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint(limit uint64, what string) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.off:])
	if n <= 0 || n > 1 && d.b[d.off+n-1] == 0 { // a trailing zero byte would be a second spelling
		d.fail("malformed integer")
		return 0
	}
	if v > limit {
		d.fail(what + " is out of range")
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) text(limit uint64, what string) string {
	n := d.uvarint(limit, "the length of "+what)
	return string(d.take(int(n)))
}

func (d *decoder) header() (h header) {
	if v := d.u8(); d.err == nil && v != blockVersion {
		d.err = wrongVersion(v)
	}
	if b := d.take(2); b != nil {
		h.count = uint64(binary.BigEndian.Uint16(b))
	}
	h.first = d.uvarint(maxNumber, "the number of the first entry")
	h.previous = d.uvarint(maxEntries, "the number of entries of the previous block")
	h.seq = d.uvarint(1<<64-1, "the sequence")
	h.time = int64(d.uvarint(1<<62, "the time"))
	if h.first == 0 || h.count == 0 || h.count > maxEntries || h.previous >= h.first {
		d.fail("impossible numbers of entries")
	}
	copy(h.prev[:], d.take(sha256.Size))
	return h
}

func (d *decoder) entry(e *Entry) {
	flags := d.u8()
	e.Action = Action(flags & actionBits)
	if e.Action == 0 || e.Action > lastAction {
		d.fail("unknown action")
	}
	if e.NS = types.Namespace(d.u8()); e.NS != 0 && !e.NS.Valid() {
		d.fail("unknown namespace")
	}
	e.Key = d.text(maxKey, "the key")
	if flags&flagBefore != 0 {
		e.Before = d.version()
	}
	if flags&flagAfter != 0 {
		e.After = d.version()
	}
	if flags&flagCount != 0 {
		if e.Count = d.uvarint(1<<64-1, "the count"); e.Count == 0 {
			d.fail("an empty field is flagged")
		}
	}
	if flags&flagDetail != 0 {
		if e.Detail = d.text(maxText, "the detail"); e.Detail == "" {
			d.fail("an empty field is flagged")
		}
	}
	e.By = d.actor()
}

func (d *decoder) version() (v types.VersionID) {
	if copy(v[:], d.take(len(v))); v == (types.VersionID{}) {
		d.fail("an empty field is flagged")
	}
	return v
}

func (d *decoder) actor() storage.Actor {
	known := uint64(len(d.actors))
	number := d.uvarint(known+1, "the actor")
	switch {
	case d.err != nil || number == 0:
		return storage.Actor{}
	case number <= known:
		return d.actors[number-1]
	}
	by := storage.Actor{Subject: d.text(maxText, "the subject"), Token: d.text(maxText, "the token id"), Address: d.text(maxText, "the address")}
	if by == (storage.Actor{}) {
		d.fail("an empty actor")
	}
	if d.shown(by) {
		d.fail("an actor is shown twice")
	}
	d.actors = append(d.actors, by)
	return by
}

// shown reports whether the block showed by before, and remembers that it did
// now.
func (d *decoder) shown(by storage.Actor) bool {
	if len(d.actors) == 0 {
		return false
	}
	if d.seen == nil {
		d.seen = map[storage.Actor]struct{}{d.actors[0]: {}}
	}
	_, again := d.seen[by]
	d.seen[by] = struct{}{}
	return again
}
