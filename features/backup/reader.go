package backup

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"kvs/types"
)

// DamageError says that a backup is not what was written, and where.
type DamageError struct {
	Name   string
	Block  int   // -1: before the first, or behind the last one
	Offset int64 // in bytes, of the block
	Err    error
}

// Error names file, block and offset.
func (e *DamageError) Error() string {
	if e.Block < 0 {
		return fmt.Sprintf("%s is damaged or no backup: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s is damaged: block %d, at offset %d: %v", e.Name, e.Block, e.Offset, e.Err)
}

// Unwrap gives what is wrong.
func (e *DamageError) Unwrap() error { return e.Err }

// Is makes it a types.ErrCorrupt.
func (e *DamageError) Is(target error) bool { return target == types.ErrCorrupt }

// errCutShort says that the file ends where something should follow.
var errCutShort = errors.New("the file breaks off")

// reader reads one backup from its first byte to its last. It gives each entry
// once what stands before it is verified, and io.EOF once all is.
type reader struct {
	name   string
	in     *bufio.Reader
	zstd   *zstd.Decoder
	digest hash.Hash
	offset int64 // of what is read next
	start  int64 // of the block that is being read
	block  int   // its number; -1 before the first
	stored []byte

	header  Header
	trailer Trailer // its counts are what was read so far; all of it at the end
	rest    []byte  // of the payload that is being read
	last    entry   // the one before
	ended   bool
}

// newReader reads head and header. name is for errors.
func newReader(name string, from io.Reader) (*reader, error) {
	dec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	r := &reader{name: name, in: bufio.NewReaderSize(from, 256<<10), zstd: dec, digest: sha256.New(), block: -1}
	var head [headSize]byte
	if err := r.read(head[:]); err != nil {
		return nil, r.damaged(err)
	}
	version := binary.BigEndian.Uint16(head[4:])
	switch {
	case string(head[:4]) != magic:
		return nil, r.damaged(errors.New("it does not begin as one"))
	case version != FormatVersion || head[6] != 0 || head[7] != 0:
		return nil, r.damaged(fmt.Errorf("it is of format %d, and this program reads %d", version, FormatVersion))
	}
	kind, payload, err := r.next()
	if err == nil && kind != blockHeader {
		err = errors.New("the first block is no header")
	}
	if err == nil {
		r.header, err = decodeHeader(payload)
	}
	if err != nil {
		return nil, r.damaged(err)
	}
	return r, nil
}

func (r *reader) damaged(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		err = errCutShort
	}
	return &DamageError{r.name, r.block, r.start, err}
}

// read fills b.
func (r *reader) read(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.digest.Write(b[:n])
	r.offset += int64(n)
	return err
}

// next reads a block.
func (r *reader) next() (kind byte, payload []byte, err error) {
	r.block, r.start = r.block+1, r.offset
	before := r.digest.Sum(nil)
	var head [blockHead]byte
	if err := r.read(head[:]); err != nil {
		return 0, nil, err
	}
	f, err := parseFrame(head[:])
	if err != nil {
		return 0, nil, err
	}
	// As much is allocated as has come: a length is a claim until the checksum.
	r.stored = r.stored[:0]
	for left := f.stored + blockTrailer; left > 0; {
		part := min(left, blockSize)
		at := len(r.stored)
		r.stored = slices.Grow(r.stored, part)[:at+part]
		if err := r.read(r.stored[at:]); err != nil {
			return 0, nil, err
		}
		left -= part
	}
	body, sum := r.stored[:f.stored], r.stored[f.stored:]
	if binary.BigEndian.Uint32(sum) != crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, body) {
		return 0, nil, errors.New("its checksum does not match")
	}
	if f.number != uint32(r.block) {
		return 0, nil, fmt.Errorf("it is block %d: others are missing or in another order", f.number)
	}
	if f.kind == blockEnd {
		r.trailer.Digest = [32]byte(before)
	}
	payload, err = decompress(r.zstd, body, f.payload)
	return f.kind, payload, err
}

// entry gives the next entry. Its values are of a slice that is not used again.
func (r *reader) entry() (entry, error) {
	for len(r.rest) == 0 {
		if r.ended {
			return entry{}, io.EOF
		}
		if err := r.fill(); err != nil {
			return entry{}, r.damaged(err)
		}
	}
	e, rest, err := decodeEntry(r.rest)
	if err == nil {
		err = r.follows(&e)
	}
	if err != nil {
		return entry{}, r.damaged(err)
	}
	r.rest, r.last = rest, e
	return e, nil
}

// fill reads the next block of records, or the end.
func (r *reader) fill() error {
	kind, payload, err := r.next()
	if err != nil {
		return err
	}
	switch kind {
	case blockRecords:
		r.rest = payload
		return nil
	case blockEnd:
		return r.finish(payload)
	}
	return errors.New("a second header")
}

// follows checks the order, and counts.
func (r *reader) follows(e *entry) error {
	order := compareRefs(r.last.rec.Ref, e.rec.Ref)
	open := r.last.kind == entryOlder // the current version is still to come
	switch {
	case order > 0 || order == 0 && r.last.kind == entryCurrent || order < 0 && open:
		return fmt.Errorf("%s is out of order after %s", e.rec.Ref, r.last.rec.Ref)
	case order == 0 && (e.kind == entryGone || open && r.last.rec.Version.Compare(e.rec.Version) >= 0):
		return fmt.Errorf("the versions of %s are out of order", e.rec.Ref)
	case e.kind == entryGone && r.header.Type == Full:
		return fmt.Errorf("%s is gone, in a full backup", e.rec.Ref)
	}
	switch e.kind {
	case entryCurrent:
		r.trailer.Records++
	case entryOlder:
		r.trailer.Older++
	default:
		r.trailer.Gone++
		return nil
	}
	r.trailer.Newest = max(r.trailer.Newest, e.rec.Timestamp)
	return nil
}

// finish holds what was read against the trailer.
func (r *reader) finish(payload []byte) error {
	want, err := decodeTrailer(payload)
	if err != nil {
		return err
	}
	if r.last.kind == entryOlder {
		return fmt.Errorf("the current version of %s is missing", r.last.rec.Ref)
	}
	r.trailer.Blocks, r.trailer.Damaged = uint32(r.block+1), want.Damaged
	if want.Digest != r.trailer.Digest {
		return errors.New("the digest of the file does not match")
	}
	if want != r.trailer {
		return errors.New("the trailer counts something else than there is")
	}
	start := r.start
	var end [endSize]byte
	if err := r.read(end[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(end[:]) != uint64(start) || string(end[8:]) != endMagic {
		return errors.New("the end of the file is altered")
	}
	r.ended = true
	return nil
}

// close releases the decoder.
func (r *reader) close() { r.zstd.Close() }

// compareRefs is the order of keys.
func compareRefs(a, b types.Ref) int {
	return cmp.Or(cmp.Compare(a.NS, b.NS), cmp.Compare(a.Key, b.Key))
}

// verify reads a backup to its end and gives its trailer and length.
func (r *reader) verify(ctx context.Context) (Trailer, int64, error) {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return Trailer{}, 0, ctx.Err()
		}
		if _, err := r.entry(); err == io.EOF {
			return r.trailer, r.offset, nil
		} else if err != nil {
			return Trailer{}, 0, err
		}
	}
}
