package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"kvs/types"
)

// maxSmallBody bounds the bodies of calls that take a few words.
const maxSmallBody = 64 << 10

// departTimeout bounds how long a node that leaves pushes what the others lack.
const departTimeout = time.Minute

// memberJSON is one line of GET /members/.
type memberJSON struct {
	ID       string     `json:"id"`
	UUID     string     `json:"uuid"`
	Address  string     `json:"address"`
	LastSeen int64      `json:"last_seen"`
	Joined   int64      `json:"joined_timestamp"`
	State    string     `json:"state"`
	Mode     types.Mode `json:"mode"`
	Root     string     `json:"root"`
	Behind   uint64     `json:"behind"`
}

// members answers GET /members/.
func (a *api) members(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	list := []memberJSON{} // never null
	for _, m := range a.peers.Members() {
		list = append(list, memberJSON{m.NodeID, m.UUID.String(), m.Address, m.LastSeen, m.Joined, m.State, m.Mode, m.Root, m.Behind})
	}
	return writeAny(w, http.StatusOK, list)
}

// writeAny is for answers that nobody waits for.
func writeAny(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	send(w, status, jsonType, append(b, '\n'))
	return nil
}

// join answers POST /members/join {"address":"host:port"}.
func (a *api) join(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	body, err := a.readBody(w, r, maxSmallBody, badRequest)
	if err != nil {
		return err
	}
	var ask struct {
		Address string `json:"address"`
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil || d.More() {
		return invalidBody.refuse(`want {"address":"host:port"}`)
	}
	if !hostPort(ask.Address) {
		return invalidBody.refuse(`"address": want host:port of any node, not %.80q`, ask.Address)
	}
	if err := a.peers.Join(r.Context(), ask.Address); err != nil {
		return joinFailed.refuse("%s: %s", ask.Address, err)
	}
	return writeAny(w, http.StatusOK, map[string]string{"status": "joined", "address": ask.Address})
}

// leaveCluster answers POST /members/leave: this node goes off the roster, and
// stops once it has said so.
func (a *api) leaveCluster(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), departTimeout)
	defer cancel()
	if err := a.peers.Depart(ctx); err != nil {
		return notReplicated.refuse("%s", err)
	}
	w.Header().Set("Connection", "close")
	err := writeAny(w, http.StatusOK, map[string]string{"status": "left"})
	a.leave()
	return err
}

// remove answers DELETE /members/{id}: a node that will not come back goes off
// the roster.
func (a *api) remove(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	id := r.PathValue("id")
	if id == a.nodeID || strings.EqualFold(id, a.store.Identity().UUID.String()) {
		return invalidParameter.refuse("%q is this node; POST /members/leave takes it out", id)
	}
	err := a.peers.Remove(r.Context(), id)
	if errors.Is(err, types.ErrNotFound) {
		return memberNotFound.refuse("no member has the id or uuid %q", id)
	}
	if errors.Is(err, types.ErrPrecond) {
		return invalidParameter.refuse("%s", err)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
