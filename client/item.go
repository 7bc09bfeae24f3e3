package client

import (
	"encoding/json"
	"fmt"
)

// Item is one version of a key, with its value.
type Item struct {
	Key       string `json:"key,omitempty"`
	UUID      string `json:"uuid,omitempty"`       // of this version; what IfMatch takes
	Timestamp int64  `json:"timestamp,omitempty"`  // Unix milliseconds
	ExpiresAt int64  `json:"expires_at,omitempty"` // Unix milliseconds; 0 = never
	// ContentType is that of a value stored as bytes; empty for JSON.
	ContentType string `json:"content_type,omitempty"`
	// Data is the JSON value byte for byte, or a value of bytes as a JSON string
	// in base64; see Bytes. Nil where only keys were asked for.
	Data json.RawMessage `json:"data,omitempty"`
}

// Bytes gives the value itself: the JSON text, or the bytes that were stored.
func (it Item) Bytes() ([]byte, error) {
	if it.ContentType == "" {
		return it.Data, nil
	}
	var raw []byte
	if err := json.Unmarshal(it.Data, &raw); err != nil {
		return nil, fmt.Errorf("key %q: its bytes are not base64: %w", it.Key, err)
	}
	return raw, nil
}

// Decode reads a JSON value into v.
func (it Item) Decode(v any) error {
	if it.ContentType != "" {
		return fmt.Errorf("key %q holds %s, not JSON", it.Key, it.ContentType)
	}
	if err := json.Unmarshal(it.Data, v); err != nil {
		return fmt.Errorf("key %q: %w", it.Key, err)
	}
	return nil
}
