package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Metadata is what is known of a key's value, without the value.
type Metadata struct {
	UUID        string `json:"uuid"`                 // of this version
	Timestamp   int64  `json:"timestamp"`            // Unix milliseconds
	Owner       string `json:"owner"`                // a user's UUID, "root" or "anonymous"
	Group       string `json:"group"`                // a group's UUID or "root"
	Mode        string `json:"mode"`                 // owner:group:others, like "cdwr:--wr:---r"
	TTL         string `json:"ttl"`                  // what is left of it; "0": for ever
	ExpiresAt   int64  `json:"expires_at,omitempty"` // Unix milliseconds; 0: never
	Size        int64  `json:"size"`                 // of the value, in bytes
	ContentType string `json:"content_type,omitempty"`
	Origin      string `json:"origin"` // UUID of the node that took it
}

// MetadataChange says what to change; what is nil stays as it is. Owner and
// Group take a UUID, or a nickname that only one has.
type MetadataChange struct {
	Owner, Group, Mode *string
	TTL                *time.Duration // from now; 0: for ever
	IfMatch            string         // only of the version with this UUID; else types.ErrPrecond
	Replicas
}

// Metadata reads the metadata of a key. The error is types.ErrNotFound where it
// has no value.
func (c *Client) Metadata(ctx context.Context, key string) (Metadata, error) {
	path, err := keyPath(key)
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	err = c.call(ctx, request{method: http.MethodGet, path: path, query: url.Values{"metadata": {""}}}, &m)
	return m, err
}

// SetMetadata changes the metadata of a key, which makes a new version with the
// same value.
func (c *Client) SetMetadata(ctx context.Context, key string, change MetadataChange) (Written, error) {
	path, err := keyPath(key)
	if err != nil {
		return Written{}, err
	}
	body := map[string]string{}
	set := func(name string, value *string) {
		if value != nil {
			body[name] = *value
		}
	}
	set("owner", change.Owner)
	set("group", change.Group)
	set("mode", change.Mode)
	if change.TTL != nil {
		body["ttl"] = change.TTL.String()
	}
	r := request{
		method: http.MethodPut,
		path:   path,
		query:  url.Values{"metadata": {""}},
		header: http.Header{"Content-Type": {jsonType}},
	}
	if r.body, err = json.Marshal(body); err != nil {
		return Written{}, fmt.Errorf("key %q: %w", key, err)
	}
	if change.IfMatch != "" {
		r.header.Set("If-Match", `"`+change.IfMatch+`"`)
	}
	change.apply(&r)
	var w Written
	err = c.call(ctx, r, &w)
	return w, err
}
