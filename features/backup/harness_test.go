package backup

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvs/features/revisions"
	"kvs/storage"
	"kvs/storage/codec"
	"kvs/storage/merkle"
	"kvs/storage/storagetest"
	"kvs/types"
)

const limit = 3 // of the history

// node is a store with its backups.
type node struct {
	t        *testing.T
	data     string
	dir      string // of the backups
	store    *storage.Store
	m        *Manager
	follow   *follower
	removers [2]*remover
	horizon  atomic.Int64
	now      atomic.Int64 // what is added to the clock, in seconds
}

func startNode(t *testing.T, adjust ...func(*Options)) *node {
	t.Helper()
	return startNodeIn(t, t.TempDir(), t.TempDir(), adjust...)
}

func startNodeIn(t *testing.T, data, backups string, adjust ...func(*Options)) *node {
	t.Helper()
	n := &node{t: t, data: data, dir: backups, follow: &follower{}, removers: [2]*remover{{space: 'r'}, {space: 'h'}}}
	n.open(adjust...)
	return n
}

func (n *node) open(adjust ...func(*Options)) {
	n.t.Helper()
	t, data, backups := n.t, n.data, n.dir
	n.store = storagetest.Open(t, storage.Options{
		Dir: data, RevisionLimit: limit, CheckpointEvery: 20 * time.Millisecond,
		MemoryBudget:   16, // no cache: removers pass it by
		TombstoneGrace: time.Second,
		Hooks:          []storage.Hook{revisions.NewHook(limit), Hook{}, n.follow, n.removers[0], n.removers[1]},
	})
	o := Options{
		Store: n.store, Dir: backups, DataDir: data, NodeID: "n1", Retention: 7 * 24 * time.Hour, Program: "test",
		Now:     func() time.Time { return time.Now().Add(time.Duration(n.now.Load()) * time.Second) },
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		horizon: n.horizon.Load,
	}
	for _, f := range adjust {
		f(&o)
	}
	var err error
	if n.m, err = New(o); err != nil {
		t.Fatal(err)
	}
	m := n.m
	t.Cleanup(func() { m.Close() })
}

// reopen ends the process, so to speak.
func (n *node) reopen() {
	n.t.Helper()
	n.m.Close()
	if err := n.store.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.open()
}

func (n *node) backup(t Type) Info {
	n.t.Helper()
	info, err := n.m.Backup(n.t.Context(), t)
	if err != nil {
		n.t.Fatal(err)
	}
	if info.Type != t {
		n.t.Fatalf("the backup is %s, not %s", info.Type, t)
	}
	if st, err := os.Stat(info.Path()); err != nil || st.Size() != info.Size {
		n.t.Fatalf("the file: %v, %v; want %d bytes", st, err, info.Size)
	}
	return info
}

func (n *node) put(key types.Key, value string) types.Record {
	n.t.Helper()
	return storagetest.Put(n.t, n.store, key, value)
}

func (n *node) delete(key types.Key) types.Record {
	n.t.Helper()
	return storagetest.Delete(n.t, n.store, key)
}

// putTTL writes a value that expires.
func (n *node) putTTL(key types.Key, value string, ttl time.Duration) types.Record {
	n.t.Helper()
	return storagetest.One(n.t, n.store, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(value), TTL: ttl}).Record
}

// purge moves the horizon to a time and removes what it passes. The store does
// not know, and its cache may still have it until the store is reopened.
func (n *node) purge(to int64) {
	n.t.Helper()
	n.horizon.Store(to)
	var refs []types.Ref
	if err := n.store.Walk(n.t.Context(), types.Ref{}, func(rec *types.Record) bool {
		if rec.Purged(to) {
			refs = append(refs, rec.Ref)
		}
		return true
	}); err != nil {
		n.t.Fatal(err)
	}
	for _, r := range n.removers {
		r.mu.Lock()
		r.refs = refs
		r.mu.Unlock()
	}
	n.put("purged/at", fmt.Sprint(to))
}

// remover takes records off the disk, with the entry that lists them.
type remover struct {
	space byte
	mu    sync.Mutex
	refs  []types.Ref
}

func (r *remover) Keyspace() byte                   { return r.space }
func (*remover) Committed(uint64, []storage.Staged) {}

func (r *remover) Stage(tx *storage.HookTx, _ []storage.Staged) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range r.refs {
		var key []byte
		if r.space == 'h' {
			key = binary.BigEndian.AppendUint64(nil, merkle.KeyHash(ref))
		}
		tx.Delete(append(append(key, byte(ref.NS)), ref.Key...))
	}
	r.refs = nil
}

// follower is a dumb model: every change that the store made, in order.
type follower struct {
	mu      sync.Mutex
	changes []followed
}

type followed struct {
	seq uint64
	rec types.Record
}

func (*follower) Keyspace() byte                          { return 'f' }
func (*follower) Stage(*storage.HookTx, []storage.Staged) {}

func (f *follower) Committed(seq uint64, changes []storage.Staged) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range changes {
		f.changes = append(f.changes, followed{seq, changes[i].New})
	}
}

// at gives every version of every key up to a sequence, ascending.
func (f *follower) at(seq uint64) map[types.Ref][]types.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[types.Ref][]types.Record)
	for _, c := range f.changes {
		if c.seq <= seq {
			out[c.rec.Ref] = append(out[c.rec.Ref], c.rec)
		}
	}
	return out
}

// last is the newest change.
func (f *follower) last() types.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes[len(f.changes)-1].rec
}

// read gives all of a backup.
func read(t *testing.T, path string) (Header, Trailer, []entry) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := newReader(path, f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var out []entry
	for {
		e, err := r.entry()
		if err == io.EOF {
			return r.header, r.trailer, out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

// same compares records byte for byte.
func same(a, b types.Record) bool {
	return string(codec.Append(nil, &a)) == string(codec.Append(nil, &b))
}

// wantState checks that a store holds exactly these versions: of each key the
// last one current, and the ones before as its history.
func wantState(t *testing.T, s *storage.Store, want map[types.Ref][]types.Record) {
	t.Helper()
	got := stateOf(t, s)
	for ref, versions := range want {
		if !slices.EqualFunc(got[ref], versions, same) {
			t.Errorf("%s: %d versions %s, want %d %s", ref, len(got[ref]), values(got[ref]), len(versions), values(versions))
		}
		delete(got, ref)
	}
	for ref, versions := range got {
		t.Errorf("%s should not be there: %s", ref, values(versions))
	}
}

func values(versions []types.Record) (out []string) {
	for _, v := range versions {
		out = append(out, fmt.Sprintf("%d:%s:%.20q", v.Timestamp, v.UUID, v.Value))
	}
	return out
}

// stateOf gives all that a store has, but for the cluster's own records.
func stateOf(t *testing.T, s *storage.Store) map[types.Ref][]types.Record {
	t.Helper()
	p, err := s.Pin(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	out := make(map[types.Ref][]types.Record)
	err = p.Walk(t.Context(), 0, nil, func(k *storage.KeyState) error {
		if k.Err != nil {
			return k.Err
		}
		if !k.Absent && k.Ref.NS != types.NSCluster {
			out[k.Ref] = append(k.Older, k.Current)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kept cuts a history to what is kept of it.
func kept(versions []types.Record) []types.Record {
	return versions[max(0, len(versions)-1-limit):]
}

// restoreOptions restore a chain onto this machine.
func restoreOptions(t *testing.T, following bool, infos ...Info) RestoreOptions {
	t.Helper()
	var paths []string
	for _, info := range infos {
		paths = append(paths, info.Path())
	}
	chain, err := Resolve(paths, following)
	if err != nil {
		t.Fatal(err)
	}
	return RestoreOptions{Chain: chain, Older: limit, Now: time.Now(), MaxSkew: 5 * time.Second}
}

// restore writes a chain into a new store.
func restore(t *testing.T, o RestoreOptions) (*storage.Store, Report) {
	t.Helper()
	p, err := Prepare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := storagetest.Open(t, storage.Options{RevisionLimit: limit, Hooks: []storage.Hook{revisions.NewHook(limit)}})
	if err := p.Write(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s, p.Report
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// other gives a record of another node.
func other(key types.Key, ms int64, id byte, value string) types.Record {
	return types.Record{
		Ref:     types.DataRef(key),
		Version: types.Version{Timestamp: types.TimestampOf(ms), Origin: types.NodeID{id}, OriginJoined: 1, UUID: types.VersionID{id, byte(ms), byte(ms >> 8), byte(ms >> 16)}},
		Value:   []byte(value),
	}
}
