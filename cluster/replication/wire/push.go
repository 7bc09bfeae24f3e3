package wire

import (
	"encoding/binary"

	"kvs/storage/codec"
	"kvs/types"
)

// Bounds of a push.
const (
	MaxPushRecords = 1 << 18 // records of one push
	maxReason      = 512     // bytes of a refusal's reason
)

// Push carries records; each unit is to be applied as a whole.
//
//	uvarint number of units, then for each: uvarint number of records, records
type Push struct {
	Header
	Units [][]types.Record
}

// Append encodes the body.
func (m *Push) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindPush)
	dst = binary.AppendUvarint(dst, uint64(len(m.Units)))
	for _, unit := range m.Units {
		dst = appendRecords(dst, unit)
	}
	return dst
}

// Size gives about how many bytes the units take.
func Size(unit []types.Record) (n int) {
	for i := range unit {
		n += codec.Size(&unit[i])
	}
	return n + 2
}

// DecodePush reads a push.
func DecodePush(b []byte) (m Push, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindPush)
	if n := d.count(MaxPushRecords, 1+minRecord); n > 0 {
		m.Units = make([][]types.Record, 0, n)
		left := MaxPushRecords
		for range n {
			unit := d.records(left)
			if d.err == nil && len(unit) == 0 {
				d.fail("empty unit")
			}
			if d.err != nil {
				break
			}
			left -= len(unit)
			m.Units = append(m.Units, unit)
		}
	}
	return m, d.end()
}

// Refused names a record that the receiver did not store.
type Refused struct {
	Ref    types.Ref
	Reason string
}

// PushAnswer says that everything pushed is durable, but for the refused.
//
//	uvarint count, then for each: ref, reason
type PushAnswer struct {
	Header
	Refused []Refused
}

// Append encodes the body.
func (m *PushAnswer) Append(dst []byte) []byte {
	dst = m.Header.append(dst, kindPush+1)
	dst = binary.AppendUvarint(dst, uint64(len(m.Refused)))
	for _, r := range m.Refused {
		dst = appendRef(dst, r.Ref)
		dst = appendText(dst, r.Reason[:min(len(r.Reason), maxReason)])
	}
	return dst
}

// DecodePushAnswer reads the answer to a push.
func DecodePushAnswer(b []byte) (m PushAnswer, err error) {
	d := decoder{b: b}
	m.Header = d.header(kindPush + 1)
	if n := d.count(MaxPushRecords, 3); n > 0 {
		m.Refused = make([]Refused, 0, n)
		for range n {
			m.Refused = append(m.Refused, Refused{d.ref(false), d.text(maxReason)})
		}
	}
	return m, d.end()
}
