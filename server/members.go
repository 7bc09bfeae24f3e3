package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
func (a *api) members(w http.ResponseWriter, r *request) error {
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
func (a *api) join(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	var ask struct {
		Address string `json:"address"`
	}
	if err := a.readSmall(w, r, &ask, `{"address":"host:port"}`); err != nil {
		return err
	}
	if !hostPort(ask.Address) {
		return invalidBody.refuse(`"address": want host:port of any node, not %.80q`, ask.Address)
	}
	if err := a.peers.Join(r.Context(), ask.Address); err != nil {
		return joinFailed.refuse("%s: %s", ask.Address, err)
	}
	return writeAny(w, http.StatusOK, map[string]string{"status": "joined", "address": ask.Address})
}

// readSmall reads a body of a few words into v; want shows what it is to be.
func (a *api) readSmall(w http.ResponseWriter, r *request, v any, want string) error {
	body, err := a.readBody(w, r, maxSmallBody, badRequest)
	if err != nil {
		return err
	}
	// encoding/json alone would take text that is not UTF-8 for other text, and of
	// a member that is given twice the last.
	if body, err = validJSON(body); err == nil {
		err = membersOnce(body)
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err != nil {
		return invalidBody.refuse("want %s: %s", want, err)
	}
	return nil
}

// maxMembers is more than any small body has.
const maxMembers = 16

// membersOnce refuses a valid JSON object in which two members have one name, in
// whatever case, as encoding/json takes them.
func membersOnce(doc []byte) error {
	if doc[0] != '{' {
		return nil
	}
	s, names := scanner{b: doc}, []string{}
	return s.object(0, func(text []byte) error {
		name := memberName(text)
		switch {
		case len(names) == maxMembers:
			return fmt.Errorf("it has more than %d members", maxMembers)
		case slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }):
			return fmt.Errorf("member %.40s is given twice", text)
		}
		names = append(names, name)
		return s.value(1)
	})
}

// leaveCluster answers POST /members/leave: this node goes off the roster, and
// stops once it has said so.
func (a *api) leaveCluster(w http.ResponseWriter, r *request) error {
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
func (a *api) remove(w http.ResponseWriter, r *request) error {
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
