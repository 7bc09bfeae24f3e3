package watch

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"kvs/types"
)

// Place is a place in a node's stream of events: what is before it was told,
// what is behind it was not. Only the node that gave it can make sense of it.
//
// Index is one of
//
//	0 ... 2^20-1       behind the change with this index in commit Seq
//	2^20 ... 2^24-1    behind commit Seq; the number only makes ids distinct
//	2^24 ... 2^31-2    behind commit Seq and all expiries up to a second, which is
//	                   counted from the year 2000 (and so until 2067)
//	2^31-1             behind commit Seq, as /kv/_range gives it
//
// No commit has 2^20 changes: a transaction of the store has room for some
// 40,000.
type Place struct {
	Seq   uint64
	Index int32
}

const (
	firstFiller = 1 << 20
	firstTime   = 1 << 24
	everything  = math.MaxInt32
	year2000    = 946_684_800 // Unix seconds
)

// Behind is the place behind all of a commit.
func Behind(seq uint64) Place { return Place{seq, everything} }

// behindAt is the place behind all of a commit and the expiries up to ms.
func behindAt(seq uint64, ms int64) Place {
	second := ms/1000 - year2000
	if second < 0 || second >= everything-firstTime {
		return Behind(seq)
	}
	return Place{seq, int32(firstTime + second)}
}

// whole reports whether the place is behind all of its commit.
func (p Place) whole() bool { return p.Index >= firstFiller }

// until is the time, in Unix ms, up to which expiries lie before the place, if
// it says so itself.
func (p Place) until() (ms int64, ok bool) {
	if p.Index < firstTime || p.Index == everything {
		return 0, false
	}
	return (int64(p.Index-firstTime) + year2000) * 1000, true
}

// before is the newest commit that is whole before the place.
func (p Place) before() uint64 {
	if p.whole() {
		return p.Seq
	}
	return p.Seq - 1
}

// passed reports whether a change with this index of commit seq lies before the
// place.
func (p Place) passed(seq uint64, index int) bool {
	return seq < p.Seq || seq == p.Seq && (p.whole() || index <= int(p.Index))
}

// later gives that of two places of one stream that is further on.
func later(a, b Place) Place {
	if cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Index, b.Index)) < 0 {
		return b
	}
	return a
}

// AppendID appends the place as clients know it: SEQ.INDEX-NODE.
func (p Place) AppendID(b []byte, node types.NodeID) []byte {
	b = strconv.AppendUint(b, p.Seq, 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(p.Index), 10)
	b = append(b, '-')
	return append(b, node.String()...)
}

// ParseID reads what AppendID wrote. The error says what an id looks like.
func ParseID(s string) (Place, types.NodeID, error) {
	seqText, rest, _ := strings.Cut(s, ".")
	indexText, nodeText, _ := strings.Cut(rest, "-")
	seq, errSeq := strconv.ParseUint(seqText, 10, 64)
	index, errIndex := strconv.ParseUint(indexText, 10, 31)
	node, errNode := types.ParseNodeID(nodeText)
	if errSeq != nil || errIndex != nil || errNode != nil || len(nodeText) != len(node.String()) || seq == 0 {
		return Place{}, types.NodeID{}, fmt.Errorf("want an id as an event or the sequence of a range has it, SEQ.INDEX-NODE, not %.80q", s)
	}
	return Place{seq, int32(index)}, node, nil
}
