package cluster

import (
	"context"
	"fmt"
	"net/http"

	"kvs/cluster/membership"
	"kvs/cluster/rpc"
	"kvs/types"
)

// A Call answers another node's question that is not the cluster's own
// business. from is who asks, by its token.
type Call func(ctx context.Context, from types.NodeID, body []byte) ([]byte, error)

// callPrefix is where Options.Calls are served.
const callPrefix = "/sync/x/"

type callerKey struct{}

// serveCall answers one of Options.Calls.
func (c *Cluster) serveCall(call Call) http.Handler {
	return rpc.Handler(0, c.log, func(ctx context.Context, body []byte) ([]byte, error) {
		from, _ := ctx.Value(callerKey{}).(types.NodeID)
		return call(ctx, from, body)
	})
}

// Live gives the live members, this node left out.
func (c *Cluster) Live() []types.NodeID {
	var out []types.NodeID
	for _, m := range c.members.Members() {
		if !m.Self && m.State == membership.StateAlive {
			out = append(out, m.UUID)
		}
	}
	return out
}

// Ask makes a call of Options.Calls on a live member.
func (c *Cluster) Ask(ctx context.Context, node types.NodeID, name string, body []byte) ([]byte, error) {
	for _, m := range c.members.Members() {
		if m.UUID == node {
			return c.client.Call(ctx, m.Address, callPrefix+name, body)
		}
	}
	return nil, fmt.Errorf("node %s: %w", node, types.ErrUnreachable)
}
