package wire

import (
	"encoding/binary"

	"kvs/types"
)

// Version is the protocol version of every body.
const Version = 1

// kind tells bodies apart. The values are part of the protocol.
type kind byte

// The kinds; an answer is its request's kind plus one.
const (
	kindPush     kind = 1
	kindRoot     kind = 3
	kindNodes    kind = 5
	kindBuckets  kind = 7
	kindExchange kind = 9
	kindFetch    kind = 11
	kindStream   kind = 13

	kindHorizon kind = 255
)

// Header begins every body.
type Header struct {
	Sender  types.NodeID
	Horizon int64 // E of the sender when it read what the body holds, Unix ms
}

func (h Header) append(dst []byte, k kind) []byte {
	dst = append(dst, Version, byte(k))
	dst = append(dst, h.Sender[:]...)
	return binary.AppendUvarint(dst, uint64(h.Horizon))
}

// header reads the header and checks that a body of kind k follows.
func (d *decoder) header(k kind) (h Header) {
	if v := d.u8(); d.err == nil && v != Version {
		d.fail("protocol version %d, this node speaks %d", v, Version)
	}
	got := kind(d.u8())
	copy(h.Sender[:], d.take(len(h.Sender)))
	h.Horizon = d.millis()
	switch {
	case d.err != nil:
	case got == kindHorizon && k%2 == 0:
		if d.end() == nil {
			d.err = &HorizonError{h.Horizon}
		}
	case got != k:
		d.fail("kind %d, not %d", got, k)
	}
	return h
}

// AppendHorizon encodes the answer to any request that was read under a smaller
// horizon than h's.
func AppendHorizon(dst []byte, h Header) []byte { return h.append(dst, kindHorizon) }
