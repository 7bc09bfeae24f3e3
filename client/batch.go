package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// What every node takes in one batch.
const (
	MaxBatchOps   = 1000
	MaxBatchBytes = 16 << 20
)

// Op is one operation of a batch: "put", "get" or "delete".
type Op struct {
	Op  string
	Key string
	// Data is the value of a put, kept byte for byte: JSON; or, with a
	// ContentType, bytes as a JSON string in base64.
	Data        json.RawMessage
	TTL         time.Duration // 0 = the node's default_ttl
	ContentType string
	IfMatch     string // UUID of the version that must be current
}

// BatchResult answers one Op. Status is that of the same single call; from 400
// on, Code, Title and Detail say what was wrong.
type BatchResult struct {
	Status int `json:"status"`
	Item
	Code   string `json:"code,omitempty"`
	Title  string `json:"title,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Err is the operation's refusal, nil if it was carried out.
func (r BatchResult) Err() error {
	if r.Status < 400 {
		return nil
	}
	return &Problem{Status: r.Status, Code: r.Code, Title: r.Title, Detail: r.Detail, RetryAfter: -1}
}

// Batch carries out ops in order in one call. An operation may fail alone: look
// at each result. With atomic all succeed or none is carried out; the error is
// then the *Problem of the first that failed, with Results.
func (c *Client) Batch(ctx context.Context, ops []Op, atomic bool) ([]BatchResult, error) {
	body, err := appendBatch(nil, ops, atomic)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Results []BatchResult `json:"results"`
	}
	err = c.call(ctx, request{
		method: http.MethodPost,
		path:   "/kv/_batch",
		header: http.Header{"Content-Type": {jsonType}},
		body:   body,
	}, &answer)
	if err != nil {
		return nil, err
	}
	if len(answer.Results) != len(ops) {
		return nil, fmt.Errorf("POST /kv/_batch: %d results for %d operations", len(answer.Results), len(ops))
	}
	return answer.Results, nil
}

// appendBatch writes the body by hand: encoding/json would compact the values,
// and they are to arrive as they are.
func appendBatch(b []byte, ops []Op, atomic bool) ([]byte, error) {
	b = append(b, `{"atomic":`...)
	b = strconv.AppendBool(b, atomic)
	b = append(b, `,"ops":[`...)
	for i, op := range ops {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendOp(b, op); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return append(b, `]}`...), nil
}

func appendOp(b []byte, op Op) ([]byte, error) {
	member := func(name, value string) {
		text, _ := marshal(value) // a string always has a JSON form
		b = append(append(append(append(b, ",\""...), name...), "\":"...), text...)
	}
	kind, _ := marshal(op.Op)
	b = append(append(b, `{"op":`...), kind...)
	member("key", op.Key)
	if op.TTL != 0 {
		member("ttl", op.TTL.String())
	}
	if op.ContentType != "" {
		member("content_type", op.ContentType)
	}
	if op.IfMatch != "" {
		member("if_match", op.IfMatch)
	}
	if op.Data != nil {
		// A value that is not JSON could close its member and open others.
		if !json.Valid(op.Data) {
			return nil, fmt.Errorf("key %q: the data is not valid JSON", op.Key)
		}
		b = append(append(b, `,"data":`...), op.Data...)
	}
	return append(b, '}'), nil
}
