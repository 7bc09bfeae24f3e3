package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// AuditEntry is one line of a node's tamper log.
type AuditEntry struct {
	N         uint64 `json:"n"`                   // its number, from 1, without a gap
	Time      int64  `json:"time"`                // Unix milliseconds
	Action    string `json:"action"`              // put, delete, metadata, merge, refused, …
	Who       string `json:"who"`                 // a user's UUID, "root", "anonymous", or "node:" and a node's UUID
	Token     string `json:"token,omitempty"`     // jti of the token that was shown
	From      string `json:"from,omitempty"`      // the client's address
	Key       string `json:"key,omitempty"`       // of the record that it is about
	Namespace string `json:"namespace,omitempty"` // of the key; "data" is what clients store
	Before    string `json:"before,omitempty"`    // UUID of the version that was replaced
	After     string `json:"after,omitempty"`     // UUID of the version that was made
	Count     uint64 `json:"count,omitempty"`     // of attempts, or of records, that the entry stands for
	Detail    string `json:"detail,omitempty"`    // why an attempt was refused, for example
}

// AuditFilter chooses entries; the zero value chooses all.
type AuditFilter struct {
	Since, Until time.Time // of the change, until exclusive; the zero time: unbounded
	Who          string    // exactly this one
	Key          string    // keys that begin with this
	Action       string
	After        uint64 // entries with a greater number
	PageSize     int    // entries a call, 1000 at most; 0 = 1000
}

// AuditPage is one answer of the list.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	// NextAfter is the After of the next page; 0 on the last one. A page may be
	// empty and not be the last.
	NextAfter uint64 `json:"next_after"`
}

// AuditEntries gives the entries of the node's tamper log from the oldest,
// fetching page after page. An error is the last thing that it yields. It needs
// the admin scope.
func (c *Client) AuditEntries(ctx context.Context, f AuditFilter) iter.Seq2[AuditEntry, error] {
	return func(yield func(AuditEntry, error) bool) {
		for {
			p, err := c.AuditPage(ctx, f)
			if err != nil {
				yield(AuditEntry{}, err)
				return
			}
			for _, e := range p.Entries {
				if !yield(e, nil) {
					return
				}
			}
			// A page that does not lead on would be asked for again for ever.
			if p.NextAfter <= f.After {
				return
			}
			f.After = p.NextAfter
		}
	}
}

// AuditPage fetches one page.
func (c *Client) AuditPage(ctx context.Context, f AuditFilter) (AuditPage, error) {
	var p AuditPage
	err := c.call(ctx, request{method: http.MethodGet, path: "/admin/audit", query: f.Query()}, &p)
	return p, err
}

// Query writes the filter as GET /admin/audit takes it.
func (f AuditFilter) Query() url.Values {
	q := url.Values{"limit": {strconv.Itoa(pageSize(f.PageSize))}}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	moment := func(name string, t time.Time) {
		if !t.IsZero() {
			q.Set(name, strconv.FormatInt(t.UnixMilli(), 10))
		}
	}
	moment("since", f.Since)
	moment("until", f.Until)
	set("who", f.Who)
	set("key", f.Key)
	set("action", f.Action)
	if f.After > 0 {
		q.Set("after", strconv.FormatUint(f.After, 10))
	}
	return q
}

// AuditCheckpoint is a node's signed word on its log: that the entries up to N
// are those that Head stands for.
type AuditCheckpoint struct {
	N         uint64 `json:"n"`
	Head      string `json:"head"`
	Time      int64  `json:"time"` // Unix milliseconds
	PublicKey string `json:"public_key"`
	Signature string `json:"signature"`
}

// Witnessed gives the checkpoints that the asked node keeps of another, by its
// UUID or node_id; none if it has met none. It needs the admin scope.
func (c *Client) Witnessed(ctx context.Context, node string) ([]AuditCheckpoint, error) {
	var answer struct{ Checkpoints []AuditCheckpoint }
	err := c.call(ctx, request{
		method: http.MethodGet,
		path:   "/admin/audit/witnessed",
		query:  url.Values{"node": {node}},
	}, &answer)
	return answer.Checkpoints, err
}
