package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"kvs/types"
)

const jsonType = "application/json"

// request is one call. The body is bytes, so that it can be sent again.
type request struct {
	method string
	path   string // escaped, from its slash
	query  url.Values
	header http.Header
	body   []byte
	// extra is added to the attempt's time-out: what the node was asked to wait.
	extra time.Duration
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// send makes the call, again where that is safe (see retryDelay). A status of
// 300 or more is an error.
func (c *Client) send(ctx context.Context, r request) (*response, error) {
	for attempt := 0; ; attempt++ {
		resp, err := c.attempt(ctx, r)
		if err == nil {
			return resp, nil
		}
		delay, safe := retryDelay(err, attempt)
		if !safe || attempt >= c.retries || !sleep(ctx, delay) {
			return nil, err
		}
	}
}

// call is send with a JSON answer, read into out.
func (c *Client) call(ctx context.Context, r request, out any) error {
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.body, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not the JSON of a node (is %s one?): %w", r.method, r.path, c.base, err)
	}
	return nil
}

func (c *Client) attempt(ctx context.Context, r request) (*response, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, c.timeout+r.extra,
		fmt.Errorf("no answer within %s", c.timeout+r.extra))
	defer cancel()

	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(bounded, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", "kvs-client")
	if err := c.authorize(req); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, bounded, err)
	}
	defer resp.Body.Close()

	body, err := io.ReadAll(io.LimitReader(resp.Body, c.maxResponse+1))
	if err != nil {
		return nil, c.unreachable(ctx, bounded, err)
	}
	if int64(len(body)) > c.maxResponse {
		return nil, fmt.Errorf("%s %s: the answer is larger than %d bytes (client.Options.MaxResponse)", r.method, r.path, c.maxResponse)
	}
	if resp.StatusCode >= 300 {
		return nil, parseProblem(resp.StatusCode, resp.Header, body)
	}
	return &response{resp.StatusCode, resp.Header, body}, nil
}

// unreachable says why there is no answer. The caller's own context comes
// first: a call that was given up says nothing about the node.
func (c *Client) unreachable(ctx, bounded context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cause := context.Cause(bounded); cause != nil {
		err = cause
	}
	// The URL is in our own words already.
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err
	}
	return fmt.Errorf("%w: %s: %w", types.ErrUnreachable, c.base, err)
}
