package tamperlog

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// rawHook is an attacker's access to the keyspace of the log.
type rawHook struct {
	mu sync.Mutex
	do func(*storage.HookTx)
}

func (h *rawHook) Keyspace() byte                         { return storage.SpaceLog }
func (h *rawHook) Committed(_ uint64, _ []storage.Staged) {}

func (h *rawHook) Stage(tx *storage.HookTx, _ []storage.Staged) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.do != nil {
		h.do(tx)
		h.do = nil
	}
}

// node is a store with a log and a witness.
type node struct {
	t       *testing.T
	dir     string
	store   *storage.Store
	log     *Log
	witness *Witness
	raw     *rawHook
}

// logOff opens a node without a log.
const logOff = true

func openNode(t *testing.T, dir string, off ...bool) *node {
	t.Helper()
	n := prepareNode(t, dir, off...)
	if len(off) == 0 {
		if err := n.log.Start(t.Context(), n.store); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.witness.Start(t.Context(), n.store); err != nil {
		t.Fatal(err)
	}
	return n
}

// prepareNode leaves out Start.
func prepareNode(t *testing.T, dir string, off ...bool) *node {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	n := &node{t: t, dir: dir, log: New(Options{Dir: dir, Log: logger}), witness: NewWitness(WitnessOptions{Log: logger}), raw: &rawHook{}}
	hooks := []storage.Hook{n.log, n.witness, n.raw}
	if len(off) > 0 {
		hooks = hooks[1:]
	}
	n.store = storagetest.Open(t, storage.Options{Dir: dir, Hooks: hooks})
	return n
}

func (n *node) id() types.NodeID { return n.store.Identity().UUID }

// close ends the process, so to speak.
func (n *node) close() {
	n.t.Helper()
	if err := n.store.Close(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) reopen(off ...bool) *node {
	n.t.Helper()
	n.close()
	return openNode(n.t, n.dir, off...)
}

// attack changes the keyspace behind the log's back.
func (n *node) attack(do func(tx *storage.HookTx)) {
	n.t.Helper()
	n.raw.mu.Lock()
	n.raw.do = do
	n.raw.mu.Unlock()
	n.flush()
}

// flush writes what hooks have waiting.
func (n *node) flush() {
	n.t.Helper()
	if err := n.store.CommitHooks(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// rawBlock is a block as it is in the store.
type rawBlock struct{ key, value []byte }

func (n *node) blocks() (out []rawBlock) {
	n.t.Helper()
	err := walk(n.t.Context(), n.store, []byte{blockPrefix}, func(key, value []byte) error {
		out = append(out, rawBlock{slices.Clone(key), slices.Clone(value)})
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// replace makes the log hold exactly these blocks.
func (n *node) replace(blocks []rawBlock) {
	n.t.Helper()
	old := n.blocks()
	n.attack(func(tx *storage.HookTx) {
		for _, b := range old {
			tx.Delete(b.key)
		}
		for _, b := range blocks {
			tx.Set(b.key, b.value)
		}
	})
}

func (n *node) verify(o VerifyOptions) Report {
	n.t.Helper()
	r, err := Verify(context.Background(), n.store, o)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// sound verifies a log in which nothing is wrong.
func (n *node) sound(o VerifyOptions) Report {
	n.t.Helper()
	r := n.verify(o)
	if !r.OK() {
		n.t.Fatalf("problems in a sound log: %+v", r.Problems)
	}
	return r
}

func (n *node) entries(f Filter) []Entry {
	n.t.Helper()
	if f.Limit == 0 {
		f.Limit = 1 << 20
	}
	list, next, err := Entries(n.t.Context(), n.store, f)
	if err != nil || next != 0 {
		n.t.Fatalf("next %d, %v", next, err)
	}
	return list
}

// witnessed hands the newest checkpoint of n to w.
func (n *node) witnessedBy(w *node) Checkpoint {
	n.t.Helper()
	c, ok := n.log.Checkpoint()
	if !ok {
		n.t.Fatal("no checkpoint")
	}
	if err := w.witness.Take(n.t.Context(), n.id(), c.Encode()); err != nil {
		n.t.Fatal(err)
	}
	n.log.Confirm(c)
	return c
}

func (n *node) list(of types.NodeID) []Checkpoint {
	n.t.Helper()
	list, err := n.witness.List(of)
	if err != nil {
		n.t.Fatal(err)
	}
	return list
}

// decoded gives a block of the store, to be changed.
func (b rawBlock) decoded(t *testing.T) Block {
	t.Helper()
	block, err := DecodeBlock(b.value)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// rechain gives consistent blocks from these on: each follows from the one
// before it.
func rechain(blocks []Block, prev Hash) (out []rawBlock) {
	for i := range blocks {
		b := &blocks[i]
		b.Prev = prev
		value := b.Encode()
		prev = Hash(value[len(value)-len(prev):])
		out = append(out, rawBlock{blockKey(b.First), value})
	}
	return out
}

func kinds(problems []Problem) (out []Kind) {
	for _, p := range problems {
		out = append(out, p.Kind)
	}
	return out
}
