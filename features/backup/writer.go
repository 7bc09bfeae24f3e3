package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"kvs/types"
)

// writer writes one backup, block by block. After an error it is of no more use.
type writer struct {
	to      io.Writer
	zstd    *zstd.Encoder
	digest  hash.Hash
	offset  int64
	payload []byte // of the block of records that is being filled
	block   []byte // scratch
	trailer Trailer
}

// newWriter writes head and header.
func newWriter(to io.Writer, h *Header) (*writer, error) {
	enc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	w := &writer{to: to, zstd: enc, digest: sha256.New()}
	head := binary.BigEndian.AppendUint16([]byte(magic), FormatVersion)
	if err := w.write(append(head, 0, 0)); err != nil {
		return nil, err
	}
	b, err := h.encode()
	if err != nil {
		return nil, err
	}
	return w, w.emit(blockHeader, b)
}

// record adds a version. The order is the caller's business.
func (w *writer) record(kind byte, rec *types.Record) error {
	if kind == entryCurrent {
		w.trailer.Records++
	} else {
		w.trailer.Older++
	}
	w.trailer.Newest = max(w.trailer.Newest, rec.Timestamp)
	w.payload = appendRecord(w.payload, kind, rec)
	return w.flush(blockSize)
}

// gone adds a key that left no record.
func (w *writer) gone(ref types.Ref, v vanished) error {
	w.trailer.Gone++
	w.payload = appendGone(w.payload, ref, v)
	return w.flush(blockSize)
}

// flush ends the block once it has so many bytes.
func (w *writer) flush(least int) error {
	if len(w.payload) < least || len(w.payload) == 0 {
		return nil
	}
	err := w.emit(blockRecords, w.payload)
	if cap(w.payload) > 4*blockSize { // a large record is no reason to keep so much
		w.payload = nil
	}
	w.payload = w.payload[:0]
	return err
}

// end writes what is left, the trailer and the end of the file.
func (w *writer) end() (Trailer, error) {
	if err := w.flush(1); err != nil {
		return w.trailer, err
	}
	start := w.offset
	w.trailer.Digest = [32]byte(w.digest.Sum(nil))
	t := w.trailer
	t.Blocks++ // the trailer itself
	b, err := t.encode()
	if err != nil {
		return t, err
	}
	if err := w.emit(blockEnd, b); err != nil {
		return t, err
	}
	end := binary.BigEndian.AppendUint64(nil, uint64(start))
	return t, w.write(append(end, endMagic...))
}

// emit writes one block.
func (w *writer) emit(kind byte, payload []byte) error {
	b := append(w.block[:0], make([]byte, blockHead)...)
	b = w.zstd.EncodeAll(payload, b)
	frame{kind, w.trailer.Blocks, len(b) - blockHead, len(payload)}.append(b[:0])
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	w.block = b
	if cap(b) > 4*blockSize {
		w.block = nil
	}
	w.trailer.Blocks++
	return w.write(b)
}

func (w *writer) write(b []byte) error {
	n, err := w.to.Write(b)
	w.offset += int64(n)
	w.digest.Write(b)
	return err
}
