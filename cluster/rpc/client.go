package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"kvs/types"
)

// Options of a Client.
type Options struct {
	// Dial opens a TCP connection; nil: the operating system's network.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Authorize signs a request, nil: nothing is added.
	Authorize func(*http.Request)
	// MaxBody bounds an answer in bytes; 0: DefaultMaxBody.
	MaxBody int64
	// Timeout bounds a call whose context has no deadline; 0: 30 s.
	Timeout time.Duration
}

// dialTimeout bounds the making of a connection: a host that is gone swallows
// packets, and a call should not spend all its time on finding that out.
const dialTimeout = 5 * time.Second

// Client calls other nodes. It is safe for concurrent use.
type Client struct {
	http           http.Client
	transport      *http.Transport
	authorize      func(*http.Request)
	maxBody        int64
	timeout        time.Duration
	decoder        *zstd.Decoder
	sent, received atomic.Uint64
}

// New makes a client. Close releases its connections.
func New(o Options) *Client {
	if o.Dial == nil {
		var d net.Dialer
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	c := &Client{authorize: o.Authorize, maxBody: o.MaxBody, timeout: o.Timeout, decoder: newDecoder(o.MaxBody)}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return o.Dial(ctx, addr)
		},
		// A push, a comparison and a fetch of each peer at once.
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // bodies carry zstd of our own
	}
	c.http = http.Client{
		Transport: c.transport,
		// A node never redirects: following one would send the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close drops the idle connections. Calls under way end by their contexts.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Traffic gives the bytes of bodies sent and received since the start, as they
// were on the wire.
func (c *Client) Traffic() (sent, received uint64) { return c.sent.Load(), c.received.Load() }

// Call posts body to http://addr/path (path begins with a slash) and gives the
// answer's body. An answer other than 200 is an *Error; a node that could not
// be reached, or broke off, is types.ErrUnreachable; the context's end is the
// context's error. What is called must bear being called twice.
func (c *Client) Call(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	packed, encoding := compress(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("call %s%s: %w", addr, path, err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept-Encoding", encodingZstd)
	// Not sent. It tells the transport that the call may be repeated, which it does
	// when a kept-alive connection turns out to be closed.
	req.Header["Idempotency-Key"] = []string{}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	if c.authorize != nil {
		c.authorize(req)
	}
	c.sent.Add(uint64(len(packed)))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failure(ctx, addr, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("call %s%s: %w", addr, path, readError(resp))
	}
	answer, wire, err := readBody(resp.Body, resp.ContentLength, resp.Header.Get("Content-Encoding"), c.maxBody, c.decoder)
	c.received.Add(uint64(wire))
	if err != nil {
		return nil, c.failure(ctx, addr, path, err)
	}
	// The connection is kept only if the answer was read to its end.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1))
	return answer, nil
}

func (c *Client) failure(ctx context.Context, addr, path string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("call %s%s: %w", addr, path, ctx.Err())
	case errors.Is(err, errTooLarge):
		return fmt.Errorf("call %s%s: %w", addr, path, err)
	}
	return fmt.Errorf("call %s%s: %w: %w", addr, path, types.ErrUnreachable, err)
}
