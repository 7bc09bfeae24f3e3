package membership

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"kvs/cluster/rpc"
	"kvs/types"
)

// Hello is how two nodes introduce themselves. A calls B:
//
//	A -> B  POST /sync/hello   who A is, and A's card
//	        B looks whether another process lives under A's identity, and makes
//	        A durable on its roster
//	B -> A  who B is, and B's card; or why not
//	        A makes B durable on its roster
//	A <> B  gossip, by memberlist's push and pull of all that they know
//
// The node token on the request proves A's knowledge of the cluster secret, a
// MAC over A's nonce and the answer proves B's: a stranger at a node's address
// can neither get onto the roster nor talk this node into ending itself.
const (
	helloPath    = "/sync/hello"
	maxHello     = 64 << 10 // bytes of a body
	helloTimeout = 5 * time.Second
	probeTimeout = 2 * time.Second
)

// hello is the body, in JSON, in both directions.
type hello struct {
	Protocol int          `json:"protocol"`
	UUID     types.NodeID `json:"-"`
	UUIDText string       `json:"uuid"`
	NodeID   string       `json:"node_id"`
	Joined   int64        `json:"joined"`   // Unix ms
	Address  string       `json:"address"`  // advertised
	Instance string       `json:"instance"` // of the process, hex
	Uptime   int64        `json:"uptime"`   // of the process, ms
	Started  int64        `json:"started"`  // the process, Unix ms
	Wall     int64        `json:"wall"`     // clock of the sender, Unix µs
	Mode     types.Mode   `json:"mode"`
	HasData  bool         `json:"has_data"`
	Card     []byte       `json:"card,omitempty"`
	Nonce    []byte       `json:"nonce,omitempty"` // of a request

	// Kind of a request: empty to be let in.
	Kind string `json:"kind,omitempty"`
	// Refusal of an answer: why the caller is not let in; empty if it is.
	Refusal string `json:"refusal,omitempty"`
	Detail  string `json:"detail,omitempty"` // of a refusal, for people; of kindRival
}

// Kinds of requests other than to be let in.
const (
	kindProbe   = "probe"   // only asks who answers here
	kindRemoved = "removed" // tells that the receiver was removed from the roster
	kindRival   = "rival"   // tells that another process has the receiver's identity; Detail is its address
)

// Refusals. The first two end the caller.
const (
	refusedIdentity = "identity" // an older process lives under the caller's identity
	refusedRemoved  = "removed"
	refusedYield    = "yield" // the caller is the older one: the answering process ends
	refusedProtocol = "protocol"
	refusedCard     = "card"
)

func (h hello) identity() Identity {
	return Identity{UUID: h.UUID, NodeID: h.NodeID, Joined: h.Joined, Address: h.Address}
}

func decodeHello(b []byte) (hello, error) {
	var h hello
	if err := json.Unmarshal(b, &h); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	id, err := types.ParseNodeID(h.UUIDText)
	switch {
	case err != nil || id.IsZero():
		return hello{}, fmt.Errorf("hello: uuid %q is none", h.UUIDText)
	case h.NodeID == "" || len(h.NodeID) > maxNodeID:
		return hello{}, fmt.Errorf("hello: node_id %q is none", h.NodeID)
	case h.Address == "" || len(h.Address) > maxAddress:
		return hello{}, fmt.Errorf("hello: address %q is none", h.Address)
	case h.Instance == "" || h.Joined < 0 || h.Uptime < 0:
		return hello{}, errors.New("hello: instance, joined or uptime is missing or negative")
	}
	h.UUID = id
	return h, nil
}

// self is what this node says of itself.
func (m *Membership) self() hello {
	m.mu.Lock()
	mode := m.mode
	m.mu.Unlock()
	return hello{
		Protocol: Protocol,
		UUID:     m.opts.UUID, UUIDText: m.opts.UUID.String(),
		NodeID: m.opts.NodeID, Joined: m.opts.Joined, Address: m.opts.Address,
		Instance: m.instanceText(),
		Uptime:   time.Since(m.begun).Milliseconds(), Started: m.started,
		Wall: m.opts.Now().UnixMicro(),
		Mode: mode, HasData: m.opts.HasData(),
	}
}

func (m *Membership) instanceText() string { return strconv.FormatUint(m.instance, 16) }

// serveHello answers POST /sync/hello.
func (m *Membership) serveHello(w http.ResponseWriter, r *http.Request) {
	rpc.Handler(maxHello, m.log, func(ctx context.Context, body []byte) ([]byte, error) {
		h, err := decodeHello(body)
		if err != nil {
			return nil, &rpc.Error{Status: http.StatusBadRequest, Code: "invalid_body", Detail: err.Error()}
		}
		answer, err := m.receive(ctx, h)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(answer)
		if err != nil {
			return nil, err
		}
		return m.greet.seal(h.Nonce, b), nil
	}).ServeHTTP(w, r)
}

// receive decides on a hello.
func (m *Membership) receive(ctx context.Context, h hello) (hello, error) {
	m.mu.Lock()
	starting, leaving := m.list == nil, m.leaving
	m.mu.Unlock()
	if starting || leaving {
		return hello{}, &rpc.Error{Status: http.StatusServiceUnavailable, Code: "shutting_down", Detail: "this node is starting or leaving"}
	}
	answer := m.self()
	refuse := func(why, detail string) (hello, error) {
		answer.Refusal, answer.Detail = why, detail
		return answer, nil
	}
	switch {
	case h.Kind == kindRemoved:
		m.end(ErrRemoved)
		return answer, nil
	case h.Kind == kindRival && len(h.Detail) <= maxAddress:
		m.suspect(h.Detail)
		return answer, nil
	case h.Kind != "" || h.Instance == answer.Instance:
		return answer, nil
	case h.Protocol != Protocol:
		return refuse(refusedProtocol, fmt.Sprintf("node %s speaks protocol %d and %s speaks %d: run the same version on both", m.opts.NodeID, Protocol, h.NodeID, h.Protocol))
	case m.opts.Roster.Removed(h.UUID):
		return refuse(refusedRemoved, "")
	}
	if sameIdentity(h, answer) {
		if later(h, answer) {
			return refuse(refusedIdentity, conflictText(h, answer))
		}
		m.end(errors.New(conflictText(answer, h)))
		return refuse(refusedYield, conflictText(answer, h))
	}
	other, found, err := m.rival(ctx, h)
	if err != nil {
		return hello{}, err
	}
	if found {
		if later(h, other) {
			return refuse(refusedIdentity, conflictText(h, other))
		}
		m.tellRival(ctx, other, h)
	}
	if err := m.opts.Roster.Admit(ctx, h.identity(), h.Card); err != nil {
		m.log.Warn("a node is not let in", "node", h.NodeID, "address", h.Address, "error", err)
		return refuse(refusedCard, err.Error())
	}
	m.met(h)
	m.kick() // if we hold it for dead, try it back at once
	answer.Card = m.opts.Roster.Card()
	return answer, nil
}

// met takes in what a node, now on the roster, said of itself.
func (m *Membership) met(h hello) {
	instance, _ := strconv.ParseUint(h.Instance, 16, 64)
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[h.UUID]
	if p == nil {
		p = &peer{state: StateFailed} // until gossip says otherwise
		m.peers[h.UUID] = p
	}
	p.meta = meta{Identity: h.identity(), instance: instance, mode: h.Mode, protocol: uint64(h.Protocol)}
	p.hasData = h.HasData
	p.seen = m.opts.Now()
	p.greeted = time.Now()
	m.notifyLocked()
}

// errSelf says that the node at an address is this one.
var errSelf = errors.New("this node itself answers there")

// ask calls the node at addr and gives its answer, proven to come from one that
// has the cluster secret.
func (m *Membership) ask(ctx context.Context, addr, kind string) (hello, error) {
	return m.send(ctx, addr, kind, "")
}

func (m *Membership) send(ctx context.Context, addr, kind, detail string) (hello, error) {
	h := m.self()
	h.Kind, h.Detail = kind, detail
	if kind == "" {
		h.Card = m.opts.Roster.Card()
	}
	h.Nonce = make([]byte, 16)
	rand.Read(h.Nonce)
	body, err := json.Marshal(h)
	if err != nil {
		return hello{}, err
	}
	begin := time.Now()
	sealed, err := m.opts.Caller.Call(ctx, addr, helloPath, body)
	if err != nil {
		return hello{}, err
	}
	trip := time.Since(begin)
	b, ok := m.greet.open(h.Nonce, sealed)
	if !ok {
		return hello{}, errSecret
	}
	answer, err := decodeHello(b)
	if err != nil {
		return hello{}, err
	}
	if answer.Instance != h.Instance {
		m.clockSeen(answer.UUID, time.UnixMicro(answer.Wall), trip)
	}
	return answer, nil
}

// errSecret is an answer of a node with another cluster secret.
var errSecret = errors.New("its cluster_secret differs from this node's")

// introduce says hello to the node at addr and makes it durable on the roster.
func (m *Membership) introduce(ctx context.Context, addr string) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	answer, err := m.ask(ctx, addr, "")
	var status *rpc.Error
	if errors.As(err, &status) && status.Status == http.StatusUnauthorized {
		err = errSecret
	}
	if err != nil {
		return hello{}, err
	}
	switch {
	case answer.Instance == m.instanceText():
		return hello{}, errSelf
	case answer.Refusal == refusedIdentity:
		m.end(errors.New(answer.Detail))
		return hello{}, errors.New(answer.Detail)
	case answer.Refusal == refusedRemoved:
		m.end(ErrRemoved)
		return hello{}, ErrRemoved
	case answer.Refusal != "":
		return hello{}, fmt.Errorf("node %s refuses (%s): %s", answer.NodeID, answer.Refusal, answer.Detail)
	case m.opts.Roster.Removed(answer.UUID):
		return hello{}, fmt.Errorf("node %s was removed from the cluster", answer.NodeID)
	}
	other, found, err := m.rival(ctx, answer)
	if err != nil {
		return hello{}, err
	}
	if found {
		if later(answer, other) {
			m.tellRival(ctx, answer, other)
			return hello{}, errors.New(conflictText(answer, other))
		}
		m.tellRival(ctx, other, answer)
	}
	if err := m.opts.Roster.Admit(ctx, answer.identity(), answer.Card); err != nil {
		return hello{}, fmt.Errorf("node %s is not let in: %w", answer.NodeID, err)
	}
	m.met(answer)
	return answer, nil
}

// Expel tells the node at addr that it was removed, so that it ends now and not
// when it next asks to be let in. The removal holds without it.
func (m *Membership) Expel(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := m.ask(ctx, addr, kindRemoved)
	return err
}

// ErrRemoved ends a node that was taken off the roster, or keeps it out.
var ErrRemoved = errors.New("this node was removed from the cluster and holds data that the others may have forgotten: to use it again, start it with an empty data directory (data_dir)")

// answers proves that an answer comes from a node with the cluster secret: it is
// preceded by HMAC-SHA256 of the asker's nonce and the answer, under a key of its
// own derived from the gossip key.
type answers struct{ keys [][]byte }

func newAnswers(gossip [][]byte) *answers {
	a := &answers{}
	for _, k := range gossip {
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte("kvs hello answer"))
		a.keys = append(a.keys, mac.Sum(nil))
	}
	return a
}

func answerMAC(key, nonce, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte{byte(len(nonce))}) // the nonce ends here, and the body begins
	mac.Write(nonce)
	mac.Write(body)
	return mac.Sum(nil)
}

func (a *answers) seal(nonce, body []byte) []byte {
	return append(answerMAC(a.keys[0], nonce, body), body...)
}

func (a *answers) open(nonce, sealed []byte) ([]byte, bool) {
	if len(sealed) < sha256.Size {
		return nil, false
	}
	sum, body := sealed[:sha256.Size], sealed[sha256.Size:]
	for _, k := range a.keys {
		if hmac.Equal(sum, answerMAC(k, nonce, body)) {
			return body, true
		}
	}
	return nil, false
}
