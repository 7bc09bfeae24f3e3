package server

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"kvs/cluster"
	"kvs/types"
)

// alone stands for the cluster on a node without one (clustering_enabled: false).
type alone struct {
	api     *api
	address string
	mode    types.Mode
}

// errAlone answers calls that the routes let nobody make.
var errAlone = errors.New("clustering is off")

func (n alone) Members() []cluster.Member {
	id := n.api.store.Identity()
	root, _ := n.api.store.Tree().Root()
	return []cluster.Member{{
		UUID:     id.UUID,
		NodeID:   n.api.nodeID,
		Address:  n.address,
		Joined:   id.Joined,
		LastSeen: n.api.store.Now().UnixMilli(),
		State:    "alive",
		Mode:     n.mode,
		Root:     hex.EncodeToString(root[:]),
		Self:     true,
	}}
}

func (n alone) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.api.refuse(w, r, errClusteringOff())
	})
}

func (n alone) LiveCount() int                 { return 1 }
func (n alone) RosterCount() int               { return 1 }
func (n alone) Mode() types.Mode               { return n.mode }
func (n alone) Progress() (done, total uint64) { return 0, 0 }
func (n alone) Skewed() (time.Duration, bool)  { return 0, false }
func (n alone) NormalPeer() (string, bool)     { return "", false }
func (n alone) Status() cluster.Status         { return cluster.Status{} }

func (n alone) Await(context.Context, types.Record, uint64, int) (int, error) { return 0, nil }
func (n alone) Heal(context.Context, types.Ref) (bool, error)                 { return false, nil }
func (n alone) Join(context.Context, string) error                            { return errAlone }
func (n alone) Remove(context.Context, string) error                          { return errAlone }
func (n alone) Depart(context.Context) error                                  { return errAlone }
