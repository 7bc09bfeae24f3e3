package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Conflict is a version that lost: two nodes had written the key without
// knowing of each other. Its value is kept until it is settled or expires.
type Conflict struct {
	Key         string          `json:"key"`
	UUID        string          `json:"uuid"`      // of the version that lost
	Timestamp   int64           `json:"timestamp"` // when it was written, Unix milliseconds
	Origin      string          `json:"origin"`    // the node that took it
	Winner      string          `json:"winner"`    // UUID of the version it lost to
	Deleted     bool            `json:"deleted"`   // the version that lost was a delete
	ContentType string          `json:"content_type,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"` // as in Item; absent of a delete
}

// ConflictPage is one answer of the list.
type ConflictPage struct {
	Items      []Conflict `json:"items"`
	NextCursor string     `json:"next_cursor"`
}

// Conflicts gives the conflicts of the keys that begin with prefix. An error is
// the last thing that it yields.
func (c *Client) Conflicts(ctx context.Context, prefix string) iter.Seq2[Conflict, error] {
	return items(pages("", func(cursor string) (ConflictPage, string, error) {
		p, err := c.conflictPage(ctx, prefix, cursor)
		return p, p.NextCursor, err
	}), func(p ConflictPage) []Conflict { return p.Items })
}

func (c *Client) conflictPage(ctx context.Context, prefix, cursor string) (ConflictPage, error) {
	q := url.Values{"limit": {strconv.Itoa(pageSize(0))}}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var p ConflictPage
	err := c.call(ctx, request{method: http.MethodGet, path: "/kv/_conflicts", query: q}, &p)
	return p, err
}

// Settle takes a conflict off the list, by the UUID of the version that lost.
func (c *Client) Settle(ctx context.Context, uuid string) error {
	_, err := c.send(ctx, request{method: http.MethodDelete, path: "/kv/_conflicts/" + url.PathEscape(uuid)})
	return err
}
