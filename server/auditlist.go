package server

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"kvs/features/tamperlog"
	"kvs/types"
)

// auditCalls are the calls under /admin/audit.
func (a *api) auditCalls() map[string]map[string]call {
	return map[string]map[string]call{
		"/admin/audit":           {"GET": {withAdmin, a.auditEntries, false}},
		"/admin/audit/witnessed": {"GET": {withAdmin, a.witnessed, false}},
	}
}

// AuditEntry is an entry of the tamper log as it is shown.
type AuditEntry struct {
	N         uint64 `json:"n"`
	Time      int64  `json:"time"` // Unix ms
	Action    string `json:"action"`
	Who       string `json:"who"`
	Token     string `json:"token,omitempty"`
	From      string `json:"from,omitempty"`
	Key       string `json:"key,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Before    string `json:"before,omitempty"`
	After     string `json:"after,omitempty"`
	Count     uint64 `json:"count,omitempty"` // of what Detail says
	Detail    string `json:"detail,omitempty"`
}

func auditEntry(e tamperlog.Entry) AuditEntry {
	out := AuditEntry{
		N: e.N, Time: e.Time, Action: e.Action.String(), Who: e.By.Subject, Token: e.By.Token, From: e.By.Address,
		Key: e.Key, Count: e.Count, Detail: e.Detail,
	}
	if e.NS != 0 {
		out.Namespace = e.NS.String()
	}
	none := types.VersionID{}
	if e.Before != none {
		out.Before = e.Before.String()
	}
	if e.After != none {
		out.After = e.After.String()
	}
	return out
}

// auditEntries answers GET /admin/audit, oldest first.
func (a *api) auditEntries(w http.ResponseWriter, r *request) error {
	if a.audit.log == nil {
		return featureDisabled.refuse("no tamper log is kept on this node (tamper_logging_enabled)")
	}
	p, err := parseParams(r, "since", "until", "who", "key", "action", "after", "limit")
	if err != nil {
		return err
	}
	f, err := auditFilter(p)
	if err != nil {
		return err
	}
	entries, next, err := tamperlog.Entries(r.Context(), a.store, f)
	if err != nil {
		return err
	}
	list := []AuditEntry{} // never null
	for _, e := range entries {
		list = append(list, auditEntry(e))
	}
	return writeAny(w, http.StatusOK, struct {
		Entries []AuditEntry `json:"entries"`
		Next    uint64       `json:"next_after"` // 0: there are no more
	}{list, next})
}

// auditFilter reads what is to be listed; key is a prefix.
func auditFilter(p params) (f tamperlog.Filter, err error) {
	if f.Since, err = p.moment("since"); err != nil {
		return f, err
	}
	if f.Until, err = p.moment("until"); err != nil {
		return f, err
	}
	if p.has("after") {
		if f.After, err = strconv.ParseUint(p["after"], 10, 64); err != nil {
			return f, invalidParameter.refuse(`parameter "after": want the number of an entry, not %q`, p["after"])
		}
	}
	if p.has("action") {
		if f.Action, err = tamperlog.ParseAction(p["action"]); err != nil {
			return f, invalidParameter.refuse(`parameter "action": %s`, err)
		}
	}
	f.Who, f.KeyPrefix = p["who"], p["key"]
	f.Limit, err = p.integer("limit", rangeLimit, 1, maxRangeLimit)
	return f, err
}

// moment reads a time in Unix milliseconds; the zero time if it is absent.
func (p params) moment(name string) (time.Time, error) {
	if !p.has(name) {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(p[name], 10, 64)
	if err != nil {
		return time.Time{}, invalidParameter.refuse("parameter %q: want a time in Unix milliseconds, not %q", name, p[name])
	}
	return time.UnixMilli(ms), nil
}

// AuditCheckpoint is a checkpoint that a node has kept of another's log.
type AuditCheckpoint struct {
	N         uint64 `json:"n"`
	Head      string `json:"head"`
	Time      int64  `json:"time"`
	PublicKey string `json:"public_key"` // hex
	Signature string `json:"signature"`  // hex
}

// witnessed answers GET /admin/audit/witnessed?node=.
func (a *api) witnessed(w http.ResponseWriter, r *request) error {
	p, err := parseParams(r, "node")
	if err != nil {
		return err
	}
	node, err := types.ParseNodeID(p["node"])
	for _, m := range a.peers.Members() {
		if err != nil && m.NodeID == p["node"] {
			node, err = m.UUID, nil
		}
	}
	if err != nil {
		return invalidParameter.refuse(`parameter "node": want the uuid or the id of a member, not %.80q`, p["node"])
	}
	kept, err := a.audit.witness.List(node)
	if err != nil {
		return err
	}
	list := []AuditCheckpoint{} // never null
	for _, c := range kept {
		list = append(list, AuditCheckpoint{c.N, c.Head.String(), c.Time, c.PublicKey.String(), hex.EncodeToString(c.Signature[:])})
	}
	return writeAny(w, http.StatusOK, map[string]any{"node": node.String(), "checkpoints": list})
}
