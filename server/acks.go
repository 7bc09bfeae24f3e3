package server

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"kvs/storage"
)

// The wait for other nodes' acknowledgements.
const (
	ackTimeout    = 5 * time.Second
	maxAckTimeout = 10 * time.Minute
)

// acks is how many nodes are to have a write on disk before it is answered.
type acks struct {
	asked   bool // the answer tells how many have
	nodes   int  // this one included
	timeout time.Duration
}

// parseAcks reads w and timeout. Quorum and all count the roster: a member that
// is away is still one of the n.
func (a *api) parseAcks(p params) (k acks, err error) {
	if k.timeout, err = p.duration("timeout", ackTimeout, time.Millisecond, maxAckTimeout); err != nil {
		return k, err
	}
	k.nodes = 1
	if !p.has("w") {
		return k, nil
	}
	k.asked = true
	switch w := p["w"]; w {
	case "quorum":
		k.nodes = a.peers.RosterCount()/2 + 1
	case "all":
		k.nodes = a.peers.RosterCount()
	default:
		if k.nodes, err = strconv.Atoi(w); err != nil || k.nodes < 1 {
			return k, invalidParameter.refuse(`parameter "w": want a number of nodes from 1, quorum or all, not %q`, w)
		}
	}
	return k, nil
}

// await waits for the acknowledgements and gives how many nodes have the write,
// this one included. Too few is an error, though the write stays.
func (a *api) await(ctx context.Context, k acks, res storage.Result) (int, error) {
	if k.nodes <= 1 {
		return 1, nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	others, err := a.peers.Await(ctx, res.Record, res.Seq, k.nodes-1)
	if others >= k.nodes-1 {
		return others + 1, nil
	}
	if err != nil && ctx.Err() == nil {
		return 0, err
	}
	why := fmt.Sprintf("within %s; the write is kept on this node and is still being replicated", k.timeout)
	if !a.clustered {
		why = "; the write is kept on this node, which is alone: clustering is off (clustering_enabled)"
	}
	r := notReplicated.refuse("%d of %d nodes have the write %s", others+1, k.nodes, why)
	b := append(r.members, ',')
	b = appendVersion(b, &res.Record.Version)
	b = append(b, `,"replicas":`...)
	r.members = strconv.AppendInt(b, int64(others+1), 10)
	return 0, r
}
