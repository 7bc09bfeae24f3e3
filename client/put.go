package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// PutOptions qualify a write. The zero value writes whatever is there, for
// ever, and waits for one node's disk.
type PutOptions struct {
	TTL      time.Duration // 0 = the node's default_ttl, which is none unless configured
	IfMatch  string        // only over the version with this UUID; else types.ErrPrecond
	IfAbsent bool          // only where there is no value; else types.ErrPrecond
	Replicas
}

// Replicas asks for a write to be on several nodes before it is answered.
type Replicas struct {
	W       string        // a number, "quorum" or "all" of the cluster's nodes; "" = 1, this node
	Timeout time.Duration // how long to wait for them; 0 = the node's default, 5s
}

// Written is the version that a write made.
type Written struct {
	UUID      string `json:"uuid"`
	Timestamp int64  `json:"timestamp"` // Unix milliseconds
	// Replicas is how many nodes have the version on disk, where W asked for it.
	Replicas int  `json:"replicas,omitempty"`
	Created  bool `json:"created"` // the key had no value before
}

// Put stores a JSON value. A json.RawMessage is stored byte for byte as it is;
// any other value as encoding/json writes it.
//
// An error with code "not_replicated" means that fewer nodes than W answered in
// time: the write is kept, and is being replicated still.
func (c *Client) Put(ctx context.Context, key string, value any, o PutOptions) (Written, error) {
	doc, ok := value.(json.RawMessage)
	if !ok {
		var err error
		if doc, err = marshal(value); err != nil {
			return Written{}, fmt.Errorf("key %q: %w", key, err)
		}
	} else if !json.Valid(doc) {
		return Written{}, fmt.Errorf("key %q: the value is not valid JSON", key)
	}
	if isEnvelope(doc) {
		doc = fmt.Appendf(nil, `{"data":%s,"ttl":%q}`, doc, o.TTL)
		o.TTL = 0 // it is in the body
	}
	return c.put(ctx, key, doc, jsonType, o)
}

// PutRaw stores bytes under their content type ("" means
// application/octet-stream).
func (c *Client) PutRaw(ctx context.Context, key string, value []byte, contentType string, o PutOptions) (Written, error) {
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	return c.put(ctx, key, value, contentType, o)
}

func (c *Client) put(ctx context.Context, key string, body []byte, contentType string, o PutOptions) (Written, error) {
	path, err := keyPath(key)
	if err != nil {
		return Written{}, err
	}
	r := request{
		method: http.MethodPut,
		path:   path,
		query:  url.Values{},
		header: http.Header{"Content-Type": {contentType}},
		body:   body,
	}
	return c.write(ctx, r, o)
}

// write sends what makes a new version of a key.
func (c *Client) write(ctx context.Context, r request, o PutOptions) (Written, error) {
	if o.TTL != 0 {
		r.query.Set("ttl", o.TTL.String())
	}
	if o.IfMatch != "" {
		r.header.Set("If-Match", `"`+o.IfMatch+`"`)
	}
	if o.IfAbsent {
		r.header.Set("If-None-Match", "*")
	}
	o.apply(&r)
	resp, err := c.send(ctx, r)
	if err != nil {
		return Written{}, err
	}
	w := Written{Created: resp.status == http.StatusCreated}
	if err := json.Unmarshal(resp.body, &w); err != nil {
		return w, fmt.Errorf("%s %s: the answer is not the JSON of a node (is %s one?): %w", r.method, r.path, c.base, err)
	}
	return w, nil
}

func (o Replicas) apply(r *request) {
	if o.W != "" {
		r.query.Set("w", o.W)
	}
	if o.Timeout != 0 {
		r.query.Set("timeout", o.Timeout.String())
		r.extra = o.Timeout
	}
}

// isEnvelope finds a document that has exactly the members "data" and "ttl". The
// store takes such a body for a wrapped value and would keep the inside alone,
// so it has to be wrapped once more; without a TTL, for ever.
func isEnvelope(doc []byte) bool {
	if start := bytes.TrimLeft(doc, " \t\r\n"); len(start) == 0 || start[0] != '{' {
		return false
	}
	var members map[string]json.RawMessage
	return json.Unmarshal(doc, &members) == nil && len(members) == 2 && members["data"] != nil && members["ttl"] != nil
}

// marshal is json.Marshal without the escapes that only a web page needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
