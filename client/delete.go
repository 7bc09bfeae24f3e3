package client

import (
	"context"
	"net/http"
	"net/url"
)

// DeleteOptions qualify a delete.
type DeleteOptions struct {
	IfMatch string // only the version with this UUID; else types.ErrPrecond
	Replicas
}

// Delete removes a key. The error is types.ErrNotFound where it has no value.
func (c *Client) Delete(ctx context.Context, key string, o DeleteOptions) error {
	path, err := keyPath(key)
	if err != nil {
		return err
	}
	r := request{method: http.MethodDelete, path: path, query: url.Values{}, header: http.Header{}}
	if o.IfMatch != "" {
		r.header.Set("If-Match", `"`+o.IfMatch+`"`)
	}
	o.apply(&r)
	_, err = c.send(ctx, r)
	return err
}
