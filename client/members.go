package client

import (
	"context"
	"net/http"
	"net/url"
)

// Member is a node of the cluster, as the asked node sees it.
type Member struct {
	ID              string `json:"id"` // its node_id
	UUID            string `json:"uuid"`
	Address         string `json:"address"`          // host:port
	LastSeen        int64  `json:"last_seen"`        // Unix milliseconds
	JoinedTimestamp int64  `json:"joined_timestamp"` // Unix milliseconds
	State           string `json:"state"`            // alive, suspect, failed, left
	Mode            string `json:"mode"`             // normal, read-only, syncing
	Root            string `json:"root"`             // Merkle root, hex
	Behind          uint64 `json:"behind"`           // commits of the asked node that it has not acknowledged
}

// Members lists every node that ever joined and was not removed.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var members []Member
	err := c.call(ctx, request{method: http.MethodGet, path: "/members/"}, &members)
	return members, err
}

// Join makes the node join the cluster of the node at address (host:port).
func (c *Client) Join(ctx context.Context, address string) error {
	body, err := marshal(map[string]string{"address": address})
	if err != nil {
		return err
	}
	_, err = c.send(ctx, request{
		method: http.MethodPost,
		path:   "/members/join",
		header: http.Header{"Content-Type": {jsonType}},
		body:   body,
	})
	return err
}

// Leave takes the node out of the cluster for good, and stops it.
func (c *Client) Leave(ctx context.Context) error {
	_, err := c.send(ctx, request{method: http.MethodPost, path: "/members/leave"})
	return err
}

// Remove takes another node, by node_id or UUID, out of the cluster for good.
func (c *Client) Remove(ctx context.Context, id string) error {
	_, err := c.send(ctx, request{method: http.MethodDelete, path: "/members/" + url.PathEscape(id)})
	return err
}
