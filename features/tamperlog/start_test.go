package tamperlog

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// A log that is broken at its end is not gone on with. The operator is told, may
// begin a new chain, and the evidence stays.
func TestBrokenEnd(t *testing.T) {
	for name, c := range map[string]struct {
		attack func(tx *storage.HookTx, b []rawBlock)
		says   string
		left   []Kind // what Verify still reports after the new chain was begun
	}{
		"the last block is altered": {
			func(tx *storage.HookTx, b []rawBlock) {
				bad := bytes.Clone(b[4].value)
				bad[10] ^= 1
				tx.Set(b[4].key, bad)
			}, "block 6 is damaged: the hash does not match", []Kind{KindAltered, KindNewChain}},
		"the last block is another one": {
			func(tx *storage.HookTx, b []rawBlock) { tx.Set(b[4].key, b[3].value) },
			"under the number of block 6 there is block 5", []Kind{KindMoved, KindNewChain}},
		"the one before it is missing": {
			func(tx *storage.HookTx, b []rawBlock) { tx.Delete(b[3].key) },
			"block 5 is missing, which block 6 follows", []Kind{KindMissing, KindNewChain}},
		"the one before it is altered": {
			func(tx *storage.HookTx, b []rawBlock) { tx.Set(b[3].key, b[3].value[1:]) },
			"block 5 is damaged", []Kind{KindAltered, KindNewChain}},
		"the one before it is another one": {
			func(tx *storage.HookTx, b []rawBlock) {
				p := b[3].decoded(t)
				p.Entries[0].By.Subject = "nobody"
				tx.Set(b[3].key, p.Encode())
			}, "block 6 does not follow from block 5", []Kind{KindUnlinked, KindNewChain}},
		"it claims to be the first": {
			func(tx *storage.HookTx, b []rawBlock) {
				p := b[4].decoded(t)
				p.Previous = 0
				tx.Set(b[4].key, p.Encode())
			}, "block 6 is not the first of a log of this node", []Kind{KindUnlinked, KindNewChain}},
		"rubbish stands behind it": {
			func(tx *storage.HookTx, b []rawBlock) { tx.Set([]byte{blockPrefix, 1}, []byte("x")) },
			"6501 is not the key of a block", []Kind{KindInserted, KindMissing, KindNewChain}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // so that starts take no time
				n := openNode(t, "")
				for range 5 {
					storagetest.Put(t, n.store, "k", `1`)
				}
				n.attack(func(tx *storage.HookTx) { c.attack(tx, n.blocks()) })
				evidence := n.blocks()
				n.close()

				n = prepareNode(t, n.dir)
				err := n.log.Start(t.Context(), n.store)
				var broken *BrokenError
				if !errors.As(err, &broken) || broken.Dir != n.dir || !strings.Contains(err.Error(), c.says) ||
					!strings.Contains(err.Error(), "kvs audit verify") || !strings.Contains(err.Error(), filepath.Join(n.dir, newChainFile)) {
					t.Fatalf("start: %v", err)
				}
				storagetest.Put(t, n.store, "not logged", `1`)
				if got := n.blocks(); !reflect.DeepEqual(got, evidence) {
					t.Fatal("the log was changed")
				}
				n.close()

				marker := filepath.Join(n.dir, newChainFile)
				if err := os.WriteFile(marker, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				n = openNode(t, n.dir)
				if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the file is still there: %v", err)
				}
				storagetest.Put(t, n.store, "k", `2`)
				n = n.reopen()
				storagetest.Put(t, n.store, "k", `3`)
				now := n.blocks()
				for i, b := range evidence {
					if !reflect.DeepEqual(now[i], b) {
						t.Errorf("block %x is not what it was", b.key)
					}
				}
				if r := n.verify(VerifyOptions{}); !reflect.DeepEqual(kinds(r.Problems), c.left) {
					t.Errorf("problems %+v", r.Problems)
				}
				if e := n.entries(Filter{Action: ActionOpened}); !strings.HasPrefix(e[len(e)-2].Detail, "new chain") || !strings.HasPrefix(e[len(e)-1].Detail, "continued") {
					t.Errorf("opened entries %+v", e)
				}
				if c, ok := n.log.Checkpoint(); !ok || c.N != n.log.Stats().Last {
					t.Errorf("checkpoint %+v, %v", c, ok)
				}
			})
		})
	}
}

// The numbers of a new chain are behind all that may have been used and
// witnessed.
func TestNewChainIsBehindAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n, w := openNode(t, ""), openNode(t, "")
		ops := make([]storage.Op, 50)
		for i := range ops {
			ops[i] = storage.Op{Kind: storage.OpPut, Ref: types.DataRef("k"), Value: []byte(`1`)}
		}
		if _, err := n.store.Write(t.Context(), ops, true); err != nil {
			t.Fatal(err)
		}
		before := n.witnessedBy(w)
		n.replace([]rawBlock{{blockKey(1), []byte("rubbish")}})
		n.close()
		if err := os.WriteFile(filepath.Join(n.dir, newChainFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n = openNode(t, n.dir)
		if c := n.witnessedBy(w); c.N <= before.N {
			t.Errorf("entry %d after entry %d", c.N, before.N)
		}
		if s := w.witness.Stats(); s.Conflicts != 0 {
			t.Errorf("%+v", s)
		}
		r := n.verify(VerifyOptions{Witnessed: w.list(n.id())})
		if !reflect.DeepEqual(kinds(r.Problems), []Kind{KindAltered, KindNewChain}) || r.Unchecked != 1 || r.Witnessed != 1 {
			t.Errorf("%+v", r.Problems)
		}
	})
}

// A key that leaves no number cannot be moved behind.
func TestNoRoomForANewChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n := openNode(t, "")
		storagetest.Put(t, n.store, "k", `1`)
		n.attack(func(tx *storage.HookTx) { tx.Set(blockKey(1<<64-1), []byte("x")) })
		n.close()
		if err := os.WriteFile(filepath.Join(n.dir, newChainFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n = prepareNode(t, n.dir)
		var broken *BrokenError
		if err := n.log.Start(t.Context(), n.store); !errors.As(err, &broken) || !strings.Contains(err.Error(), "leaves no number") {
			t.Errorf("%v", err)
		}
	})
}

// A permission to begin a new chain does not lie there until one breaks.
func TestNeedlessNewChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n := openNode(t, "")
		storagetest.Put(t, n.store, "k", `1`)
		marker := filepath.Join(n.dir, newChainFile)
		if err := os.WriteFile(marker, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n = n.reopen()
		storagetest.Put(t, n.store, "k", `2`)
		n.sound(VerifyOptions{})
		if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
	})
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, dir)
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	digits, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n.close()
	n = prepareNode(t, dir)
	for name, c := range map[string]struct {
		content []byte
		mode    fs.FileMode
		says    string
	}{
		"others may read it": {digits, 0o640, "chmod 600"},
		"it is short":        {digits[:20], 0o600, "is damaged"},
		"it is no number":    {bytes.Replace(digits, digits[:1], []byte("g"), 1), 0o600, "is damaged"},
		"it is empty":        {nil, 0o600, "is damaged"},
	} {
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		err := n.log.Start(t.Context(), n.store)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(c.content) > 8 && strings.Contains(err.Error(), string(digits[1:8])) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
	// Without the file a new key is made, which witnesses notice.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPublicKey(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := n.log.Start(t.Context(), n.store); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || bytes.Equal(again, digits) {
		t.Errorf("the new key is the old one, or not there: %v", err)
	}
}

// A log of another node in the same place is not gone on with.
func TestLogOfAnotherNode(t *testing.T) {
	n, other := openNode(t, ""), openNode(t, "")
	storagetest.Put(t, other.store, "k", `1`)
	n.replace(other.blocks())
	n = &node{t: t, dir: n.dir, store: n.store, log: New(Options{Dir: n.dir})}
	var broken *BrokenError
	if err := n.log.Start(t.Context(), n.store); !errors.As(err, &broken) {
		t.Errorf("%v", err)
	}
}

func TestGenesis(t *testing.T) {
	a, b := types.NodeID{1}, types.NodeID{2}
	if genesis(a, 1) == genesis(b, 1) || genesis(a, 1) == genesis(a, 2) {
		t.Error("the first hash does not depend on node and number")
	}
}
