package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Revision is one version in the history of a key.
type Revision struct {
	UUID      string `json:"uuid"`
	Timestamp int64  `json:"timestamp"` // Unix milliseconds
	Deleted   bool   `json:"deleted"`   // it deleted the key
	Conflict  bool   `json:"conflict"`  // it lost a conflict
	Origin    string `json:"origin"`    // UUID of the node that took it
}

// Revisions lists the versions of a key that the node still has, newest first:
// the current one, older ones, and those that lost a conflict.
func (c *Client) Revisions(ctx context.Context, key string) ([]Revision, error) {
	path, err := keyPath(key)
	if err != nil {
		return nil, err
	}
	var answer struct{ Revisions []Revision }
	err = c.call(ctx, request{method: http.MethodGet, path: path, query: url.Values{"revisions": {""}}}, &answer)
	return answer.Revisions, err
}

// Version names a version of a key, by one of the two; the zero value is the
// current one.
type Version struct {
	UUID string
	At   time.Time // the version that was current then
}

func (v Version) query(q url.Values) {
	if v.UUID != "" {
		q.Set("revision", v.UUID)
	}
	if !v.At.IsZero() {
		q.Set("at", strconv.FormatInt(v.At.UnixMilli(), 10))
	}
}

// GetVersion reads a version of a key. The error is types.ErrNotFound
// where the node has it no longer, and where it deleted the key or has expired.
func (c *Client) GetVersion(ctx context.Context, key string, v Version) (Item, error) {
	return c.get(ctx, key, v)
}

// GetRawVersion reads the value of a version alone, byte for byte.
func (c *Client) GetRawVersion(ctx context.Context, key string, v Version) (Raw, error) {
	return c.getRaw(ctx, key, v)
}

// Restore writes an older version of a key again, as its newest.
func (c *Client) Restore(ctx context.Context, key, uuid string, o PutOptions) (Written, error) {
	path, err := keyPath(key)
	if err != nil {
		return Written{}, err
	}
	r := request{method: http.MethodPost, path: path, query: url.Values{"restore": {uuid}}, header: http.Header{}}
	return c.write(ctx, r, o)
}
