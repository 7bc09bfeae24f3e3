package merkle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A checkpoint, integers big-endian:
//
//	offset   0  magic "KVSM" (4 bytes)
//	offset   4  format version (2), 2 reserved bytes, zero
//	offset   8  sequence S (8): the tree of all commits up to and including S
//	offset  16  horizon E, Unix ms (8)
//	offset  24  65,536 leaves: count (8), sum (16)
//	at the end  CRC32C of everything before (4)
const (
	checkpointMagic   = "KVSM"
	checkpointVersion = 1

	checkpointHeader = 24
	checkpointLeaf   = 24
	checkpointSize   = checkpointHeader + Leaves*checkpointLeaf + 4
)

// ErrCheckpoint is any refusal of a checkpoint: the tree has to be rebuilt from
// the records.
var ErrCheckpoint = errors.New("unusable Merkle checkpoint")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode gives the checkpoint of a tree. The caller answers for seq: nothing
// may have changed the tree since that commit.
func Encode(t *Tree, seq uint64, horizon int64) []byte {
	b := make([]byte, 0, checkpointSize)
	b = append(b, checkpointMagic...)
	b = binary.BigEndian.AppendUint16(b, checkpointVersion)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(horizon))
	t.mu.Lock()
	for i := range t.leaves {
		l := &t.leaves[i]
		b = binary.BigEndian.AppendUint64(b, l.Count)
		b = binary.BigEndian.AppendUint64(b, l.Sum[0])
		b = binary.BigEndian.AppendUint64(b, l.Sum[1])
	}
	t.mu.Unlock()
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Decode reads a checkpoint. Anything but exactly what Encode wrote is refused
// with an error that wraps ErrCheckpoint.
func Decode(b []byte) (t *Tree, seq uint64, horizon int64, err error) {
	if len(b) != checkpointSize {
		return nil, 0, 0, fmt.Errorf("%w: it has %d bytes, not %d", ErrCheckpoint, len(b), checkpointSize)
	}
	if string(b[:4]) != checkpointMagic {
		return nil, 0, 0, fmt.Errorf("%w: it does not begin with %q", ErrCheckpoint, checkpointMagic)
	}
	if v := binary.BigEndian.Uint16(b[4:]); v != checkpointVersion {
		return nil, 0, 0, fmt.Errorf("%w: format version %d, this program reads %d", ErrCheckpoint, v, checkpointVersion)
	}
	body, sum := b[:checkpointSize-4], binary.BigEndian.Uint32(b[checkpointSize-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, 0, 0, fmt.Errorf("%w: checksum %08x, expected %08x", ErrCheckpoint, got, sum)
	}
	if b[6] != 0 || b[7] != 0 {
		return nil, 0, 0, fmt.Errorf("%w: reserved bytes at offset 6 are not zero", ErrCheckpoint)
	}
	seq = binary.BigEndian.Uint64(b[8:])
	horizon = int64(binary.BigEndian.Uint64(b[16:]))
	if horizon < 0 {
		return nil, 0, 0, fmt.Errorf("%w: negative horizon at offset 16", ErrCheckpoint)
	}
	t = New()
	for i := range t.leaves {
		p := b[checkpointHeader+i*checkpointLeaf:]
		t.SetLeaf(uint32(i), Leaf{
			Count: binary.BigEndian.Uint64(p),
			Sum:   Digest{binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:])},
		})
	}
	return t, seq, horizon, nil
}
