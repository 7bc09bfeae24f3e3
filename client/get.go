package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// Get reads a key. The error is types.ErrNotFound where it has no value.
func (c *Client) Get(ctx context.Context, key string) (Item, error) {
	return c.get(ctx, key, Version{})
}

func (c *Client) get(ctx context.Context, key string, v Version) (Item, error) {
	path, err := keyPath(key)
	if err != nil {
		return Item{}, err
	}
	q := url.Values{}
	v.query(q)
	it := Item{Key: key}
	if err := c.call(ctx, request{method: http.MethodGet, path: path, query: q}, &it); err != nil {
		return Item{}, err
	}
	return it, nil
}

// Raw is a value as it was stored.
type Raw struct {
	UUID        string // of this version
	ContentType string // application/json for JSON
	Value       []byte
}

// GetRaw reads the value alone, byte for byte, without the base64 detour that
// bytes take in an Item.
func (c *Client) GetRaw(ctx context.Context, key string) (Raw, error) {
	return c.getRaw(ctx, key, Version{})
}

func (c *Client) getRaw(ctx context.Context, key string, v Version) (Raw, error) {
	path, err := keyPath(key)
	if err != nil {
		return Raw{}, err
	}
	q := url.Values{"raw": {""}}
	v.query(q)
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path, query: q})
	if err != nil {
		return Raw{}, err
	}
	return Raw{
		UUID:        strings.Trim(resp.header.Get("ETag"), `"`),
		ContentType: resp.header.Get("Content-Type"),
		Value:       resp.body,
	}, nil
}
