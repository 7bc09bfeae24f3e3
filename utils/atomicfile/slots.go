package atomicfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// A slots file, integers big-endian: two slots, at offsets 0 and 4096, so that
// no block of a disk holds both; zeros elsewhere, and in a slot never written.
//
//	offset   0  sequence (8): the greater one is the newer slot
//	offset   8  length of the payload (1)
//	offset   9  payload, padded with zeros (32)
//	offset  41  CRC32C of the 41 bytes before (4)
const (
	slotsSize  = 8192
	slotOffset = 4096

	// MaxPayload is the greatest value that a slot holds, in bytes.
	MaxPayload = 32

	slotSum  = 8 + 1 + MaxPayload
	slotSize = slotSum + 4
)

// ErrCorrupt is a slots file that holds no readable value although it was
// written to.
var ErrCorrupt = errors.New("corrupt slots file")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Slots is a file that keeps one value of up to MaxPayload bytes. Store writes
// the older of two slots and flushes it, so that a torn write leaves the newer
// one. It is not safe for concurrent use.
type Slots struct {
	file    *os.File
	newest  int    // slot of the value; 1 before the first Store, which then writes slot 0
	seq     uint64 // its sequence; 0 before the first Store
	payload []byte
}

// OpenSlots opens a slots file, and makes an empty one where there is none. A
// damaged file is refused with an error that wraps ErrCorrupt.
func OpenSlots(path string) (*Slots, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Created whole, so that the size never changes again and any other size
		// is damage, not a crash.
		err = Create(path, make([]byte, slotsSize), 0o600)
		if err == nil || errors.Is(err, fs.ErrExist) {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, slotsSize+1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &Slots{file: f}
	if err := s.parse(b); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

// parse takes the newest readable value of a file's bytes.
func (s *Slots) parse(b []byte) error {
	if len(b) != slotsSize {
		return fmt.Errorf("%w: its size is not %d bytes", ErrCorrupt, slotsSize)
	}
	s.newest = 1
	damaged := 0
	for i := range 2 {
		slot := b[i*slotOffset:][:slotSize]
		if bytes.Equal(slot, make([]byte, slotSize)) {
			continue
		}
		seq, payload, ok := parseSlot(slot)
		if !ok {
			damaged++
			continue
		}
		if seq > s.seq {
			s.newest, s.seq, s.payload = i, seq, bytes.Clone(payload)
		}
	}
	// One damaged slot is the write that a crash tore, so the other has what was
	// last stored, even if that is nothing. Two cannot come from one crash.
	if damaged == 2 {
		return fmt.Errorf("%w: neither slot (offsets 0 and %d) has a right checksum", ErrCorrupt, slotOffset)
	}
	return nil
}

func parseSlot(slot []byte) (seq uint64, payload []byte, ok bool) {
	if crc32.Checksum(slot[:slotSum], castagnoli) != binary.BigEndian.Uint32(slot[slotSum:]) {
		return 0, nil, false
	}
	seq = binary.BigEndian.Uint64(slot)
	n := int(slot[8])
	if seq == 0 || n > MaxPayload {
		return 0, nil, false
	}
	return seq, slot[9:][:n], true
}

// Load gives the value last stored; false if there never was one.
func (s *Slots) Load() ([]byte, bool) {
	return bytes.Clone(s.payload), s.seq != 0
}

// Store replaces the value, durable on return. After an error the value is the
// one before, until a restart finds either; Store may be tried again.
func (s *Slots) Store(payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("store %d bytes in %s: a slot holds %d", len(payload), s.file.Name(), MaxPayload)
	}
	slot := make([]byte, slotSize)
	binary.BigEndian.PutUint64(slot, s.seq+1)
	slot[8] = byte(len(payload))
	copy(slot[9:], payload)
	binary.BigEndian.PutUint32(slot[slotSum:], crc32.Checksum(slot[:slotSum], castagnoli))
	older := 1 - s.newest
	if _, err := s.file.WriteAt(slot, int64(older)*slotOffset); err != nil {
		return err
	}
	if err := syncData(s.file); err != nil {
		return fmt.Errorf("flush %s: %w", s.file.Name(), err)
	}
	s.newest, s.seq, s.payload = older, s.seq+1, bytes.Clone(payload)
	return nil
}

// Close closes the file.
func (s *Slots) Close() error { return s.file.Close() }
