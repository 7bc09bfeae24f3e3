package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// source is an input, decompressed.
type source struct {
	io.Reader
	name    string
	size    int64        // of the file as it is on disk; 0 = not known
	read    atomic.Int64 // bytes of that; decompression reads ahead in goroutines
	closers []func()
}

// The first bytes that tell the formats apart (RFC 1952, RFC 8878). They are
// looked at, and not the name: standard input has none, and names lie.
var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// maxWindow is what a zstd file may ask to be held in memory: that of
// `zstd --long=27`. Any line is bounded besides.
const maxWindow = 128 << 20

// openSource opens a file, or standard input for "-".
func openSource(name string, stdin io.Reader) (*source, error) {
	s := &source{name: name}
	in := stdin
	if name == "-" {
		s.name = "standard input"
	} else {
		f, size, err := openFile(name)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, func() { f.Close() })
		s.size, in = size, f
	}
	buffered := bufio.NewReaderSize(&countingReader{in, &s.read}, 256<<10)
	magic, err := buffered.Peek(4)
	if err != nil && err != io.EOF {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if s.Reader, err = s.decompress(buffered, magic); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return s, nil
}

func (s *source) decompress(r io.Reader, magic []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(magic, gzipMagic):
		return gzip.NewReader(r)
	case bytes.HasPrefix(magic, zstdMagic):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, z.Close)
		return z, nil
	}
	return r, nil
}

// Close releases in the reverse order: the decoder's goroutines read the file.
func (s *source) Close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// openFile opens a file to read and refuses directories, which open as well.
func openFile(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return f, 0, nil // a pipe has no size
	}
	return f, info.Size(), nil
}
