package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kvs/storage/codec"
	"kvs/types"
)

// ErrMalformed is any body that is not what an encoder of this package makes.
var ErrMalformed = errors.New("malformed body")

// HorizonError says that the peer refused a body, or would have to, because
// records that it has forgotten may be in it.
type HorizonError struct{ Horizon int64 } // the peer's, Unix ms

// Error names the peer's horizon.
func (e *HorizonError) Error() string {
	return fmt.Sprintf("refused: the peer's horizon is %d", e.Horizon)
}

// minRecord is less than any encoded record has bytes: it bounds what a count
// can make a decoder allocate.
const minRecord = 60

// decoder walks a body. After the first error it yields zero values, so that a
// message's decoder looks at err once, at the end.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at offset %d", ErrMalformed, fmt.Sprintf(format, args...), d.off)
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.b)-d.off {
		d.fail("it is cut short")
		return nil
	}
	out := d.b[d.off : d.off+n : d.off+n]
	d.off += n
	return out
}

func (d *decoder) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
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

// millis reads a time, which is never negative and far from overflowing.
func (d *decoder) millis() int64 {
	v := d.uvarint()
	if v > 1<<62 {
		d.fail("time out of range")
		return 0
	}
	return int64(v)
}

// count reads a number of things that have at least size bytes each.
func (d *decoder) count(limit, size int) int {
	n := d.uvarint()
	if n > uint64(limit) || n > uint64(len(d.b)-d.off)/uint64(size) {
		d.fail("count %d is too large", n)
		return 0
	}
	return int(n)
}

func (d *decoder) text(limit int) string { return string(d.take(d.count(limit, 1))) }

func (d *decoder) digest() (out [16]byte) {
	copy(out[:], d.take(len(out)))
	return out
}

// ref reads a ref. The zero ref, "before everything", is allowed only if zero.
func (d *decoder) ref(zero bool) types.Ref {
	r := types.Ref{NS: types.Namespace(d.u8()), Key: types.Key(d.text(types.MaxInternalKeyLen))}
	if d.err == nil && !r.NS.Valid() && !(zero && r == types.Ref{}) {
		d.fail("unknown namespace %d", byte(r.NS))
	}
	return r
}

func (d *decoder) record() types.Record {
	if d.err != nil {
		return types.Record{}
	}
	rec, rest, err := codec.Decode(d.b[d.off:])
	if err != nil {
		d.err = fmt.Errorf("%w: record at offset %d: %w", ErrMalformed, d.off, err)
		return types.Record{}
	}
	d.off = len(d.b) - len(rest)
	return rec
}

func (d *decoder) records(limit int) []types.Record {
	n := d.count(limit, minRecord)
	if n == 0 {
		return nil
	}
	out := make([]types.Record, 0, n)
	for range n {
		out = append(out, d.record())
	}
	return out
}

// indexes reads strictly ascending numbers below limit, as differences.
func (d *decoder) indexes(most int, limit uint32) []uint32 {
	n := d.count(most, 1)
	if n == 0 {
		return nil
	}
	out := make([]uint32, 0, n)
	next := uint64(0) // the least that the next one may be
	for range n {
		step := d.uvarint()
		if step >= uint64(limit) || next+step >= uint64(limit) {
			d.fail("index out of range")
			return nil
		}
		out = append(out, uint32(next+step))
		next += step + 1
	}
	return out
}

// end refuses bytes after the message.
func (d *decoder) end() error {
	if d.err == nil && d.off != len(d.b) {
		d.fail("%d bytes too many", len(d.b)-d.off)
	}
	return d.err
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendRef(dst []byte, r types.Ref) []byte {
	return appendText(append(dst, byte(r.NS)), string(r.Key))
}

func appendRecords(dst []byte, records []types.Record) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(records)))
	for i := range records {
		dst = codec.Append(dst, &records[i])
	}
	return dst
}

func appendIndexes(dst []byte, indexes []uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(indexes)))
	next := uint32(0)
	for _, i := range indexes {
		dst = binary.AppendUvarint(dst, uint64(i-next))
		next = i + 1
	}
	return dst
}
