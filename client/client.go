package client

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultURL is where a node listens unless it is configured otherwise.
const DefaultURL = "http://127.0.0.1:8080"

// Options configure a Client. The zero value speaks to DefaultURL.
type Options struct {
	URL         string            // of any node; "" means DefaultURL; the scheme http:// may be left out
	Token       string            // sent as a bearer token; "" sends none
	Transport   http.RoundTripper // nil: one of the client's own
	Timeout     time.Duration     // bounds one attempt, answer included; 0 means 1m
	Retries     int               // after the first attempt; 0 means 3, negative none
	MaxResponse int64             // bytes of one answer; 0 means 64 MiB
}

// Client calls one node. It is safe for concurrent use.
type Client struct {
	base        string // scheme, host and path prefix, without a slash at the end
	token       string
	http        *http.Client
	timeout     time.Duration
	retries     int
	maxResponse int64
}

// New checks the options and gives a client. It does not connect.
func New(o Options) (*Client, error) {
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("the token holds a space, a line break or a character beyond ASCII; was it copied whole?")
	}
	c := &Client{
		base:        base,
		token:       o.Token,
		timeout:     o.Timeout,
		retries:     o.Retries,
		maxResponse: o.MaxResponse,
	}
	if c.timeout == 0 {
		c.timeout = time.Minute
	}
	switch {
	case c.retries == 0:
		c.retries = 3
	case c.retries < 0:
		c.retries = 0
	}
	if c.maxResponse == 0 {
		c.maxResponse = 64 << 20
	}
	transport := o.Transport
	if transport == nil {
		transport = newTransport()
	}
	c.http = &http.Client{
		Transport: transport,
		// The store answers no call by a redirect. Following one would hand the
		// token to whatever stands in its place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// URL gives the base that calls are made to.
func (c *Client) URL() string { return c.base }

// Close drops idle connections. Calls under way are not disturbed.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
		// As many kept connections as callers are likely to work at once: the
		// default of 2 would dial anew for most calls of a busy program.
		MaxIdleConnsPerHost: 64,
	}
}

func parseURL(s string) (string, error) {
	if s == "" {
		s = DefaultURL
	}
	full := s
	if !strings.Contains(s, "://") {
		full = "http://" + s
	}
	u, err := url.Parse(full)
	if err != nil {
		return "", fmt.Errorf("the node's URL %q is not one (want http://HOST:PORT)", s)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("the node's URL %q is not one (want http://HOST:PORT)", s)
	}
	return strings.TrimRight(u.String(), "/"), nil
}
