package tamperlog

import (
	"crypto/sha256"
	"encoding/binary"

	"kvs/storage"
	"kvs/types"
)

// Layout of a block, version 1. A uvarint is that of encoding/binary in its
// shortest form; a text is a uvarint length and its bytes.
//
//	size  field
//	1     format version, 1
//	2     number of entries, big-endian, 1 to 4096
//	var   number of the first entry, uvarint, 1 to 2^62
//	var   number of entries of the previous block, uvarint; 0 where a chain begins
//	var   change sequence of the store at the commit, uvarint
//	var   time of the commit, Unix ms, uvarint
//	32    hash of the previous block; see genesis for the first of a chain
//	var   the entries
//	32    SHA-256 of all that stands before it: the block's hash
//
// An entry:
//
//	1     action, and flags of what follows: 0x10 before, 0x20 after, 0x40 count, 0x80 detail
//	1     namespace; 0 = none
//	text  key, at most 1088 bytes
//	16    before, if flagged: a version's uuid, not zero
//	16    after, if flagged: the same
//	var   count, if flagged: uvarint, not 0
//	text  detail, if flagged: 1 to 255 bytes
//	var   actor, uvarint: 0 = none; one of those that the block has shown so far,
//	      counted from 1; or the next number, and then three texts follow, at most
//	      255 bytes each: subject, token id, address
//
// A block has exactly one encoding: fields that are empty are not flagged, no
// actor is shown twice, none is all empty, and nothing follows the hash.
const (
	blockVersion = 1

	maxEntries = 4096
	maxNumber  = 1 << 62
	maxKey     = types.MaxInternalKeyLen
	maxText    = 255

	flagBefore = 0x10
	flagAfter  = 0x20
	flagCount  = 0x40
	flagDetail = 0x80
	actionBits = 0x0f

	minEntry = 4                                    // action, namespace, empty key, no actor
	minBlock = 1 + 2 + 4 + 2*sha256.Size + minEntry // with four numbers of one byte
)

// How a commit is split into blocks. The store keeps a value below 2 KiB beside
// its key; a larger one goes to a file of its own, which costs a second flush to
// disk, measured half of what a write costs as a whole. So blocks are kept below
// that. But such values also take room in the store's transaction, whose size
// the changes alone decide on, save for a reserve of 64 KiB. So a commit that is
// large anyway gets large blocks after the first few.
const (
	smallBlock  = 2000     // bytes; only a single entry with a long key makes a larger one
	smallBlocks = 24 << 10 // bytes of a commit after which blocks are large
)

// header is what stands in a block before its entries.
type header struct {
	first    uint64
	count    uint64
	previous uint64 // entries of the block before; 0 where a chain begins
	seq      uint64
	time     int64
	prev     Hash
}

func (h *header) last() uint64 { return h.first + h.count - 1 }

// Block is what one commit added to the log, or a part of it.
type Block struct {
	First    uint64 // number of its first entry
	Previous uint64 // how many entries the block before it has; 0 where a chain begins
	Seq      uint64 // the store's change sequence at the commit
	Time     int64  // of the commit, Unix ms
	Prev     Hash   // hash of the block before it
	Entries  []Entry
	Hash     Hash
}

// Last is the number of the block's last entry.
func (b *Block) Last() uint64 { return b.First + uint64(len(b.Entries)) - 1 }

// Encode gives the block's bytes. Hash, and number, time and sequence of the
// entries, are not looked at: they follow from the rest.
func (b *Block) Encode() []byte {
	var e encoder
	e.begin(&header{first: b.First, previous: b.Previous, seq: b.Seq, time: b.Time, prev: b.Prev})
	for i := range b.Entries {
		e.add(&b.Entries[i])
	}
	out, _, _ := e.end()
	return out
}

// encoder writes blocks one behind the other into one buffer, which it uses
// again after reset.
type encoder struct {
	buf    []byte
	start  int // of the block that is being written
	count  int // its entries so far
	actors map[storage.Actor]uint64
	last   storage.Actor // the actor of the entry before, and its number
	number uint64
}

// keepBuffer bounds what an encoder holds on to between commits.
const keepBuffer = 1 << 20

// reset lets go of all blocks.
func (e *encoder) reset() {
	if cap(e.buf) > keepBuffer {
		e.buf = nil
	}
	e.buf = e.buf[:0]
}

// begin starts a block; how many entries h says is not looked at.
func (e *encoder) begin(h *header) {
	if e.actors == nil {
		e.actors = make(map[storage.Actor]uint64)
	}
	clear(e.actors)
	e.last, e.number = storage.Actor{}, 0
	e.start, e.count = len(e.buf), 0
	b := append(e.buf, blockVersion, 0, 0) // end knows the number of entries
	b = binary.AppendUvarint(b, h.first)
	b = binary.AppendUvarint(b, h.previous)
	b = binary.AppendUvarint(b, h.seq)
	b = binary.AppendUvarint(b, uint64(max(h.time, 0)))
	e.buf = append(b, h.prev[:]...)
}

// full reports whether en belongs into the next block.
func (e *encoder) full(en *Entry) bool {
	if e.count == 0 || e.count == maxEntries {
		return e.count > 0
	}
	if e.start > smallBlocks {
		return false
	}
	const fixed = 2 + 2 + 2*16 + binary.MaxVarintLen64 + 2 + 2 // of an entry, at most
	size := len(e.buf) - e.start + fixed + len(en.Key) + len(en.Detail) + sha256.Size
	if en.By != e.last {
		size += 3*2 + len(en.By.Subject) + len(en.By.Token) + len(en.By.Address)
	}
	return size > smallBlock
}

func (e *encoder) add(en *Entry) {
	e.count++
	at := len(e.buf)
	b := append(e.buf, byte(en.Action), byte(en.NS))
	b = appendText(b, clip(en.Key, maxKey))
	if en.Before != (types.VersionID{}) {
		b[at] |= flagBefore
		b = append(b, en.Before[:]...)
	}
	if en.After != (types.VersionID{}) {
		b[at] |= flagAfter
		b = append(b, en.After[:]...)
	}
	if en.Count != 0 {
		b[at] |= flagCount
		b = binary.AppendUvarint(b, en.Count)
	}
	if en.Detail != "" {
		b[at] |= flagDetail
		b = appendText(b, clip(en.Detail, maxText))
	}
	e.buf = e.actor(b, en.By)
}

// actor adds a reference to by, and by itself where it is new.
func (e *encoder) actor(b []byte, by storage.Actor) []byte {
	if by == e.last {
		return binary.AppendUvarint(b, e.number)
	}
	e.last = by
	by = storage.Actor{Subject: clip(by.Subject, maxText), Token: clip(by.Token, maxText), Address: clip(by.Address, maxText)}
	if by == (storage.Actor{}) {
		e.number = 0
		return append(b, 0)
	}
	number, known := e.actors[by]
	if !known {
		number = uint64(len(e.actors)) + 1
		e.actors[by] = number
	}
	e.number = number
	b = binary.AppendUvarint(b, number)
	if known {
		return b
	}
	return appendText(appendText(appendText(b, by.Subject), by.Token), by.Address)
}

// end completes the block. The bytes are good until reset.
func (e *encoder) end() (block []byte, count uint64, hash Hash) {
	binary.BigEndian.PutUint16(e.buf[e.start+1:], uint16(e.count))
	hash = sha256.Sum256(e.buf[e.start:])
	e.buf = append(e.buf, hash[:]...)
	count, e.count = uint64(e.count), 0
	return e.buf[e.start:len(e.buf):len(e.buf)], count, hash
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendNumber(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

// clip cuts what is too long for the format. Keys of records and what the server
// knows of an actor fit; what a refused request claims may not.
func clip(s string, limit int) string {
	if len(s) > limit {
		return s[:limit]
	}
	return s
}
