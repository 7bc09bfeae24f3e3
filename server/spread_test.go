package server

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvs/auth"
	"kvs/features/tamperlog"
	"kvs/storage"
	"kvs/types"
	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

// pushLag is what a change may take to the other nodes over links that are up:
// far more than the milliseconds that it takes, and far less than the rounds of
// repair.
const pushLag = 5 * time.Second

// within polls as eventually does, for as long as a push may take.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	start := time.Now()
	eventually(t, what, ok)
	if took := time.Since(start); took > pushLag {
		t.Errorf("%s: only after %v", what, took)
	}
}

func secureCluster(t *testing.T, fabric *faultnet.Fabric, names ...string) (nodes []*Node) {
	t.Helper()
	var seeds []string
	for _, name := range names {
		cfg := nodeConfig(t, name, seeds...)
		cfg.AuthEnabled, cfg.TamperLoggingEnabled = true, true
		n, _ := fullNode(t, cfg, fabric.Host(name), io.Discard)
		nodes, seeds = append(nodes, n), append(seeds, n.Addr())
	}
	for _, n := range nodes {
		eventually(t, "all members are known", func() bool {
			return strings.Contains(askAs(t, n, "", "GET", "/health", "").body, fmt.Sprintf(`"mode":"normal","member_count":%d`, len(nodes)))
		})
	}
	return nodes
}

func TestRevocationSpreads(t *testing.T) {
	t.Parallel()
	fabric := faultnet.New(1, oneport.Real())
	nodes := secureCluster(t, fabric, "one", "two", "three")
	one, two, three := nodes[0], nodes[1], nodes[2]
	admin, _ := issue(t, one.api.tokens, auth.Root, "admin")
	do := func(n *Node, token, method, path, body string, want int) answer {
		t.Helper()
		a := askAs(t, n, token, method, path, body)
		if a.status != want {
			t.Errorf("%s %s on %s: %d %s, want %d", method, path, n.cfg.NodeID, a.status, a.body, want)
		}
		return a
	}
	status := func(n *Node, token, path string) int { t.Helper(); return askAs(t, n, token, "GET", path, "").status }
	token := func(body string) (token, id string) {
		a := do(one, admin, "POST", "/auth/tokens", body, 201)
		return a.member("token"), a.member("jti")
	}

	ann := do(one, admin, "POST", "/auth/users", `{"nickname":"ann"}`, 201).member("uuid")
	first, firstID := token(`{"user_uuid":"ann","scopes":["read"]}`)
	// A token is good on a node that has not heard of its user yet.
	for _, n := range nodes {
		do(n, first, "GET", "/kv/none", "", 404)
	}
	for _, n := range nodes[1:] {
		within(t, "the others know the user", func() bool { return status(n, admin, "/auth/users/ann") == 200 })
	}

	// Revoked: at once where it was asked, and on the others with the push.
	do(one, admin, "DELETE", "/auth/tokens/"+firstID, "", 204)
	do(one, first, "GET", "/kv/none", "", 401)
	for _, n := range nodes[1:] {
		within(t, "a token that was revoked elsewhere is refused", func() bool { return status(n, first, "/kv/none") == 401 })
		do(n, admin, "DELETE", "/auth/tokens/"+firstID, "", 404)
	}

	// A group's rights end with the group.
	do(one, admin, "POST", "/auth/groups", `{"nickname":"g"}`, 201)
	do(one, admin, "PUT", "/auth/groups/g/members/ann", "", 204)
	do(one, admin, "PUT", "/kv/k", `1`, 201)
	do(one, admin, "PUT", "/kv/k?metadata&w=all", `{"group":"g","mode":"cdwr:---r:----"}`, 200)
	second, secondID := token(`{"user_uuid":"ann","scopes":["read"]}`)
	for _, n := range nodes {
		within(t, "a member of the group reads", func() bool { return status(n, second, "/kv/k") == 200 })
	}
	do(two, admin, "DELETE", "/auth/groups/g", "", 204)
	do(two, second, "GET", "/kv/k", "", 404)
	for _, n := range nodes {
		within(t, "the rights of a deleted group end", func() bool { return status(n, second, "/kv/k") == 404 })
	}

	// A node that is cut off goes on by what it knows.
	third, _ := token(`{"user_uuid":"ann","scopes":["read"]}`)
	fabric.Cut("three", "one")
	fabric.Cut("three", "two")
	do(one, admin, "DELETE", "/auth/tokens/"+secondID, "", 204)
	do(one, admin, "DELETE", "/auth/users/"+ann, "", 204)
	for _, gone := range []string{second, third} {
		do(one, gone, "GET", "/kv/none", "", 401)
		within(t, "a deleted user is refused", func() bool { return status(two, gone, "/kv/none") == 401 })
		do(three, gone, "GET", "/kv/none", "", 404)
	}
	fabric.HealAll()
	for _, gone := range []string{second, third} {
		eventually(t, "it is refused after the heal", func() bool { return status(three, gone, "/kv/none") == 401 })
	}

	// The end of a node's tamper log is kept by the others, and nobody shows
	// another's.
	for _, n := range nodes {
		for _, peer := range nodes {
			if peer == n {
				continue
			}
			var last tamperlog.Checkpoint
			for _, name := range []string{n.cfg.NodeID, n.store.Identity().UUID.String()} {
				// Refused attempts are written in between.
				eventually(t, "the newest checkpoint is kept", func() bool {
					last, _ = n.trust.audit.log.Checkpoint()
					n.trust.audit.show(t.Context(), n.cluster)
					a := do(peer, admin, "GET", "/admin/audit/witnessed?node="+name, "", 200)
					return strings.HasPrefix(a.body, `{"checkpoints":[{`) && a.member("node") == n.store.Identity().UUID.String() &&
						strings.Contains(a.body, fmt.Sprintf(`"n":%d,"head":%q`, last.N, last.Head.String()))
				})
			}
			if _, err := peer.cluster.Ask(t.Context(), two.store.Identity().UUID, witnessCall, last.Encode()); peer != two && err == nil {
				t.Errorf("%s showed two a checkpoint of %s", peer.cfg.NodeID, n.cfg.NodeID)
			}
		}
	}
}

// TestRestartForgetsNothing: what was revoked or deleted stays so.
func TestRestartForgetsNothing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.AuthEnabled, cfg.TamperLoggingEnabled, cfg.ClusteringEnabled = true, true, false
	n, stop := fullNode(t, cfg, nil, io.Discard)
	admin, _ := issue(t, n.api.tokens, auth.Root, "admin")
	askAs(t, n, admin, "POST", "/auth/users", `{"nickname":"ann"}`)
	askAs(t, n, admin, "POST", "/auth/users", `{"nickname":"bob"}`)
	made := func(user string) (token, id string) {
		a := askAs(t, n, admin, "POST", "/auth/tokens", `{"user_uuid":"`+user+`","scopes":["read"]}`)
		return a.member("token"), a.member("jti")
	}
	revoked, id := made("ann")
	kept, _ := made("ann")
	deleted, _ := made("bob")
	unlisted, unlistedID := issue(t, n.api.tokens, auth.Root, "read")
	for _, path := range []string{"/auth/tokens/" + id, "/auth/users/bob", "/auth/tokens/" + unlistedID} {
		if a := askAs(t, n, admin, "DELETE", path, ""); a.status != 204 {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
	}
	stop()
	n, _ = fullNode(t, cfg, nil, io.Discard)
	for name, c := range map[string]struct {
		token string
		want  int
	}{"revoked": {revoked, 401}, "kept": {kept, 404}, "of a deleted user": {deleted, 401}, "revoked and never listed": {unlisted, 401}, "admin's": {admin, 404}} {
		if a := askAs(t, n, c.token, "GET", "/kv/none", ""); a.status != c.want {
			t.Errorf("a token %s: %d %s", name, a.status, a.body)
		}
	}
	if a := askAs(t, n, admin, "GET", "/auth/users", ""); !strings.Contains(a.body, "ann") || strings.Contains(a.body, "bob") {
		t.Errorf("users: %s", a.body)
	}
}

// TestReplacedLogIsReported: a node that comes back with an older copy of its
// disk shows another past than its peer has witnessed. Once that past is longer
// than what was witnessed only a check of the whole log tells, with what the
// peer keeps.
func TestReplacedLogIsReported(t *testing.T) {
	t.Parallel()
	fabric := faultnet.New(1, oneport.Real())
	start := func(name, dir string, log io.Writer, seeds ...string) (*Node, func()) {
		cfg := nodeConfig(t, name, seeds...)
		cfg.DataDir, cfg.AuthEnabled, cfg.TamperLoggingEnabled = dir, true, true
		return fullNode(t, cfg, fabric.Host(name), log)
	}
	dir, old := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	one, stop := start("one", dir, io.Discard)
	admin, _ := issue(t, one.api.tokens, auth.Root, "admin")
	write := func(n *Node, value string, times int) {
		t.Helper()
		for i := range times {
			if a := askAs(t, n, admin, "PUT", fmt.Sprintf("/kv/%d", i), value); a.status >= 300 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
	}
	write(one, `"before"`, 3)
	stop()
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(old, "audit.key"), 0o600); err != nil {
		t.Fatal(err)
	}

	logged := &lockedBuffer{}
	two, _ := start("two", t.TempDir(), logged)
	shown := func(dir, value string, times int) {
		t.Helper()
		one, stop := start("one", dir, io.Discard, two.Addr())
		eventually(t, "both know each other", func() bool {
			return len(one.cluster.Live()) == 1 && len(two.cluster.Live()) == 1 && one.cluster.Mode() == types.ModeNormal
		})
		write(one, value, times)
		one.trust.audit.show(t.Context(), one.cluster)
		stop()
	}
	witness := two.trust.audit.witness
	shown(dir, `"as it was"`, 30)
	if got := witness.Stats(); got.Witnessed == 0 || got.Conflicts != 0 {
		t.Fatalf("of the honest log: %+v", got)
	}
	kept, err := witness.List(one.store.Identity().UUID)
	if err != nil || len(kept) == 0 {
		t.Fatal(kept, err)
	}
	shown(old, `"as it should have been"`, 5)
	if got := witness.Stats(); got.Conflicts == 0 || !strings.Contains(logged.String(), "contradicts what this node has witnessed") {
		t.Errorf("of the replaced log: %+v", got)
	}
	shown(old, `"and longer"`, 50)
	store, err := storage.Open(storage.Options{Dir: old, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	alone, err := tamperlog.Verify(t.Context(), store, tamperlog.VerifyOptions{})
	if err != nil || !alone.OK() {
		t.Errorf("the replacement by itself: %+v, %v", alone.Problems, err)
	}
	withPeer, err := tamperlog.Verify(t.Context(), store, tamperlog.VerifyOptions{Witnessed: kept})
	if err != nil || withPeer.OK() {
		t.Errorf("the replacement against what its peer keeps: %+v, %v", withPeer, err)
	}
}
