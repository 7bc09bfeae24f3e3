package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// forwarder passes reads on to a node that has the data, while this one is
// being filled.
type forwarder struct {
	client *http.Client
	self   string // this node's UUID
}

// forwardedBy keeps a request from going round: it is passed on once.
const forwardedBy = "Kvs-Forwarded-By"

// The headers that matter to a read, and to its answer.
var (
	requestHeaders = []string{"Authorization", "If-Match", "If-None-Match", "Content-Type"}
	answerHeaders  = []string{"Content-Type", "Content-Length", "Etag", "Retry-After", "Www-Authenticate",
		"Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset", "X-Content-Type-Options", "Content-Security-Policy"}
)

func newForwarder(self string, dial func(ctx context.Context, addr string) (net.Conn, error)) forwarder {
	return forwarder{self: self, client: &http.Client{
		Transport: &http.Transport{
			DialContext:           func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr) },
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       time.Minute,
			ResponseHeaderTimeout: 10 * time.Second,
			DisableCompression:    true, // the value is to arrive as it is
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// forwardTries is how many peers are asked before giving up: one that has just
// gone may still be listed as alive.
const forwardTries = 3

// send passes r on, with body in place of its own, and copies the answer.
func (f forwarder) send(w http.ResponseWriter, r *http.Request, body []byte, p peers) error {
	if r.Header.Get(forwardedBy) != "" {
		return syncing.refuse("this node is being filled from a peer, as is the one that passed the request on")
	}
	resp, err := f.ask(r, body, p)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for _, name := range answerHeaders {
		if v, ok := resp.Header[name]; ok {
			w.Header()[name] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		// Half an answer must not look like a whole one.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// ask gives the first answer of a peer.
func (f forwarder) ask(r *http.Request, body []byte, p peers) (*http.Response, error) {
	var failed error
	for range forwardTries {
		addr, ok := p.NormalPeer()
		if !ok {
			return nil, syncing.refuse("this node is being filled from a peer, and knows no other node that could answer")
		}
		resp, err := f.try(addr, r, body)
		if err == nil {
			return resp, nil
		}
		if failed = err; r.Context().Err() != nil {
			break
		}
	}
	return nil, noPeer.refuse("this node is being filled from a peer, and who should have answered did not: %s", failed)
}

func (f forwarder) try(addr string, r *http.Request, body []byte) (*http.Response, error) {
	target := &url.URL{Scheme: "http", Host: addr, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, name := range requestHeaders {
		if v, ok := r.Header[name]; ok {
			req.Header[name] = v
		}
	}
	req.Header.Set(forwardedBy, f.self)
	return f.client.Do(req)
}

func (f forwarder) close() { f.client.CloseIdleConnections() }
