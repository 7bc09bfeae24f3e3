package rpc

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// DefaultMaxBody bounds a body, compressed and plain, where Options leave it.
const DefaultMaxBody = 64 << 20

// compressAbove is the size in bytes from which compressing pays: below it, a
// frame's overhead and the time eat what is won.
const compressAbove = 1 << 10

const (
	encodingZstd = "zstd"
	contentType  = "application/octet-stream"
)

// errTooLarge is a body above the limit.
var errTooLarge = errors.New("body is too large")

// encoder is shared: EncodeAll is safe for concurrent use, and keeps as many
// states as there are cores. It is used once here, which makes its channels: if
// that happened within a testing/synctest bubble, no other could use it.
var encoder = func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("rpc: zstd refuses constant options: " + err.Error())
	}
	e.EncodeAll(nil, nil)
	return e
}()

// newDecoder gives a decoder that never yields more than limit bytes.
func newDecoder(limit int64) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderConcurrency(0))
	if err != nil {
		panic("rpc: zstd refuses constant options: " + err.Error())
	}
	return d
}

// compress gives what to send, and its Content-Encoding.
func compress(body []byte) (out []byte, encoding string) {
	if len(body) < compressAbove {
		return body, ""
	}
	packed := encoder.EncodeAll(body, make([]byte, 0, len(body)/2))
	if len(packed) > len(body)-len(body)/8 {
		return body, "" // digests do not compress: spare the peer the work
	}
	return packed, encodingZstd
}

// readBody reads a whole body, of at most limit bytes before and after
// decompression. size is the Content-Length, or negative.
func readBody(r io.Reader, size int64, encoding string, limit int64, d *zstd.Decoder) (plain []byte, wire int, err error) {
	if size > limit {
		return nil, 0, fmt.Errorf("%w: %d bytes, %d are allowed", errTooLarge, size, limit)
	}
	var raw []byte
	if size >= 0 {
		raw = make([]byte, size)
		_, err = io.ReadFull(r, raw)
	} else {
		raw, err = io.ReadAll(io.LimitReader(r, limit+1))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read body: %w", err)
	}
	if int64(len(raw)) > limit {
		return nil, 0, fmt.Errorf("%w: more than the %d bytes allowed", errTooLarge, limit)
	}
	switch encoding {
	case "":
		return raw, len(raw), nil
	case encodingZstd:
		plain, err = d.DecodeAll(raw, nil)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			err = fmt.Errorf("%w: more than the %d bytes allowed once decompressed", errTooLarge, limit)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("decompress body: %w", err)
		}
		return plain, len(raw), nil
	}
	return nil, 0, fmt.Errorf("unknown content encoding %q", encoding)
}
