package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvs/config"
	"kvs/features/backup"
	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// startBackups gives a node with the calls about backups, and where those are.
func startBackups(t *testing.T, adjust ...func(*config.Config)) (*testNode, string) {
	t.Helper()
	n := startNode(t, adjust...)
	cfg := testConfig(t)
	cfg.BackupEnabled, cfg.BackupPath = true, t.TempDir()
	for _, f := range adjust {
		f(&cfg)
	}
	b, err := newBackups(n.api, cfg, Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	inner, outer := n.mux, http.NewServeMux()
	outer.Handle("/", inner)
	for pattern, calls := range b.calls() {
		outer.Handle(pattern, n.api.resource(pattern, calls))
	}
	n.api.mux = outer
	return n, cfg.BackupPath
}

// sendFile posts a file, or several one after another.
func (n *testNode) sendFile(query string, paths ...string) answer {
	n.t.Helper()
	var all strings.Builder
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			n.t.Fatal(err)
		}
		all.Write(b)
	}
	return n.do("POST", "/admin/restore"+query, all.String())
}

func TestBackupCalls(t *testing.T) {
	n, dir := startBackups(t)
	if a := n.do("GET", "/admin/backups", ""); a.status != 200 || a.body != "{\"backups\":[]}\n" {
		t.Errorf("no backups: %d %s", a.status, a.body)
	}
	n.do("PUT", "/kv/a", `1`)
	n.do("PUT", "/kv/b", `1`)
	n.do("DELETE", "/kv/b", "")
	var info BackupInfo
	a := n.do("POST", "/admin/backup", `{"type":"full"}`)
	n.want(a, 201, "")
	if err := json.Unmarshal([]byte(a.body), &info); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, info.Name)
	st, err := os.Stat(path)
	if err != nil || st.Size() != info.Size || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st, err)
	}
	if info.Records != 2 || info.Sequence != n.store.Seq() || info.Since != 0 || info.Type != "full" || info.Node != "n1" || info.Damaged != 0 {
		t.Errorf("%s", a.body)
	}
	for _, member := range []string{"name", "size", "records", "sequence"} {
		if a.object(t)[member] == nil {
			t.Errorf("no %s in %s", member, a.body)
		}
	}
	n.do("PUT", "/kv/a", `2`)
	if a := n.do("POST", "/admin/backup", `{"type":"incremental"}`); a.status != 201 || a.member("type") != "incremental" || a.object(t)["records"] != json.Number("1") {
		t.Errorf("incremental: %d %s", a.status, a.body)
	}
	if a := n.do("POST", "/admin/backup", ""); a.status != 201 || a.member("type") != "full" {
		t.Errorf("without a body: %d %s", a.status, a.body)
	}
	var list struct{ Backups []BackupInfo }
	if err := json.Unmarshal([]byte(n.do("GET", "/admin/backups", "").body), &list); err != nil || len(list.Backups) != 3 || list.Backups[0] != info || list.Backups[1].Since != info.Sequence {
		t.Errorf("%+v, %v", list, err)
	}
	for _, bad := range []string{`{"type":"weekly"}`, `{"type":1}`, `{"name":"x"}`, `[]`, `{"type":"full"}{}`, `{"path":"../../x"}`} {
		n.want(n.do("POST", "/admin/backup", bad), 400, "invalid_body")
	}
	n.want(n.do("POST", "/admin/backup?type=full", ""), 400, "invalid_parameter")
	n.want(n.do("GET", "/admin/backup", ""), 405, "method_not_allowed")
	n.want(n.do("GET", "/admin/restore", ""), 405, "method_not_allowed")
	n.want(n.do("POST", "/admin/restore?force", "x"), 400, "invalid_parameter")

	// A node that is being filled has half of everything.
	n.peers.set(func(p *fakePeers) { p.state = types.ModeSyncing })
	n.want(n.do("POST", "/admin/backup", ""), 503, "syncing")
	n.want(n.do("POST", "/admin/restore", "x"), 503, "syncing")
	n.peers.set(func(p *fakePeers) { p.state = types.ModeReadOnly })
	n.want(n.do("POST", "/admin/restore", "x"), 503, "read_only")
	n.want(n.do("POST", "/admin/backup", ""), 201, "")
}

func TestBackupSwitchedOff(t *testing.T) {
	n, dir := startBackups(t, func(c *config.Config) { c.BackupEnabled = false })
	for _, call := range [][2]string{{"POST", "/admin/backup"}, {"GET", "/admin/backups"}, {"POST", "/admin/restore"}} {
		n.want(n.do(call[0], call[1], ""), 404, "feature_disabled")
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		t.Errorf("files %v", entries)
	}
}

func TestBackupNeedsAdmin(t *testing.T) {
	n, _ := startBackups(t, func(c *config.Config) { c.AuthEnabled = true })
	for _, call := range [][2]string{{"POST", "/admin/backup"}, {"GET", "/admin/backups"}, {"POST", "/admin/restore"}} {
		n.want(n.do(call[0], call[1], ""), 401, "unauthorized")
	}
}

// A restore brings back what was lost, and no more; what is damaged changes
// nothing.
func TestRestoreCall(t *testing.T) {
	source, from := startBackups(t)
	for i := range 20 {
		source.do("PUT", fmt.Sprintf("/kv/k%d", i), fmt.Sprint(i))
	}
	full := filepath.Join(from, source.do("POST", "/admin/backup", "").member("name"))
	source.do("PUT", "/kv/k0", `"later"`)
	inc := filepath.Join(from, source.do("POST", "/admin/backup", `{"type":"incremental"}`).member("name"))

	n, dir := startBackups(t)
	n.do("PUT", "/kv/own", `1`)
	if a := n.sendFile("?dry_run", full, inc); a.status != 200 || a.object(t)["merged"] != json.Number("20") || a.object(t)["dry_run"] != true {
		t.Errorf("dry run: %d %s", a.status, a.body)
	}
	n.want(n.do("GET", "/kv/k1", ""), 404, "key_not_found")
	if a := n.sendFile("", full, inc); a.status != 200 || a.object(t)["merged"] != json.Number("20") {
		t.Errorf("restore: %d %s", a.status, a.body)
	}
	if a := n.do("GET", "/kv/k0", ""); !strings.Contains(a.body, `"later"`) {
		t.Errorf("k0 is %s", a.body)
	}
	n.do("DELETE", "/kv/k2", "")
	if a := n.sendFile("", full, inc); a.status != 200 || a.object(t)["merged"] != json.Number("0") {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	n.want(n.do("GET", "/kv/k2", ""), 404, "key_not_found")

	b, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	seq := n.store.Seq()
	for name, body := range map[string]string{"half": string(b[:len(b)/2]), "no backup": "hello", "nothing": "", "no chain": string(b) + string(b)} {
		a := n.do("POST", "/admin/restore", body)
		if n.want(a, 400, "damaged_backup"); !strings.Contains(a.body, "nothing was changed") {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	if n.store.Seq() != seq {
		t.Error("something was written")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("files %v, %v", entries, err)
	}
}

// A body that stops coming is refused, and one that comes slowly is not.
func TestRestoreBodyHasToCome(t *testing.T) {
	n, dir := startBackups(t)
	n.bodyGrace = 50 * time.Millisecond
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /admin/restore HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nKVSB")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(got), "body_timeout") {
		t.Errorf("%s, %v", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("files %v, %v", entries, err)
	}
}

// offline makes what a restore without a node is given.
func offline(t *testing.T, files ...string) OfflineRestore {
	t.Helper()
	cfg := testConfig(t)
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	return OfflineRestore{Config: cfg, Files: files}
}

func TestOfflineRestore(t *testing.T) {
	n, dir := startBackups(t)
	n.do("PUT", "/kv/a", `"old"`)
	n.do("PUT", "/kv/a", `"new"`)
	n.do("PUT", "/kv/b", `1`)
	n.do("DELETE", "/kv/b", "")
	full := filepath.Join(dir, n.do("POST", "/admin/backup", "").member("name"))
	before := time.Now()
	for time.Now().UnixMilli() == before.UnixMilli() { // so that the next write is later
		time.Sleep(time.Millisecond)
	}
	n.do("PUT", "/kv/a", `"newest"`)
	n.do("POST", "/admin/backup", `{"type":"incremental"}`)

	o := offline(t, full)
	o.DryRun = true
	r, err := o.Do(t.Context())
	if err != nil || r.Live != 1 || r.Tombstones != 1 || r.Node != "" || len(r.Backups) != 2 {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	if _, err := os.Stat(o.Config.DataDir); !os.IsNotExist(err) {
		t.Errorf("a dry run made %s: %v", o.Config.DataDir, err)
	}
	o.DryRun = false
	asked := 0
	o.Progress = func(string, uint64, uint64) { asked++ }
	if r, err = o.Do(t.Context()); err != nil || r.Older != 3 || asked == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	open := func(dir string) *storage.Store {
		t.Helper()
		so := storeOptions(o.Config, n.log)
		so.Dir, so.ScrubEvery = dir, -1
		return storagetest.Open(t, so)
	}
	s := open(o.Config.DataDir)
	if rec, err := s.Get(types.DataRef("a")); err != nil || string(rec.Value) != `"newest"` {
		t.Errorf("a is %s, %v", rec.Value, err)
	}
	if id := s.Identity().UUID.String(); id != r.Node || id == n.store.Identity().UUID.String() {
		t.Errorf("the node is %s", id)
	}
	if entries, err := os.ReadDir(o.Config.DataDir); err != nil || strings.Contains(fmt.Sprint(entries), restoringDir) {
		t.Errorf("%v, %v", entries, err)
	}
	// Not over what is there, be it a node's or anything else; and nothing of it
	// changes.
	if _, err := o.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("again: %v", err)
	}

	past := offline(t, full)
	past.At = before
	if _, err := past.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rec, err := open(past.Config.DataDir).Get(types.DataRef("a")); err != nil || string(rec.Value) != `"new"` {
		t.Errorf("a was %s, %v", rec.Value, err)
	}

	// Into a directory that is there and empty.
	empty := offline(t, full)
	empty.Only = true
	if err := os.Mkdir(empty.Config.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if r, err := empty.Do(t.Context()); err != nil || len(r.Backups) != 1 {
		t.Errorf("%+v, %v", r, err)
	}

	info, err := VerifyBackup(t.Context(), full)
	if err != nil || info.Records != 2 {
		t.Errorf("%+v, %v", info, err)
	}
	if chain, err := BackupChain([]string{full}, false); err != nil || len(chain) != 2 || chain[0] != full {
		t.Errorf("%v, %v", chain, err)
	}
}

// A restore that fails or breaks off leaves no directory that a node starts on.
func TestOfflineRestoreIsAllOrNothing(t *testing.T) {
	n, dir := startBackups(t)
	for i := range 50 {
		n.do("PUT", fmt.Sprintf("/kv/k%d", i), `1`)
	}
	full := filepath.Join(dir, n.do("POST", "/admin/backup", "").member("name"))

	o := offline(t, full)
	o.Config.MinFreeDisk = 1 << 60
	if _, err := o.Do(t.Context()); err == nil {
		t.Error("it was restored onto a full disk")
	}
	if _, err := os.Stat(o.Config.DataDir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	b, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	bad := filepath.Join(t.TempDir(), filepath.Base(full))
	if err := os.WriteFile(bad, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o = offline(t, bad)
	if _, err := o.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "block") {
		t.Errorf("a damaged file: %v", err)
	}
	if _, err := os.Stat(o.Config.DataDir); !os.IsNotExist(err) {
		t.Errorf("a damaged file made the directory: %v", err)
	}

	// As a crash leaves it, at any moment of the move: a node refuses to start,
	// and so does another restore.
	o = offline(t, full)
	chain, err := backup.Resolve(o.Files, true)
	if err != nil {
		t.Fatal(err)
	}
	p, err := backup.Prepare(t.Context(), backup.RestoreOptions{Chain: chain, Now: time.Now(), MaxSkew: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	work := filepath.Join(o.Config.DataDir, restoringDir)
	if err := os.MkdirAll(work, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := o.fill(t.Context(), p, work); err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		so := storeOptions(o.Config, n.log)
		if s, err := storage.Open(so); err == nil {
			s.Close()
			t.Fatalf("%s: a node starts", when)
		}
		if _, err := o.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("%s: another restore: %v", when, err)
		}
	}
	refused("before the move")
	if err := os.Rename(filepath.Join(work, "MANIFEST"), filepath.Join(o.Config.DataDir, "MANIFEST")); err != nil {
		t.Fatal(err)
	}
	refused("within the move")
	if err := os.Rename(filepath.Join(o.Config.DataDir, "MANIFEST"), filepath.Join(work, "MANIFEST")); err != nil {
		t.Fatal(err)
	}
	if err := moveInto(o.Config.DataDir, work); err != nil {
		t.Fatal(err)
	}
	so := storeOptions(o.Config, n.log)
	so.ScrubEvery = -1
	s := storagetest.Open(t, so)
	if _, err := s.Get(types.DataRef("k1")); err != nil {
		t.Error(err)
	}
}
