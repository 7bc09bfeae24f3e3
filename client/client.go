package client

import (
	"errors"
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
	URL         string            // of any node; "" means DefaultURL; the scheme may be left out: http://, or https:// with CAFile
	Token       string            // sent as a bearer token; "" sends none
	TokenSource TokenSource       // asked instead of Token where that changes; at most one of the two is set
	CAFile      string            // PEM file with the CAs to trust for https://, and no others; "" means those of the system
	Transport   http.RoundTripper // nil: one of the client's own; another does as it likes about CAs, so not with CAFile
	Timeout     time.Duration     // bounds one attempt, answer included; 0 means 1m
	Retries     int               // after the first attempt; 0 means 3, negative none
	MaxResponse int64             // bytes of one answer; 0 means 64 MiB
}

// Client calls one node. It is safe for concurrent use.
type Client struct {
	base        string // scheme, host and path prefix, without a slash at the end
	token       TokenSource
	http        *http.Client
	timeout     time.Duration
	retries     int
	maxResponse int64
}

// New checks the options and gives a client. It does not connect.
func New(o Options) (*Client, error) {
	base, err := parseURL(o.URL, o.CAFile != "")
	if err != nil {
		return nil, err
	}
	token, err := o.tokenSource()
	if err != nil {
		return nil, err
	}
	c := &Client{
		base:        base,
		token:       token,
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
		if transport, err = newTransport(o.CAFile); err != nil {
			return nil, err
		}
	} else if o.CAFile != "" {
		return nil, errors.New("client.Options has both a Transport and a CAFile: give the CA to the transport")
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

func newTransport(caFile string) (http.RoundTripper, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
		// As many kept connections as callers are likely to work at once: the
		// default of 2 would dial anew for most calls of a busy program.
		MaxIdleConnsPerHost: 64,
	}
	if caFile != "" {
		var err error
		if t.TLSClientConfig, err = trust(caFile); err != nil {
			return nil, err
		}
	}
	return explaining{t, caFile}, nil
}

// parseURL completes a URL. Who names a CA means TLS, where nothing else is said.
func parseURL(s string, secure bool) (string, error) {
	full := s
	if s == "" {
		full = strings.TrimPrefix(DefaultURL, "http://")
	}
	if !strings.Contains(full, "://") {
		if secure {
			full = "https://" + full
		} else {
			full = "http://" + full
		}
	}
	u, err := url.Parse(full)
	if err != nil {
		return "", fmt.Errorf("the node's URL %q is not one (want http://HOST:PORT or https://HOST:PORT)", s)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("the node's URL %q is not one (want http://HOST:PORT or https://HOST:PORT)", s)
	}
	return strings.TrimRight(u.String(), "/"), nil
}
