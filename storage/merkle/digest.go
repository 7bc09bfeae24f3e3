package merkle

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"kvs/types"
)

// Digest is a number of 128 bits, the high half first. Digests are added and
// subtracted modulo 2^128.
type Digest [2]uint64

// Plus gives d+e modulo 2^128.
func (d Digest) Plus(e Digest) Digest {
	lo, carry := bits.Add64(d[1], e[1], 0)
	hi, _ := bits.Add64(d[0], e[0], carry)
	return Digest{hi, lo}
}

// Minus gives d-e modulo 2^128.
func (d Digest) Minus(e Digest) Digest {
	lo, borrow := bits.Sub64(d[1], e[1], 0)
	hi, _ := bits.Sub64(d[0], e[0], borrow)
	return Digest{hi, lo}
}

// Bytes gives the digest in big-endian order.
func (d Digest) Bytes() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], d[0])
	binary.BigEndian.PutUint64(b[8:], d[1])
	return b
}

// Entry is one record as the tree sees it.
type Entry struct {
	Hash   uint64
	Digest Digest
}

// hashBuffer holds what is hashed for all but unusually long keys without an
// allocation.
const hashBuffer = 256

// KeyHash places an item in the tree: XXH3-64 of the namespace byte and the key.
func KeyHash(ref types.Ref) uint64 {
	var buf [hashBuffer]byte
	b := append(buf[:0], byte(ref.NS))
	b = append(b, ref.Key...)
	return xxh3.Hash(b)
}

// RecordDigest identifies a record's logical version: XXH3-128 of
//
//	namespace 1 | flags 1 | timestamp 8 | purge_at 8 | origin 16 | uuid 16 | key
//
// in bytes, the integers big-endian. The key comes last, so nothing needs a
// length to be unambiguous.
func RecordDigest(r *types.Record) Digest {
	var buf [hashBuffer]byte
	b := append(buf[:0], byte(r.NS), byte(r.Flags))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Timestamp))
	b = binary.BigEndian.AppendUint64(b, uint64(r.PurgeAt))
	b = append(b, r.Origin[:]...)
	b = append(b, r.UUID[:]...)
	b = append(b, r.Key...)
	h := xxh3.Hash128(b)
	return Digest{h.Hi, h.Lo}
}

// EntryOf gives the entry of a record.
func EntryOf(r *types.Record) Entry {
	return Entry{Hash: KeyHash(r.Ref), Digest: RecordDigest(r)}
}
