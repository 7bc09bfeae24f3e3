package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"kvs/auth"
	"kvs/config"
	"kvs/storage"
	"kvs/types"
)

// person is who asks, as the oracle sees them. The oracle decides by the words of
// the documentation and shares no code with the server.
type person struct {
	name    string
	token   string // "" for anonymous
	subject string
	groups  []string
	scopes  []string
}

func (p *person) String() string { return fmt.Sprintf("%s %v", p.name, p.scopes) }

// covers: a scope, or admin, whose prefix is that of the key.
func (p *person) covers(scope, key string) bool {
	for _, s := range p.scopes {
		name, prefix, _ := strings.Cut(s, ":")
		if name != scope && name != "admin" {
			continue
		}
		under := prefix == "" || key == prefix || strings.HasPrefix(key, strings.TrimSuffix(prefix, "/")+"/")
		if strings.HasSuffix(prefix, "/") && key+"/" == prefix {
			under = false
		}
		if under {
			return true
		}
	}
	return false
}

// any: the scope for some keys.
func (p *person) any(scope string) bool {
	return slices.ContainsFunc(p.scopes, func(s string) bool {
		name, _, _ := strings.Cut(s, ":")
		return name == scope || name == "admin"
	})
}

func (p *person) admin(key string) bool { return p.covers("admin", key) }

// may: one of the letters cdwr, of the first class that fits.
func (p *person) may(letter, key string, m types.Meta) bool {
	scope := "write"
	if letter == "r" {
		scope = "read"
	}
	if !p.covers(scope, key) {
		return false
	}
	classes := strings.Split(auth.FormatMode(m.Mode), ":")
	class := classes[2]
	switch {
	case m.Owner == p.subject:
		class = classes[0]
	case slices.Contains(p.groups, m.Group), m.Group == "root" && p.subject == "root":
		class = classes[1]
	}
	return p.admin(key) || strings.Contains(class, letter)
}

// world is a node with keys of many owners, and people who ask for them.
type world struct {
	*testNode
	rng    *rand.Rand
	people []*person
	keys   []string              // all that were ever there, sorted
	metas  map[string]types.Meta // by version
	values map[string]string     // by version
	losers map[string]types.Meta // of conflicts, by the version that lost
	owners []string              // who may own
	groups []string              // what keys may belong to
	nicks  map[string]string     // of users and groups, by UUID
	loserK map[string]types.Key  // the key of a loser
}

const worldKeys = 28

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		testNode: secureNode(t, func(c *config.Config) {
			c.AllowAnonymousRead, c.AllowAnonymousWrite, c.TamperLoggingEnabled = true, true, false
		}),
		rng:   rand.New(rand.NewPCG(seed, 1)),
		metas: map[string]types.Meta{}, values: map[string]string{}, losers: map[string]types.Meta{},
		nicks: map[string]string{}, loserK: map[string]types.Key{},
	}
	users := []string{w.addUser("ann"), w.addUser("bob"), w.addUser("cy")}
	groups := []string{w.addGroup("both", users[0], users[1]), w.addGroup("one", users[1]), w.addGroup("none")}
	for i, nick := range []string{"ann", "bob", "cy"} {
		w.nicks[users[i]] = nick
	}
	for i, nick := range []string{"both", "one", "none"} {
		w.nicks[groups[i]] = nick
	}
	w.owners, w.groups = append([]string{"root", "anonymous"}, users...), append([]string{"root"}, groups...)
	member := map[string][]string{users[0]: groups[:1], users[1]: groups[:2]}
	scopes := [][]string{
		{"read", "write"}, {"read"}, {"write"}, {"read:a/", "write:a"}, {"read:a", "read:pub/", "write"}, {"admin:pub"}, {"read", "admin:b/"},
		{"read:b", "write:b/b", "jobs"}, {"write:pub/", "read:a/b", "read:pub"}, {"jobs"}, {"admin"},
	}
	add := func(name, subject string, scopes []string) {
		p := &person{name: name, subject: subject, groups: member[subject], scopes: scopes}
		if subject != "anonymous" {
			p.token = w.token(subject, scopes...)
		}
		w.people = append(w.people, p)
	}
	add("anonymous", "anonymous", []string{"read", "write"})
	add("root", "root", []string{"read", "write"})
	add("ann", users[0], scopes[0])
	add("bob", users[1], scopes[0])
	for range 4 {
		i := w.rng.IntN(len(users))
		add(w.nicks[users[i]], users[i], scopes[w.rng.IntN(len(scopes))])
	}
	w.fill()
	return w
}

var segments = []string{"a", "b", "pub", "public", "a b", "é"}

func (w *world) randomKey() string {
	var parts []string
	for range 1 + w.rng.IntN(4) {
		parts = append(parts, segments[w.rng.IntN(len(segments))])
	}
	return strings.Join(parts, "/")
}

func (w *world) randomMeta() types.Meta {
	m := types.Meta{Owner: pick(w.rng, w.owners), Group: pick(w.rng, w.groups), Mode: uint16(w.rng.IntN(1 << 12))}
	if w.rng.IntN(3) == 0 {
		m.Mode = 0xf61 // cdwr:-dw-:---r, or nearly the default
	}
	return m
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

func (w *world) fill() {
	seen := map[string]bool{}
	for len(seen) < worldKeys {
		seen[w.randomKey()] = true
	}
	for key := range seen {
		w.keys = append(w.keys, key)
	}
	slices.Sort(w.keys)
	var last int64
	for i, key := range w.keys {
		for range 1 + w.rng.IntN(3) {
			w.put(key, 0)
		}
		switch w.rng.IntN(6) {
		case 0:
			res, err := w.write(w.t.Context(), storage.Op{Kind: storage.OpDelete, Ref: types.DataRef(types.Key(key))})
			if err != nil {
				w.t.Fatal(err)
			}
			w.metas[res.Record.UUID.String()] = res.Record.Meta
		case 1:
			last = max(last, w.put(key, time.Millisecond).ExpiresAt)
		}
		for j := range max(0, w.rng.IntN(4)-1) {
			w.lose(key, byte(i), byte(j))
		}
	}
	eventually(w.t, "what expires has expired", func() bool { return w.store.Now().UnixMilli() > last })
}

func (w *world) put(key string, ttl time.Duration) types.Record {
	meta := w.randomMeta()
	value := fmt.Sprintf("%q", fmt.Sprintf("value %d of %s", len(w.metas), key))
	rec := w.have(key, value, meta, ttl)
	w.metas[rec.UUID.String()], w.values[rec.UUID.String()] = meta, value
	return rec
}

// lose makes a version that another node wrote before, and that lost.
func (w *world) lose(key string, i, j byte) {
	rec := types.Record{
		Ref:     types.DataRef(types.Key(key)),
		Version: types.Version{Timestamp: types.TimestampOf(1000), Origin: types.NodeID{1}, OriginJoined: 1, UUID: types.VersionID{i + 1, j + 1, 0xee}},
		Value:   []byte(fmt.Sprintf(`"lost %d of %s"`, j, key)),
		Meta:    w.randomMeta(),
	}
	// Of two deletions none is a conflict.
	if w.rng.IntN(4) == 0 && !w.current(key).Tombstone() {
		rec.Flags, rec.Value, rec.PurgeAt = types.FlagTombstone, nil, 1<<45
	}
	if refused, err := w.store.Merge(w.t.Context(), [][]types.Record{{rec}}); err != nil || len(refused) > 0 {
		w.t.Fatal(err, refused)
	}
	id := rec.UUID.String()
	w.metas[id], w.losers[id], w.values[id], w.loserK[id] = rec.Meta, rec.Meta, string(rec.Value), rec.Key
}

// live gives what is there, past all permissions.
func (w *world) live() map[string]types.Record {
	w.t.Helper()
	page, err := w.store.Scan(w.t.Context(), storage.ScanOptions{NS: types.NSData, Limit: 10_000})
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]types.Record{}
	for _, rec := range page.Records {
		all[string(rec.Key)] = rec
	}
	return all
}

// current gives the current record of a key, be it deleted or expired.
func (w *world) current(key string) *types.Record {
	rec, err := w.store.Lookup(types.DataRef(types.Key(key)))
	if err != nil {
		return nil
	}
	return &rec
}
