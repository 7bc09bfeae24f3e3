package server

import (
	"encoding/hex"
	"net/http"
	"time"

	"kvs/types"
)

// healthJSON is the answer of GET /health.
type healthJSON struct {
	Status      string        `json:"status"`
	Mode        types.Mode    `json:"mode"`
	MemberCount int           `json:"member_count"`
	NodeID      string        `json:"node_id"`
	UUID        string        `json:"uuid"`
	Version     string        `json:"version"`
	Uptime      int64         `json:"uptime_seconds"`
	Records     *uint64       `json:"records,omitempty"` // not for strangers, who could watch what goes on by it
	Syncing     *progressJSON `json:"syncing,omitempty"`
}

type progressJSON struct {
	Done  uint64 `json:"done"`  // records
	Total uint64 `json:"total"` // as far as known
}

// health answers GET /health: the node is up and serves /kv.
func (a *api) health(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	h := healthJSON{
		Status:      "ok",
		Mode:        a.peers.Mode(),
		MemberCount: a.peers.LiveCount(),
		NodeID:      a.nodeID,
		UUID:        a.store.Identity().UUID.String(),
		Version:     a.version,
		Uptime:      int64(time.Since(a.started).Seconds()),
	}
	if a.gate.known(r.Request) {
		records := a.store.Stats().Records
		h.Records = &records
	}
	if h.Mode == types.ModeSyncing {
		done, total := a.peers.Progress()
		h.Syncing = &progressJSON{done, total}
	}
	return writeAny(w, http.StatusOK, h)
}

// ready answers GET /ready: whether to send clients here.
func (a *api) ready(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	reason := ""
	switch {
	case a.peers.Mode() == types.ModeSyncing:
		reason = "syncing: the node is being filled from a peer"
	case a.store.Stats().DiskFull:
		reason = "disk full: less than min_free_disk_mb is free, and writes are refused"
	}
	if reason != "" {
		w.Header()["Retry-After"] = []string{"2"}
		return writeAny(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": reason})
	}
	return writeAny(w, http.StatusOK, map[string]string{"status": "ready"})
}

// merkleRoot answers GET /sync/merkle/root.
func (a *api) merkleRoot(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	root, count := a.store.Tree().Root()
	return writeAny(w, http.StatusOK, struct {
		Root    string `json:"root"`
		Count   uint64 `json:"count"`
		Horizon int64  `json:"horizon"`
		NodeID  string `json:"node_id"`
	}{hex.EncodeToString(root[:]), count, a.store.Horizon(), a.nodeID})
}
