package server

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvs/config"
	"kvs/storage"
	"kvs/types"
)

// damagedNode gives a node whose record of the key has a flipped bit on disk,
// and the record as it was.
func damagedNode(t *testing.T, key types.Key) (*testNode, types.Record) {
	t.Helper()
	cfg := testConfig(t)
	store, err := storage.Open(storeOptions(cfg, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	// Large enough for the value log, where it is found as it is.
	value := []byte(`"` + strings.Repeat("needle", 1000) + `"`)
	results, err := store.Write(t.Context(), []storage.Op{
		{Kind: storage.OpPut, Ref: types.DataRef(key), Value: value},
		{Kind: storage.OpPut, Ref: types.DataRef("sound"), Value: []byte(`1`)},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(cfg.DataDir, "*.vlog"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no value log", err)
	}
	damaged := 0
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, value); i >= 0 {
			damaged++
			b[i+len(value)/2] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if damaged == 0 {
		t.Fatal("the value is not in the value log")
	}
	return startNode(t, func(c *config.Config) { c.DataDir = cfg.DataDir }), results[0].Record
}

func TestDamagedRecord(t *testing.T) {
	n, rec := damagedNode(t, "a")
	// Without a peer that has it, it is reported, and neither served nor
	// deleted nor taken for absent.
	for _, c := range [][2]string{{"GET", "/kv/a"}, {"DELETE", "/kv/a"}, {"GET", "/kv/_range"}, {"DELETE", "/kv/_range?prefix=a"}} {
		n.want(n.do(c[0], c[1], ""), 500, "corrupt_record")
	}
	n.want(n.do("PUT", "/kv/a", `1`, "If-Match", "*"), 500, "corrupt_record")
	n.want(n.do("GET", "/kv/sound", ""), 200, "")
	got, _ := n.do("POST", "/kv/_batch", `{"ops":[{"op":"get","key":"a"},{"op":"get","key":"sound"}]}`).results(t)
	if got != "500 200" {
		t.Errorf("batch: %s", got)
	}

	healed := 0
	n.peers.set(func(p *fakePeers) {
		p.heal = func(ref types.Ref) (bool, error) {
			healed++
			return true, n.store.Repair(t.Context(), rec)
		}
	})
	a := n.do("GET", "/kv/_range", "")
	if n.want(a, 200, ""); !strings.Contains(a.body, rec.UUID.String()) {
		t.Errorf("the range lacks the healed record: %.200s", a.body)
	}
	if a := n.do("GET", "/kv/a?raw", ""); a.body != string(rec.Value) || healed != 1 {
		t.Errorf("healed %d times: %.100s", healed, a.body)
	}
}

func TestDamagedRecordIsHealedOnRead(t *testing.T) {
	n, rec := damagedNode(t, "a")
	n.peers.set(func(p *fakePeers) {
		p.heal = func(types.Ref) (bool, error) { return true, n.store.Repair(t.Context(), rec) }
	})
	a := n.do("GET", "/kv/a", "")
	if n.want(a, 200, ""); a.member("uuid") != rec.UUID.String() {
		t.Errorf("read %.100s", a.body)
	}
}

// TestDamagedRecordIsOverwritten: a plain write needs nothing of what is there.
func TestDamagedRecordIsOverwritten(t *testing.T) {
	n, _ := damagedNode(t, "a")
	if a := n.do("PUT", "/kv/a", `1`); a.status >= 300 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := n.do("GET", "/kv/a?raw", ""); a.body != "1" {
		t.Errorf("read %s", a.body)
	}
}
