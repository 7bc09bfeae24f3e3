package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvs/features/backup"
	"kvs/server"
	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

func TestBackupCommands(t *testing.T) {
	away(t)
	made := `{"name":"kvs-n1-20260131T000000Z-full.kvsb","type":"full","size":2048,"records":3,"sequence":9,"since":0,"created":1769817600000,"node":"n1"}`
	n := newAnswering(t, map[string]string{
		"POST /admin/backup": made,
		"GET /admin/backups": `{"backups":[` + made + `]}`,
	})
	t.Setenv("KVS_URL", n.url)
	r := runCommand(t, newBackup(), "")
	if r.code != exitOK || r.stdout != "made kvs-n1-20260131T000000Z-full.kvsb: 3 records, 2.0 KiB, up to sequence 9\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	r = runCommand(t, newBackup(), "", "--type", "incremental")
	if r.code != exitOK || !strings.Contains(r.stderr, "full one") {
		t.Errorf("%+v", r)
	}
	if r = runCommand(t, newBackup(), "", "-o", "json"); r.code != exitOK || !strings.Contains(r.stdout, `"records":3`) {
		t.Errorf("%+v", r)
	}
	if r = runCommand(t, newBackup(), "", "ls"); r.code != exitOK || !strings.Contains(r.stdout, "2.0 KiB") || !strings.Contains(r.stdout, "NODE") {
		t.Errorf("%+v", r)
	}
	for _, bad := range [][]string{{"--type", "weekly"}, {"x"}, {"ls", "x"}, {"verify"}, {"verify", "f", "-o", "xml"}} {
		if r := runCommand(t, newBackup(), "", bad...); r.code != exitUsage {
			t.Errorf("%v: %+v", bad, r)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.calls) != 4 || !strings.Contains(n.calls[0], `{"type":"full"}`) || !strings.Contains(n.calls[1], `{"type":"incremental"}`) {
		t.Errorf("calls %q", n.calls)
	}
}

// madeBackups gives a full backup of a store and one that follows it.
func madeBackups(t *testing.T) (full, incremental string) {
	t.Helper()
	dir := t.TempDir()
	s := storagetest.Open(t, storage.Options{RevisionLimit: 5, Hooks: []storage.Hook{backup.Hook{}}})
	m, err := backup.New(backup.Options{Store: s, Dir: dir, DataDir: dir, NodeID: "n1", Retention: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	storagetest.Put(t, s, "a", `"old"`)
	storagetest.Put(t, s, "b", `1`)
	var paths []string
	for _, kind := range []backup.Type{backup.Full, backup.Incremental} {
		info, err := m.Backup(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, info.Path())
		for begin := time.Now().UnixMilli(); time.Now().UnixMilli() == begin; { // so that what follows is later
			time.Sleep(time.Millisecond)
		}
		storagetest.Put(t, s, "a", `"new"`)
	}
	return paths[0], paths[1]
}

func TestBackupVerify(t *testing.T) {
	away(t)
	full, inc := madeBackups(t)
	r := runCommand(t, newBackup(), "", "verify", full, inc)
	if r.code != exitOK || strings.Count(r.stdout, " is good: ") != 2 {
		t.Errorf("%+v", r)
	}
	b, err := os.ReadFile(inc)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inc, b[:len(b)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	r = runCommand(t, newBackup(), "", "verify", inc, full)
	if r.code != exitFailed || !strings.Contains(r.stderr, inc) || !strings.Contains(r.stdout, full+" is good") {
		t.Errorf("%+v", r)
	}
	if r = runCommand(t, newBackup(), "", "verify", "nothing", "-o", "json"); r.code != exitFailed {
		t.Errorf("%+v", r)
	}
}

func TestRestoreCommand(t *testing.T) {
	away(t)
	full, inc := madeBackups(t)
	writeFile(t, "n.yaml", "data_dir: d\nmin_free_disk_mb: 0\n")
	r := runCommand(t, newRestore(), "", full, "--config", "n.yaml", "--dry-run")
	if r.code != exitOK || !strings.Contains(r.stdout, "would be restored into d") || !strings.Contains(r.stdout, filepath.Base(inc)) {
		t.Errorf("%+v", r)
	}
	if r.stderr != "" {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat("d"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dry run made the directory: %v", err)
	}
	r = runCommand(t, newRestore(), "", full, "--config", "n.yaml")
	if r.code != exitOK || !strings.Contains(r.stdout, "restored into d") || !strings.Contains(r.stdout, "new node") {
		t.Fatalf("%+v", r)
	}
	s := storagetest.Open(t, storage.Options{Dir: "d"})
	if rec, err := s.Get(types.DataRef("a")); err != nil || string(rec.Value) != `"new"` {
		t.Errorf("a is %s, %v", rec.Value, err)
	}
	if r = runCommand(t, newRestore(), "", full, "--config", "n.yaml"); r.code != exitFailed || !strings.Contains(r.stderr, "not empty") {
		t.Errorf("%+v", r)
	}
	t.Setenv("KVS_DATA_DIR", "e")
	t.Setenv("KVS_MIN_FREE_DISK_MB", "0")
	if r = runCommand(t, newRestore(), "", full, "--only", "-o", "json"); r.code != exitOK || !strings.Contains(r.stdout, `"live":2`) {
		t.Errorf("%+v", r)
	}
	s = storagetest.Open(t, storage.Options{Dir: "e"})
	if rec, err := s.Get(types.DataRef("a")); err != nil || string(rec.Value) != `"old"` {
		t.Errorf("a was %s, %v", rec.Value, err)
	}
	for _, bad := range [][]string{
		{}, {full, "--at", "yesterday"}, {full, "--missing"}, {full, "--url", "http://x"}, {full, "--merge", "--at", "1h"}, {full, "--merge", "--skip-unknown"},
	} {
		if r := runCommand(t, newRestore(), "", bad...); r.code != exitUsage {
			t.Errorf("%v: %+v", bad, r)
		}
	}
	t.Setenv("KVS_DATA_DIR", "f")
	t.Setenv("KVS_SEED_NODES", "old:8080")
	if r = runCommand(t, newRestore(), "", full, "--dry-run"); r.code != exitOK || !strings.Contains(r.stderr, "old:8080") {
		t.Errorf("%+v", r)
	}
	if r = runCommand(t, newRestore(), "", "nothing"); r.code != exitFailed {
		t.Errorf("%+v", r)
	}
	if r = runCommand(t, newRestore(), "", full, "--at", "1000"); r.code != exitOK || !strings.Contains(r.stdout, "values          0\n") {
		t.Errorf("long before: %+v", r)
	}
}

// A merge sends the chain in its order, however it is named.
func TestRestoreMerge(t *testing.T) {
	away(t)
	full, inc := madeBackups(t)
	var want []byte
	for _, path := range []string{full, inc} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	answer := `{"records":5,"merged":2,"known":1,"purged":1,"missing":1}`
	n := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != string(want) {
			t.Errorf("%d bytes came, want %d; %v", len(b), len(want), err)
		}
		fmt.Fprint(w, answer)
	}))
	defer n.Close()
	for _, files := range [][]string{{full}, {inc}, {inc, full}} {
		r := runCommand(t, newRestore(), "", append(files, "--merge", "--url", n.URL)...)
		if r.code != exitOK || !strings.Contains(r.stdout, "merged") || !strings.Contains(r.stdout, "1 key that the cluster has not") {
			t.Errorf("%+v", r)
		}
	}
	answer = `{"records":1,"refused":1,"refusal":"its clock"}`
	r := runCommand(t, newRestore(), "", full, "--merge", "--url", n.URL, "--dry-run", "-o", "json")
	if r.code != exitFailed || !strings.Contains(r.stderr, "its clock") || !strings.Contains(r.stdout, `"refused":1`) {
		t.Errorf("%+v", r)
	}
}

// What a node restores by itself is what the command line says it does.
func TestRestoreReportIsComplete(t *testing.T) {
	var out strings.Builder
	r := server.RestoreReport{Dir: "d", Live: 1, Tombstones: 2, Expired: 3, Older: 4, Left: 5, Unknown: 6, Damaged: 7, Node: "8"}
	if err := printRestored(&out, r); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 8; n++ {
		if !strings.Contains(out.String(), fmt.Sprint(n)) {
			t.Errorf("%d is not in\n%s", n, out.String())
		}
	}
}
