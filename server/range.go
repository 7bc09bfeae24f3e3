package server

import (
	"math"
	"net/http"
	"strconv"

	"kvs/auth"
	"kvs/storage"
	"kvs/types"
)

const (
	rangeLimit    = 100
	maxRangeLimit = 1000
	maxDelimiter  = 64 // bytes
)

// getRange answers GET /kv/_range.
func (a *api) getRange(w http.ResponseWriter, r *request) error {
	p, err := parseParams(r, "start_key", "end_key", "prefix", "limit", "cursor", "keys_only", "delimiter", "reverse")
	if err != nil {
		return err
	}
	o, err := scanOptions(p, types.NSData)
	if err != nil {
		return err
	}
	r.narrow(&o, auth.RightRead)
	page, err := a.scan(r.Context(), o)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, func(b []byte) []byte {
		b = append(b, `{"items":[`...)
		for i := range page.Records {
			rec := &page.Records[i]
			b = append(b, `{"key":`...)
			b = appendString(b, string(rec.Key))
			b = append(b, ',')
			b = appendRecord(b, rec, !o.KeysOnly)
			b = append(b, "},"...)
		}
		b = closeList(b)
		b = append(b, `,"prefixes":[`...)
		for _, prefix := range page.Prefixes {
			b = appendString(b, string(prefix))
			b = append(b, ',')
		}
		b = closeList(b)
		b = appendCursor(b, &page, o.Reverse)
		b = append(b, `,"sequence":"`...)
		b = a.appendSequence(b, page.Sequence)
		return append(b, "\"}\n"...)
	})
	return nil
}

// closeList ends a list in which a comma follows every element.
func closeList(b []byte) []byte {
	if b[len(b)-1] == ',' {
		b[len(b)-1] = ']'
		return b
	}
	return append(b, ']')
}

// appendSequence writes the watch id of a snapshot, SEQ.INDEX-NODE: the place
// behind every change of the commit, however many it has.
func (a *api) appendSequence(b []byte, seq uint64) []byte {
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, math.MaxInt32, 10)
	b = append(b, '-')
	return appendUUID(b, a.store.Identity().UUID)
}

// scanOptions reads the parameters of a range; those that the route does not
// know are absent.
func scanOptions(p params, ns types.Namespace) (o storage.ScanOptions, err error) {
	o.NS = ns
	var texts [4]string
	for i, name := range []string{"prefix", "start_key", "end_key", "delimiter"} {
		most := types.MaxKeyLen
		if name == "delimiter" {
			most = maxDelimiter
		}
		if texts[i], err = p.text(name, most); err != nil {
			return o, err
		}
	}
	o.Prefix, o.Start, o.End, o.Delimiter = types.Key(texts[0]), types.Key(texts[1]), types.Key(texts[2]), texts[3]
	if o.Limit, err = p.integer("limit", rangeLimit, 1, maxRangeLimit); err != nil {
		return o, err
	}
	if o.KeysOnly, err = p.flag("keys_only"); err != nil {
		return o, err
	}
	if o.Reverse, err = p.flag("reverse"); err != nil {
		return o, err
	}
	if p["cursor"] == "" {
		return o, nil
	}
	next, err := parseCursor(p["cursor"], o.Reverse)
	if err != nil {
		return o, err
	}
	// A cursor only narrows what the other parameters select.
	if o.Reverse && (o.End == "" || next < o.End) {
		o.End = next
	}
	if !o.Reverse && next > o.Start {
		o.Start = next
	}
	return o, nil
}
