package wire

import (
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"kvs/storage/merkle"
	"kvs/types"
)

// Bounds of the steps of a comparison.
const (
	MaxNodes    = merkle.Leaves / merkle.Fanout // nodes or buckets of one request: all of level 3
	MaxEntries  = 1 << 20                       // entries of one listing
	MaxExchange = 1 << 14                       // items of one exchange
)

// Salted shortens a digest for a comparison.
func Salted(salt uint64, digest [16]byte) uint32 {
	return uint32(xxh3.HashSeed(digest[:], salt))
}

// Children are the salted digests of a node's children.
type Children [merkle.Fanout]uint32

// SaltedChildren gives the children of a node of t.
func SaltedChildren(t *merkle.Tree, salt uint64, level int, index uint32) (out Children) {
	for i, digest := range t.Children(level, index) {
		out[i] = Salted(salt, digest)
	}
	return out
}

func (c *Children) append(dst []byte) []byte {
	for _, digest := range c {
		dst = binary.BigEndian.AppendUint32(dst, digest)
	}
	return dst
}

func (d *decoder) children() (c Children) {
	for i := range c {
		c[i] = d.u32()
	}
	return c
}

// Root opens a comparison.
//
//	salt 8 | digest 16 | count uvarint
type Root struct {
	Header
	Salt   uint64
	Digest [16]byte
	Count  uint64
}

// Append encodes the body.
func (m *Root) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindRoot)
	dst = binary.BigEndian.AppendUint64(dst, m.Salt)
	dst = append(dst, m.Digest[:]...)
	return binary.AppendUvarint(dst, m.Count)
}

// DecodeRoot reads the opening of a comparison.
func DecodeRoot(b []byte) (m Root, err error) {
	d := decoder{b: b}
	m = Root{Header: d.header(kindRoot), Salt: d.u64(), Digest: d.digest(), Count: d.uvarint()}
	return m, d.end()
}

const (
	flagEqual = 1 << iota
	flagData
	flagSyncing
)

// RootAnswer tells the receiver's state. Digest and Children are left out where
// the roots are equal: they follow from the request.
//
//	flags 1 | clock uvarint | count uvarint | [digest 16 | children 16*4]
type RootAnswer struct {
	Header
	Equal    bool  // the roots are equal
	Data     bool  // the receiver has data of users
	Syncing  bool  // the receiver is being filled
	Clock    int64 // its wall clock, Unix ms
	Count    uint64
	Digest   [16]byte
	Children Children
}

// Append encodes the body.
func (m *RootAnswer) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindRoot+1)
	var flags byte
	if m.Equal {
		flags |= flagEqual
	}
	if m.Data {
		flags |= flagData
	}
	if m.Syncing {
		flags |= flagSyncing
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(m.Clock))
	dst = binary.AppendUvarint(dst, m.Count)
	if m.Equal {
		return dst
	}
	return m.Children.append(append(dst, m.Digest[:]...))
}

// DecodeRootAnswer reads the answer to a Root.
func DecodeRootAnswer(b []byte) (m RootAnswer, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindRoot + 1)
	flags := d.u8()
	if flags&^(flagEqual|flagData|flagSyncing) != 0 {
		d.fail("unknown flags %#x", flags)
	}
	m.Equal, m.Data, m.Syncing = flags&flagEqual != 0, flags&flagData != 0, flags&flagSyncing != 0
	m.Clock, m.Count = d.millis(), d.uvarint()
	if !m.Equal {
		m.Digest, m.Children = d.digest(), d.children()
	}
	return m, d.end()
}

// Nodes asks for the children of inner nodes, all of one level from 1 to 3.
//
//	salt 8 | level 1 | indexes
type Nodes struct {
	Header
	Salt    uint64
	Level   int
	Indexes []uint32 // ascending
}

// Append encodes the body.
func (m *Nodes) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindNodes)
	dst = binary.BigEndian.AppendUint64(dst, m.Salt)
	return appendIndexes(append(dst, byte(m.Level)), m.Indexes)
}

// DecodeNodes reads a request for nodes.
func DecodeNodes(b []byte) (m Nodes, err error) {
	d := decoder{b: b}
	m.Header, m.Salt, m.Level = d.header(kindNodes), d.u64(), int(d.u8())
	if d.err == nil && (m.Level < 1 || m.Level >= merkle.Depth) {
		d.fail("there is no inner level %d", m.Level)
		m.Level = 1
	}
	m.Indexes = d.indexes(MaxNodes, 1<<(4*min(m.Level, merkle.Depth)))
	return m, d.end()
}

// NodesAnswer has the children of each node asked for, in order.
type NodesAnswer struct {
	Header
	Children []Children
}

// Append encodes the body.
func (m *NodesAnswer) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindNodes+1)
	for i := range m.Children {
		dst = m.Children[i].append(dst)
	}
	return dst
}

// DecodeNodesAnswer reads the answer to a request for n nodes.
func DecodeNodesAnswer(b []byte, n int) (m NodesAnswer, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindNodes + 1)
	if d.err == nil && len(b)-d.off != n*merkle.Fanout*4 {
		d.fail("children of other than %d nodes", n)
	}
	if d.err == nil {
		m.Children = make([]Children, n)
		for i := range m.Children {
			m.Children[i] = d.children()
		}
	}
	return m, d.end()
}

// Buckets asks for the records of leaves.
//
//	salt 8 | from uvarint | indexes
type Buckets struct {
	Header
	Salt    uint64
	From    uint64   // only key hashes of at least this: where an earlier listing stopped
	Buckets []uint32 // ascending
}

// Append encodes the body.
func (m *Buckets) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindBuckets)
	dst = binary.BigEndian.AppendUint64(dst, m.Salt)
	dst = binary.AppendUvarint(dst, m.From)
	return appendIndexes(dst, m.Buckets)
}

// DecodeBuckets reads a request for listings.
func DecodeBuckets(b []byte) (m Buckets, err error) {
	d := decoder{b: b}
	m = Buckets{Header: d.header(kindBuckets), Salt: d.u64(), From: d.uvarint()}
	m.Buckets = d.indexes(MaxNodes, merkle.Leaves)
	return m, d.end()
}

// Entry is one record of a listing.
type Entry struct {
	Hash   uint64
	Digest uint32 // salted
}

// BucketsAnswer lists records by ascending key hash. It is complete for hashes
// below Next, and altogether if Next is 0.
//
//	next uvarint, then for each bucket asked for:
//	uvarint count, then for each: low 6 bytes of the hash, digest 4
type BucketsAnswer struct {
	Header
	Next    uint64
	Entries []Entry
}

// Append encodes the answer to a request for buckets.
func (m *BucketsAnswer) Append(dst []byte, buckets []uint32) []byte {
	dst = m.Header.append(dst, kindBuckets+1)
	dst = binary.AppendUvarint(dst, m.Next)
	rest := m.Entries
	for _, bucket := range buckets {
		n := 0
		for n < len(rest) && merkle.Bucket(rest[n].Hash) == bucket {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		for _, e := range rest[:n] {
			dst = binary.BigEndian.AppendUint16(dst, uint16(e.Hash>>32))
			dst = binary.BigEndian.AppendUint32(dst, uint32(e.Hash))
			dst = binary.BigEndian.AppendUint32(dst, e.Digest)
		}
		rest = rest[n:]
	}
	return dst
}

// DecodeBucketsAnswer reads the answer to req.
func DecodeBucketsAnswer(b []byte, req *Buckets) (m BucketsAnswer, err error) {
	d := decoder{b: b}
	m.Header, m.Next = d.header(kindBuckets+1), d.uvarint()
	if d.err == nil && m.Next != 0 && m.Next <= req.From {
		d.fail("it makes no progress")
	}
	for _, bucket := range req.Buckets {
		n := d.count(MaxEntries-len(m.Entries), 6+4)
		m.Entries = slices.Grow(m.Entries, n)
		for range n {
			hash := uint64(bucket) << 48
			if low := d.take(6); low != nil {
				hash |= uint64(binary.BigEndian.Uint16(low))<<32 | uint64(binary.BigEndian.Uint32(low[2:]))
			}
			e := Entry{hash, d.u32()}
			if i := len(m.Entries); d.err == nil && (hash < req.From || m.Next != 0 && hash >= m.Next || i > 0 && m.Entries[i-1].Hash > hash) {
				d.fail("key hash out of order")
			}
			m.Entries = append(m.Entries, e)
		}
		if d.err != nil {
			break
		}
	}
	return m, d.end()
}

// Item says what the sender holds under a key hash; a zero Timestamp says:
// nothing. Records of several keys may share a hash: then it has several items.
type Item struct {
	Hash      uint64
	Timestamp types.Timestamp
	Digest    uint32 // salted; 0 where Timestamp is
}

// Exchange asks for what the receiver has newer than the items, and tells what
// the sender has.
//
//	salt 8 | uvarint count, then for each: hash 8, timestamp 8, [digest 4]
type Exchange struct {
	Header
	Salt  uint64
	Items []Item // ascending by hash
}

// Append encodes the body.
func (m *Exchange) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindExchange)
	dst = binary.BigEndian.AppendUint64(dst, m.Salt)
	dst = binary.AppendUvarint(dst, uint64(len(m.Items)))
	for _, it := range m.Items {
		dst = binary.BigEndian.AppendUint64(dst, it.Hash)
		dst = binary.BigEndian.AppendUint64(dst, uint64(it.Timestamp))
		if it.Timestamp != 0 {
			dst = binary.BigEndian.AppendUint32(dst, it.Digest)
		}
	}
	return dst
}

// DecodeExchange reads the opening of an exchange.
func DecodeExchange(b []byte) (m Exchange, err error) {
	d := decoder{b: b}
	m.Header, m.Salt = d.header(kindExchange), d.u64()
	if n := d.count(MaxExchange, 16); n > 0 {
		m.Items = make([]Item, 0, n)
		for i := range n {
			it := Item{Hash: d.u64(), Timestamp: types.Timestamp(d.u64())}
			if it.Timestamp != 0 {
				it.Digest = d.u32()
			}
			if d.err == nil && i > 0 {
				last := m.Items[i-1]
				if last.Hash > it.Hash || last.Hash == it.Hash && (last.Timestamp == 0 || it.Timestamp == 0) {
					d.fail("items out of order")
				}
			}
			m.Items = append(m.Items, it)
		}
	}
	return m, d.end()
}

// ExchangeAnswer settles the first Handled items: Records are what the receiver
// has newer, Wants index the items whose records it lacks or has older (the
// first item of each such hash).
//
//	handled uvarint | indexes | uvarint count, records
type ExchangeAnswer struct {
	Header
	Handled int
	Wants   []uint32
	Records []types.Record
}

// Append encodes the body.
func (m *ExchangeAnswer) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindExchange+1)
	dst = binary.AppendUvarint(dst, uint64(m.Handled))
	return appendRecords(appendIndexes(dst, m.Wants), m.Records)
}

// DecodeExchangeAnswer reads the answer to an exchange of n items.
func DecodeExchangeAnswer(b []byte, n int) (m ExchangeAnswer, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindExchange + 1)
	if handled := d.uvarint(); d.err == nil && (handled == 0 || handled > uint64(n)) {
		d.fail("%d of %d items are handled", handled, n)
	} else {
		m.Handled = int(handled)
	}
	m.Wants = d.indexes(m.Handled, uint32(m.Handled))
	m.Records = d.records(MaxPushRecords)
	return m, d.end()
}
