package tamperlog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kvs/storage"
	"kvs/types"
)

// Filter selects entries. Zero values select all.
type Filter struct {
	After     uint64    // entries with greater numbers
	Since     time.Time // inclusive, to the millisecond
	Until     time.Time // exclusive
	Who       string    // the actor's subject
	Action    Action
	NS        types.Namespace
	KeyPrefix string
	Limit     int // 0 = 100
}

const defaultLimit = 100

// Entries gives entries in order of their numbers. next continues as After; 0
// says that there are no more.
//
// Blocks are checked one by one and not as a chain, which is Verify's part. One
// that cannot be read is given as an entry with ActionDamaged, whatever else the
// filter selects: nobody hides behind damage. (Only its time is believed
// unchecked: Since and Until would be slow otherwise.)
func Entries(ctx context.Context, store *storage.Store, f Filter) (entries []Entry, next uint64, err error) {
	if f.Limit <= 0 {
		f.Limit = defaultLimit
	}
	entries = []Entry{}
	// The block that holds the first entry begins no earlier than this.
	from := blockKey(f.After - min(f.After, maxEntries-2))
	err = walk(ctx, store, from, func(key, value []byte) error {
		found, err := f.block(key, value)
		if err != nil {
			return err
		}
		for _, e := range found {
			if len(entries) == f.Limit {
				next = entries[f.Limit-1].N
				return errStop
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, next, err
}

// block gives what the filter selects of one block.
func (f *Filter) block(key, value []byte) ([]Entry, error) {
	n, err := numberOf(key)
	if err != nil {
		return nil, nil // no number to show it under; Verify reports it
	}
	h, err := decodeHeader(value)
	if err == nil && h.first == n && (h.last() <= f.After || !f.inTime(h.time)) {
		return nil, nil
	}
	b, err := blockUnder(n, value)
	if err != nil {
		if n <= f.After {
			return nil, nil
		}
		return []Entry{{N: n, Action: ActionDamaged, Detail: fmt.Sprintf("%v; run `kvs audit verify`", err)}}, nil
	}
	var out []Entry
	for i := range b.Entries {
		if e := &b.Entries[i]; f.selects(e) {
			out = append(out, *e)
		}
	}
	return out, nil
}

func (f *Filter) inTime(ms int64) bool {
	return (f.Since.IsZero() || ms >= f.Since.UnixMilli()) && (f.Until.IsZero() || ms < f.Until.UnixMilli())
}

func (f *Filter) selects(e *Entry) bool {
	return e.N > f.After && f.inTime(e.Time) &&
		(f.Who == "" || e.By.Subject == f.Who) &&
		(f.Action == 0 || e.Action == f.Action) &&
		(f.NS == 0 || e.NS == f.NS) &&
		strings.HasPrefix(e.Key, f.KeyPrefix)
}
