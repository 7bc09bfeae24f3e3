package membership

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kvs/types"
)

// Bounds of what goes into the meta, so that it always fits into memberlist's
// 512 bytes: more would make it panic.
const (
	maxNodeID  = 64
	maxAddress = 261 // a DNS name of 255 bytes, a colon, a port
)

// meta is what gossip carries about a node:
//
//	byte    format, 1
//	16      uuid
//	8       instance of the process, big endian
//	byte    mode: 0 normal, 1 read-only, 2 syncing
//	byte    1 if the node is about to leave, else 0
//	uvarint protocol
//	uvarint joined, Unix ms
//	uvarint length, then node_id
//	uvarint length, then address
type meta struct {
	Identity
	instance uint64
	mode     types.Mode
	leaving  bool
	protocol uint64
}

const metaFormat = 1

// modes gives each mode its byte.
var modes = []types.Mode{types.ModeNormal, types.ModeReadOnly, types.ModeSyncing}

func (m meta) encode() []byte {
	b := append(make([]byte, 0, 128), metaFormat)
	b = append(b, m.UUID[:]...)
	b = binary.BigEndian.AppendUint64(b, m.instance)
	mode := byte(0)
	for i, name := range modes {
		if name == m.mode {
			mode = byte(i)
		}
	}
	b = append(b, mode, 0)
	if m.leaving {
		b[len(b)-1] = 1
	}
	b = binary.AppendUvarint(b, m.protocol)
	b = binary.AppendUvarint(b, uint64(m.Joined))
	for _, s := range []string{m.NodeID, m.Address} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

var errMeta = errors.New("gossip meta is malformed")

func decodeMeta(b []byte) (meta, error) {
	var m meta
	const fixed = 1 + 16 + 8 + 2
	if len(b) < fixed {
		return m, errMeta
	}
	if b[0] != metaFormat {
		return m, fmt.Errorf("gossip meta has format %d, this version knows %d", b[0], metaFormat)
	}
	copy(m.UUID[:], b[1:17])
	m.instance = binary.BigEndian.Uint64(b[17:25])
	mode, leaving := b[25], b[26]
	if int(mode) >= len(modes) || leaving > 1 {
		return m, errMeta
	}
	m.mode, m.leaving = modes[mode], leaving == 1
	b = b[fixed:]
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	m.protocol = number()
	m.Joined = int64(number())
	text := func(limit int) string {
		n := number()
		if n == 0 || n > uint64(limit) || n > uint64(len(b)) {
			b = nil
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	m.NodeID = text(maxNodeID)
	m.Address = text(maxAddress)
	if m.UUID.IsZero() || m.NodeID == "" || m.Address == "" || m.Joined < 0 || len(b) != 0 {
		return meta{}, errMeta
	}
	return m, nil
}
