package client

import (
	"context"
	"net/http"
)

// Health is what a node says about itself.
type Health struct {
	Status      string `json:"status"`       // "ok"
	Mode        string `json:"mode"`         // normal, read-only, syncing
	MemberCount int    `json:"member_count"` // live members, this node included
	NodeID      string `json:"node_id"`
	UUID        string `json:"uuid"`
	Version     string `json:"version"`
	Uptime      int64  `json:"uptime_seconds"`
	Records     uint64 `json:"records"` // conflicts, deleted keys and the store's own included
	// Syncing is how far a node in that mode has been filled from its peer.
	Syncing *Progress `json:"syncing,omitempty"`
}

// Progress counts records; Total is as far as it is known.
type Progress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}

// Health asks the node how it is.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.call(ctx, request{method: http.MethodGet, path: "/health"}, &h)
	return h, err
}

// MerkleRoot stands for all records of a node: two nodes with equal roots hold
// the same data.
type MerkleRoot struct {
	Root    string `json:"root"`
	Count   uint64 `json:"count"` // records, those of the store itself included
	Horizon int64  `json:"horizon"`
	NodeID  string `json:"node_id"`
}

// MerkleRoot asks for the node's root.
func (c *Client) MerkleRoot(ctx context.Context) (MerkleRoot, error) {
	var r MerkleRoot
	err := c.call(ctx, request{method: http.MethodGet, path: "/sync/merkle/root"}, &r)
	return r, err
}
