package wire

import (
	"encoding/binary"

	"kvs/types"
)

// MaxFetch bounds the refs of one fetch.
const MaxFetch = 1024

// Fetch asks for records by name.
//
//	uvarint count, refs
type Fetch struct {
	Header
	Refs []types.Ref
}

// Append encodes the body.
func (m *Fetch) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindFetch)
	dst = binary.AppendUvarint(dst, uint64(len(m.Refs)))
	for _, r := range m.Refs {
		dst = appendRef(dst, r)
	}
	return dst
}

// DecodeFetch reads a fetch.
func DecodeFetch(b []byte) (m Fetch, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindFetch)
	if n := d.count(MaxFetch, 2); n > 0 {
		m.Refs = make([]types.Ref, 0, n)
		for range n {
			m.Refs = append(m.Refs, d.ref(false))
		}
	}
	return m, d.end()
}

// FetchAnswer has those of the records that the receiver can read.
//
//	uvarint count, records
type FetchAnswer struct {
	Header
	Records []types.Record
}

// Append encodes the body.
func (m *FetchAnswer) Append(dst []byte) []byte {
	return appendRecords(m.Header.append(dst, kindFetch+1), m.Records)
}

// DecodeFetchAnswer reads the answer to a fetch.
func DecodeFetchAnswer(b []byte) (m FetchAnswer, err error) {
	d := decoder{b: b}
	m.Header, m.Records = d.header(kindFetch+1), d.records(MaxFetch)
	return m, d.end()
}

// Stream asks for a page of the records of an age band, in ref order.
//
//	from 8 | to 8 | after ref | size uvarint
type Stream struct {
	Header
	From, To types.Timestamp // the band: From <= timestamp < To
	After    types.Ref       // the position; zero: the beginning
	Size     int             // about how many bytes the page may have
}

// Append encodes the body.
func (m *Stream) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindStream)
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.From))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.To))
	return binary.AppendUvarint(appendRef(dst, m.After), uint64(m.Size))
}

// DecodeStream reads a request for a page.
func DecodeStream(b []byte) (m Stream, err error) {
	d := decoder{b: b}
	m = Stream{Header: d.header(kindStream), From: types.Timestamp(d.u64()), To: types.Timestamp(d.u64()), After: d.ref(true)}
	size := d.uvarint()
	if size > 1<<30 {
		d.fail("page of %d bytes", size)
	}
	m.Size = int(size)
	return m, d.end()
}

// StreamAnswer is a page. A page may be empty and not the last: a band is
// searched for a bounded time.
//
//	done 1 | next ref | uvarint count, records
type StreamAnswer struct {
	Header
	Done    bool
	Next    types.Ref // the position after this page, unless Done
	Records []types.Record
}

// Append encodes the body.
func (m *StreamAnswer) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindStream+1)
	done := byte(0)
	if m.Done {
		done = 1
	}
	return appendRecords(appendRef(append(dst, done), m.Next), m.Records)
}

// DecodeStreamAnswer reads a page.
func DecodeStreamAnswer(b []byte) (m StreamAnswer, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindStream + 1)
	done := d.u8()
	if done > 1 {
		d.fail("done is %d", done)
	}
	m.Done = done == 1
	m.Next = d.ref(m.Done)
	m.Records = d.records(MaxPushRecords)
	return m, d.end()
}
