package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"kvs/auth"
	"kvs/features/tamperlog"
	"kvs/types"
)

// TestTamperLogSaysWhoDidWhat makes every kind of change over HTTP, and looks at
// what the log keeps of each.
func TestTamperLogSaysWhoDidWhat(t *testing.T) {
	n := secureNode(t)
	ann := n.addUser("ann")
	token, id := n.tokenAndID(ann, "read", "write")
	admin, adminID := n.tokenAndID(auth.Root, "admin")
	uuidOf := func(key string) string {
		rec, _ := n.store.Lookup(types.DataRef(types.Key(key)))
		return rec.UUID.String()
	}
	none := types.VersionID{}.String()
	// next gives what the log got since it was asked before.
	at := len(n.audited())
	next := func() (lines []string) {
		t.Helper()
		for _, e := range n.since(at) {
			at++
			if e.By.Address != "127.0.0.1" {
				t.Errorf("from %q: %+v", e.By.Address, e)
			}
			who := map[string]string{ann + id: "ann", "root" + adminID: "admin", "": "nobody"}[e.By.Subject+e.By.Token]
			lines = append(lines, strings.ReplaceAll(fmt.Sprintf("%s %s %s:%s %s->%s", who, e.Action, e.NS, e.Key, e.Before, e.After), none, "0"))
		}
		return lines
	}
	is := func(what string, want ...string) {
		t.Helper()
		if got := next(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}

	n.want(n.as(token, "PUT", "/kv/a/b", "1"), 201, "")
	first := uuidOf("a/b")
	is("create", "ann put data:a/b 0->"+first)
	n.want(n.as(admin, "PUT", "/kv/a/b", "2"), 200, "")
	second := uuidOf("a/b")
	is("overwrite", "admin put data:a/b "+first+"->"+second)
	n.want(n.as(token, "PUT", "/kv/a/b?metadata", `{"mode":"cdwr:----:----"}`), 200, "")
	third := uuidOf("a/b")
	is("chmod", "ann metadata data:a/b "+second+"->"+third)
	n.want(n.as(token, "GET", "/kv/a/b", ""), 200, "")
	n.want(n.as(token, "GET", "/kv/_range", ""), 200, "")
	is("reads")
	n.want(n.as(token, "DELETE", "/kv/a/b", ""), 204, "")
	fourth := uuidOf("a/b")
	is("delete", "ann delete data:a/b "+third+"->"+fourth)
	n.want(n.as(token, "POST", "/kv/_batch", `{"atomic":true,"ops":[{"op":"put","key":"a/b","data":1},{"op":"get","key":"a/b"},{"op":"put","key":"c","data":1}]}`), 200, "")
	is("batch", "ann put data:a/b "+fourth+"->"+uuidOf("a/b"), "ann put data:c 0->"+uuidOf("c"))
	c := uuidOf("c")
	n.want(n.as(token, "DELETE", "/kv/_range?prefix=c", ""), 200, "")
	is("range", "ann delete data:c "+c+"->"+uuidOf("c"))

	// Users, groups, tokens and revocations are changes like all others.
	list := func(name string) (keys []string) {
		t.Helper()
		for _, line := range next() {
			f := strings.Fields(line)
			if f[0] != "admin" {
				t.Errorf("%s: not by the admin: %s", name, line)
			}
			keys = append(keys, f[1]+" "+strings.NewReplacer(ann, "ANN").Replace(f[2]))
		}
		return keys
	}
	group := n.as(admin, "POST", "/auth/groups", `{"nickname":"g"}`).member("uuid")
	made := n.as(admin, "POST", "/auth/tokens", `{"user_uuid":"ann","scopes":["read"]}`)
	n.want(n.as(admin, "PUT", "/auth/groups/g/members/ann", ""), 204, "")
	n.want(n.as(admin, "PUT", "/auth/groups/g/members/ann", ""), 204, "") // changes nothing
	n.want(n.as(admin, "DELETE", "/auth/groups/g/members/ann", ""), 204, "")
	n.want(n.as(admin, "DELETE", "/auth/groups/g", ""), 204, "")
	n.want(n.as(admin, "DELETE", "/auth/tokens/"+made.member("jti"), ""), 204, "")
	n.want(n.as(admin, "DELETE", "/auth/users/ann", ""), 204, "")
	got := strings.Join(list("users"), "\n")
	want := strings.Join([]string{
		"put auth:group/" + group, "put auth:token/" + made.member("jti"), "put auth:member/" + group + "/ANN", "delete auth:member/" + group + "/ANN",
		"put auth:deleted/" + group, "delete auth:group/" + group, "put auth:revoked/" + made.member("jti"), "put auth:deleted/ANN", "delete auth:user/ANN",
	}, "\n")
	if got != want {
		t.Errorf("changes of users:\n%s\nwant\n%s", got, want)
	}
	for _, token := range []string{token, admin, made.member("token")} {
		for _, part := range append(strings.Split(token, ".")[1:], token) {
			if strings.Contains(fmt.Sprintf("%+v", n.audited()), part) {
				t.Errorf("a part of a token is in the log: %s", part)
			}
		}
	}
}

func TestTamperLogKeepsRefusals(t *testing.T) {
	n := secureNode(t)
	ann := n.addUser("ann")
	token, id := n.tokenAndID(ann, "read", "write:w/")
	n.have("hidden", "1", metaOf(t, "root", "root", "cdwr:----:----"))
	n.have("shown", "1", metaOf(t, "root", "root", "cdwr:----:---r"))
	n.have("w/shown", "1", metaOf(t, "root", "root", "cdwr:----:---r"))
	n.have("w/hidden", "1", metaOf(t, "root", "root", "cdwr:----:----"))
	n.have("w/blind", "1", metaOf(t, "root", "root", "cdwr:----:--w-"))
	at := len(n.audited())
	is := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, e := range n.since(at) {
			at++
			if e.Action != tamperlog.ActionRefused || e.By.Address != "127.0.0.1" || e.By.Subject != "" && (e.By.Subject != ann || e.By.Token != id) || e.Count == 0 {
				t.Errorf("%s: %+v", what, e)
			}
			who := "ann"
			if e.By.Subject == "" {
				who = "nobody"
			}
			got = append(got, fmt.Sprintf("%s %s %s %d", who, e.Key, e.Detail, e.Count))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	n.do("GET", "/kv/hidden", "")
	n.do("GET", "/auth/users", "")
	n.do("GET", "/kv//x", "")
	n.as("garbage", "PATCH", "/nothing", "")
	n.as(token[:len(token)-1], "GET", "/kv/hidden", "")
	is("401", "nobody hidden unauthorized 2", "nobody GET /auth/users unauthorized 1", "nobody /x unauthorized 1", "nobody PATCH /nothing unauthorized 1")
	n.do("GET", "/kv/"+strings.Repeat("x", 1000), "")
	is("a stranger's long path", "nobody "+strings.Repeat("x", maxStrange)+" unauthorized 1")
	n.as(token, "GET", "/auth/users", "")
	n.as(token, "PUT", "/kv/shown", "1")
	n.as(token, "PUT", "/kv/w/shown", "1")
	n.as(token, "DELETE", "/kv/w/shown", "")
	n.as(token, "PUT", "/kv/w/shown?metadata", `{"mode":"cdwr:cdwr:cdwr"}`)
	n.as(token, "GET", "/admin/audit", "")
	is("403", "ann GET /auth/users forbidden 1", "ann shown forbidden 1", "ann w/shown forbidden 3", "ann GET /admin/audit forbidden 1")
	// Hidden is 404 to the caller and forbidden to the log; absent is nothing.
	for _, path := range []string{"/kv/hidden", "/kv/hidden?raw", "/kv/hidden?metadata", "/kv/hidden?revisions", "/kv/absent", "/kv/absent?revisions"} {
		n.want(n.as(token, "GET", path, ""), 404, "key_not_found")
	}
	n.want(n.as(token, "HEAD", "/kv/hidden", ""), 404, "")
	is("hidden", "ann hidden forbidden 5")
	n.want(n.as(token, "DELETE", "/kv/w/hidden", ""), 404, "")
	n.want(n.as(token, "PUT", "/kv/w/hidden?metadata", `{"ttl":"1s"}`), 404, "")
	n.want(n.as(token, "DELETE", "/kv/w/absent", ""), 404, "")
	is("hidden writes", "ann w/hidden forbidden 2")
	// In a batch each operation counts, and the batch is no attempt of its own.
	ops := `[{"op":"get","key":"hidden"},{"op":"get","key":"absent"},{"op":"put","key":"w/shown","data":1},{"op":"delete","key":"w/hidden"},{"op":"put","key":"beyond","data":1},{"op":"x","key":"y"}]`
	n.want(n.as(token, "POST", "/kv/_batch", `{"ops":`+ops+`}`), 200, "")
	is("batch", "ann hidden forbidden 1", "ann w/shown forbidden 1", "ann w/hidden forbidden 1", "ann beyond forbidden 1")
	n.want(n.as(token, "POST", "/kv/_batch", `{"atomic":true,"ops":[{"op":"put","key":"w/new","data":1},{"op":"put","key":"w/shown","data":1}]}`), 403, "")
	n.want(n.as(token, "POST", "/kv/_batch", `{"atomic":true,"ops":[{"op":"get","key":"hidden"}]}`), 404, "")
	is("atomic batch", "ann w/shown forbidden 1", "ann hidden forbidden 1")
	n.want(n.as(n.token(ann, "jobs"), "POST", "/kv/_batch", `{"ops":[]}`), 403, "")
	at = len(n.audited())
	// A condition that fails says nothing of the version to whoever may not read.
	for _, path := range []string{"/kv/w/blind", "/kv/w/blind?metadata"} {
		for _, header := range [][]string{{"If-None-Match", "*"}, {"If-Match", noVersion}} {
			if strings.Contains(path, "metadata") && header[0] == "If-None-Match" {
				continue
			}
			a := n.as(token, "PUT", path, `{"ttl":"0"}`, header...)
			rec, err := n.store.Get(types.DataRef("w/blind"))
			if n.want(a, 412, "precondition_failed"); err != nil || strings.Contains(a.body, rec.UUID.String()) {
				t.Errorf("%s %v: %s", path, header, a.body)
			}
		}
	}
	is("conditions")

	// Over HTTP the log says the same, to an admin.
	var page struct {
		Entries []AuditEntry
		Next    uint64 `json:"next_after"`
	}
	a := n.as(n.root(), "GET", "/admin/audit?action=refused&who="+ann+"&key=w/&limit=1000", "")
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != 200 || len(page.Entries) == 0 {
		t.Fatalf("%v: %d %s", err, a.status, a.body)
	}
	for _, e := range page.Entries {
		if e.Who != ann || e.Token != id || e.From != "127.0.0.1" || e.Action != "refused" || !strings.HasPrefix(e.Key, "w/") || e.Detail != "forbidden" || e.Before+e.After != "" {
			t.Errorf("%+v", e)
		}
	}
	for _, query := range []string{"action=x", "after=x", "after=-1", "since=x", "until=1e3", "limit=0", "limit=1001", "n=1", "who=a&who=b"} {
		n.want(n.as(n.root(), "GET", "/admin/audit?"+query, ""), 400, "invalid_parameter")
	}
	n.want(n.as(n.root(), "GET", "/admin/audit/witnessed", ""), 400, "invalid_parameter")
}

// TestTamperLogUnderFlood: strangers cannot fill the log, and what was left out
// is counted.
func TestTamperLogUnderFlood(t *testing.T) {
	n := secureNode(t)
	first, start := len(n.audited()), time.Now()
	const attempts = 3000
	for i := range attempts {
		req, err := http.NewRequest("GET", fmt.Sprintf("http://h/kv/%d", i), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.RemoteAddr = "192.0.2.1:1"
		w := &statusOnly{header: http.Header{}}
		if n.ServeHTTP(w, req); w.status != 401 {
			t.Fatalf("attempt %d: %d", i, w.status)
		}
	}
	// What is only counted is written when a second is over.
	var listed, counted uint64
	eventually(t, "all attempts are in the log", func() bool {
		listed, counted = 0, 0
		for _, e := range n.since(first) {
			switch e.Action {
			case tamperlog.ActionRefused:
				listed += e.Count
			case tamperlog.ActionGap:
				counted += e.Count
			}
		}
		return listed+counted == attempts
	})
	if most := uint64(100 * (int(time.Since(start).Seconds()) + 2)); listed > most || counted == 0 {
		t.Errorf("%d attempts are listed, at most %d were to be; %d are counted", listed, most, counted)
	}
}
