package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// RangeOptions choose keys, in byte order. The zero value chooses all.
type RangeOptions struct {
	Prefix     string
	Start, End string // start inclusive, end exclusive; "" = unbounded
	Delimiter  string // keys that go on behind it after the prefix are answered as one of Page.Prefixes
	KeysOnly   bool   // items without data
	Reverse    bool
	PageSize   int    // items a call, 1000 at most; 0 = 1000
	Cursor     string // Page.NextCursor of an earlier page, to go on behind it
}

// Page is one answer of a range.
type Page struct {
	Items      []Item   `json:"items"`
	Prefixes   []string `json:"prefixes"`
	NextCursor string   `json:"next_cursor"` // "" on the last page
	// Sequence is the watch id of the snapshot that the page was read from.
	Sequence string `json:"sequence"`
}

// Range gives the items of a range, fetching page after page. An error is the
// last thing that it yields. Pages are read one after another, so a change made
// meanwhile may be seen or not.
func (c *Client) Range(ctx context.Context, o RangeOptions) iter.Seq2[Item, error] {
	return items(c.Pages(ctx, o), func(p Page) []Item { return p.Items })
}

// Pages is Range by the page, which is where Prefixes are.
func (c *Client) Pages(ctx context.Context, o RangeOptions) iter.Seq2[Page, error] {
	return pages(o.Cursor, func(cursor string) (Page, string, error) {
		o.Cursor = cursor
		p, err := c.Page(ctx, o)
		return p, p.NextCursor, err
	})
}

// Page fetches one page.
func (c *Client) Page(ctx context.Context, o RangeOptions) (Page, error) {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("prefix", o.Prefix)
	set("start_key", o.Start)
	set("end_key", o.End)
	set("delimiter", o.Delimiter)
	set("cursor", o.Cursor)
	if o.KeysOnly {
		q.Set("keys_only", "true")
	}
	if o.Reverse {
		q.Set("reverse", "true")
	}
	q.Set("limit", strconv.Itoa(pageSize(o.PageSize)))
	var p Page
	err := c.call(ctx, request{method: http.MethodGet, path: "/kv/_range", query: q}, &p)
	return p, err
}

func pageSize(n int) int {
	if n == 0 {
		return 1000
	}
	return n
}

// pages follows cursors until one is empty.
func pages[P any](cursor string, fetch func(cursor string) (P, string, error)) iter.Seq2[P, error] {
	return func(yield func(P, error) bool) {
		for at := cursor; ; {
			p, next, err := fetch(at)
			if !yield(p, err) || err != nil || next == "" {
				return
			}
			at = next
		}
	}
}

// items flattens pages.
func items[P, I any](pages iter.Seq2[P, error], of func(P) []I) iter.Seq2[I, error] {
	return func(yield func(I, error) bool) {
		for p, err := range pages {
			if err != nil {
				var none I
				yield(none, err)
				return
			}
			for _, it := range of(p) {
				if !yield(it, nil) {
					return
				}
			}
		}
	}
}
