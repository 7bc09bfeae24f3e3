package storage

import (
	"context"
	"strings"

	"github.com/dgraph-io/badger/v4"

	"kvs/types"
)

// ScanOptions select a range of one namespace, in byte order of the keys.
type ScanOptions struct {
	NS         types.Namespace
	Prefix     types.Key
	Start, End types.Key // start inclusive, end exclusive; empty = unbounded
	Limit      int       // of records and common prefixes together; at least 1
	Delimiter  string    // fold keys that hold it after the prefix into one common prefix
	KeysOnly   bool      // records without values
	Reverse    bool      // from the end
	// Visible, if any, says which records there are as far as the caller is
	// concerned: the others count for nothing, common prefixes included.
	Visible func(*types.Record) bool
}

// ScanPage is a part of a range.
type ScanPage struct {
	Records  []types.Record
	Prefixes []types.Key
	More     bool
	// Next continues the scan where More is set: as Start, or as End of a
	// reverse one.
	Next     types.Key
	Sequence uint64 // the snapshot that was read
}

// scanStep is how many keys are looked at between two looks at the context.
const scanStep = 1024

// Scan reads live records of a range from one snapshot. A damaged record ends
// it with a *CorruptError: leaving it out would look like its absence.
func (s *Store) Scan(ctx context.Context, o ScanOptions) (ScanPage, error) {
	seq := s.seq.Load()
	txn := s.db.NewTransactionAt(seq, false)
	defer txn.Discard()
	r := newRangeIterator(txn, o)
	defer r.it.Close()

	page := ScanPage{Sequence: seq}
	now := s.clock.Wall().UnixMilli()
	for looked := 1; r.valid(); looked++ {
		if looked%scanStep == 0 && ctx.Err() != nil {
			return page, ctx.Err()
		}
		key := r.key()
		rec, err := itemRecord(r.it.Item(), types.Ref{NS: o.NS, Key: key})
		if err != nil {
			s.reportCorrupt(err)
			return page, err
		}
		if !rec.Live(now) || o.Visible != nil && !o.Visible(&rec) {
			r.it.Next()
			continue
		}
		if len(page.Records)+len(page.Prefixes) >= o.Limit {
			page.More, page.Next = true, key
			if o.Reverse {
				page.Next += "\x00" // an exclusive end just behind it
			}
			break
		}
		if common, ok := o.fold(key); ok {
			page.Prefixes = append(page.Prefixes, common)
			r.skip(common)
			continue
		}
		if o.KeysOnly {
			rec.Value = nil
		}
		page.Records = append(page.Records, rec)
		r.it.Next()
	}
	return page, nil
}

// fold gives the common prefix that stands for key, if any.
func (o *ScanOptions) fold(key types.Key) (types.Key, bool) {
	if o.Delimiter == "" {
		return "", false
	}
	i := strings.Index(string(key[len(o.Prefix):]), o.Delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(o.Prefix)+i+len(o.Delimiter)], true
}

// rangeIterator walks the keys of a range in either direction.
type rangeIterator struct {
	it        *badger.Iterator
	space     []byte // keyspace and namespace
	low, high types.Key
	reverse   bool
}

func newRangeIterator(txn *badger.Txn, o ScanOptions) *rangeIterator {
	r := &rangeIterator{
		space:   []byte{spaceRecords, byte(o.NS)},
		low:     max(o.Start, o.Prefix),
		high:    successor(o.Prefix),
		reverse: o.Reverse,
	}
	if o.End != "" && (r.high == "" || o.End < r.high) {
		r.high = o.End
	}
	// The iterator's own prefix stays the namespace: a reverse one starts at the
	// bound, which lies outside a longer prefix.
	r.it = txn.NewIterator(badger.IteratorOptions{Prefix: r.space, Reverse: o.Reverse})
	switch {
	case !r.reverse:
		r.it.Seek(r.at(r.low))
	case r.high != "":
		r.below(r.high)
	default:
		r.it.Seek(append(r.at(""), maxKey...))
	}
	return r
}

// maxKey is above every key: none is that long, nor begins with 0xff bytes.
var maxKey = strings.Repeat("\xff", 8)

func (r *rangeIterator) at(key types.Key) []byte { return append(r.space[:2:2], key...) }

func (r *rangeIterator) key() types.Key { return types.Key(r.it.Item().Key()[2:]) }

func (r *rangeIterator) valid() bool {
	if !r.it.ValidForPrefix(r.space) {
		return false
	}
	if r.reverse {
		return r.key() >= r.low
	}
	return r.high == "" || r.key() < r.high
}

// below moves a reverse iterator to the greatest key less than bound.
func (r *rangeIterator) below(bound types.Key) {
	r.it.Seek(r.at(bound))
	if r.it.ValidForPrefix(r.space) && r.key() == bound {
		r.it.Next()
	}
}

// skip moves behind all keys that begin with prefix.
func (r *rangeIterator) skip(prefix types.Key) {
	if r.reverse {
		r.below(prefix)
	} else if next := successor(prefix); next != "" {
		r.it.Seek(r.at(next))
	}
}

// successor is the smallest key greater than every key that begins with prefix;
// empty if there is none.
func successor(prefix types.Key) types.Key {
	b := []byte(prefix)
	for len(b) > 0 && b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return ""
	}
	b[len(b)-1]++
	return types.Key(b)
}
