package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/auth"
)

// TestAuthBodies: what is not exactly the body of a call changes nothing.
func TestAuthBodies(t *testing.T) {
	n := secureNode(t)
	root := n.root()
	user := n.addUser("ann")
	n.have("k", "1", metaOf(t, "root", "root", "cdwr:--wr:---r"))
	deep := strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000)
	huge := strings.Repeat(" ", maxSmallBody)
	common := []string{"", " ", "null", "[]", "1", `"x"`, "{", "}", "{}", `{"x":1}`, "\xff", "\x00", "{}{}", `{"nickname"}`, "<a/>", "nickname=x", deep, strings.Repeat(deep, 2),
		huge + "{", `{"a":` + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5001), "\ufeff{}", "{}\x00"}
	calls := map[string]struct {
		method, good string
		bad          []string
	}{
		"/auth/users":  {"POST", `{"nickname":"good %d"}`, nil},
		"/auth/groups": {"POST", `{"nickname":"good %d"}`, nil},
		"/auth/tokens": {"POST", `{"user_uuid":"` + user + `","scopes":["read","write:users/"],"expires_in":"%dm"}`, []string{
			`{"scopes":null}`, `{"scopes":[]}`, `{"scopes":"read"}`, `{"scopes":{}}`, `{"scopes":[1]}`, `{"scopes":[null]}`, `{"scopes":[["read"]]}`, `{"scopes":[""]}`,
			`{"scopes":["Read"]}`, `{"scopes":["read "]}`, `{"scopes":[" read"]}`, `{"scopes":["read:"]}`, `{"scopes":[":p"]}`, `{"scopes":["read:/"]}`, `{"scopes":["read:/a"]}`,
			`{"scopes":["read:a//b"]}`, `{"scopes":["read:.."]}`, `{"scopes":["read:a/../b"]}`, `{"scopes":["read:a\u0000"]}`, `{"scopes":["read:a\n"]}`,
			`{"scopes":["read:` + "\xff" + `"]}`, `{"scopes":["read","read"]}`, `{"scopes":["read","unknown"]}`, `{"scopes":["*"]}`, `{"scopes":["read,write"]}`, `{"scopes":["read write"]}`,
			`{"scopes":["read:` + strings.Repeat("x", 1025) + `"]}`, `{"scopes":["read"],"scopes":["admin"]}`, `{"scopes":["read"],"Scopes":["admin"]}`, `{"scopes":["read"],"\u0073copes":["admin"]}`,
			`{"scopes":["read"],"ſcopes":["admin"]}`, `{"scopes":["read"]` + strings.Repeat(`,"x":1`, 2000) + `}`,
			`{"scopes":["read"],"expires_in":""}`, `{"scopes":["read"],"expires_in":"0"}`, `{"scopes":["read"],"expires_in":"0s"}`, `{"scopes":["read"],"expires_in":"-1h"}`,
			`{"scopes":["read"],"expires_in":"1ms"}`, `{"scopes":["read"],"expires_in":"999ms"}`, `{"scopes":["read"],"expires_in":"11y"}`, `{"scopes":["read"],"expires_in":"3651d"}`,
			`{"scopes":["read"],"expires_in":"100000000h"}`, `{"scopes":["read"],"expires_in":"9223372036854775807ns"}`, `{"scopes":["read"],"expires_in":"1e3h"}`, `{"scopes":["read"],"expires_in":"1"}`,
			`{"scopes":["read"],"expires_in":3600}`, `{"scopes":["read"],"expires_in":["1h"]}`, `{"scopes":["read"],"expires_in":"NaN"}`, `{"scopes":["read"],"expires_in":"1h "}`, `{"scopes":["read"],"expires_in":"Inf"}`,
			`{"scopes":["read"],"user_uuid":1}`, `{"scopes":["read"],"user_uuid":{}}`, `{"scopes":["read"],"user":"x"}`, `{"scopes":["read"],"sub":"root"}`, `{"scopes":["read"],"jti":"x"}`,
			`{"scopes":` + fmt.Sprintf("[%s]", strings.Repeat(`"read:`+strings.Repeat("x", 500)+`",`, 1)+manyScopes(20)) + `}`,
		}},
		"/kv/k?metadata": {"PUT", `{"ttl":"%dh"}`, []string{
			`{"mode":"rwx"}`, `{"mode":""}`, `{"mode":4095}`, `{"mode":"cdwr:cdwr:cdwr:cdwr"}`, `{"mode":"cdwr:cdwr"}`, `{"mode":"CDWR:----:----"}`, `{"mode":"rwdc:----:----"}`, `{"mode":"cdwr:----:----\n"}`,
			`{"owner":null}`, `{"owner":""}`, `{"owner":1}`, `{"owner":"nobody"}`, `{"owner":"00000000-0000-0000-0000-000000000000"}`, `{"owner":"Root"}`, `{"owner":"root "}`,
			`{"group":"anonymous"}`, `{"group":""}`, `{"group":"nobody"}`, `{"group":"` + user + `"}`, `{"ttl":""}`, `{"ttl":"-1h"}`, `{"ttl":"x"}`, `{"ttl":1}`, `{"ttl":"101y"}`, `{"ttl":"876001h"}`, `{"ttl":"1us"}`,
			`{"ttl":"1h","ttl":"2h"}`, `{"content_type":"x"}`, `{"data":1}`, `{"uuid":"x"}`,
		}},
	}
	for path, c := range calls {
		before := n.everything()
		for _, body := range append(append([]string{}, common...), c.bad...) {
			a := n.as(root, c.method, path, body)
			if a.status != 400 || a.code() != "invalid_body" && a.code() != "bad_request" {
				t.Errorf("%s %s %.80q: %d %s", c.method, path, body, a.status, a.body)
			}
		}
		for _, tail := range []string{"{}", "x", ",", "]", "\x00", "\"", "1", "null", "\ufeff"} {
			n.want(n.as(root, c.method, path, fmt.Sprintf(c.good, 5)+tail), 400, "invalid_body")
		}
		n.want(n.as(root, c.method, path+pick1(path)+"x=1", fmt.Sprintf(c.good, 5)), 400, "invalid_parameter")
		n.want(n.as(root, c.method, path, fmt.Sprintf(c.good, 5)+strings.Repeat(" ", maxSmallBody)), 400, "bad_request")
		if after := n.everything(); before != after {
			t.Errorf("%s: a refused body changed something:\n%s\n%s", path, before, after)
		}
		if a := n.as(root, c.method, path, " \n"+fmt.Sprintf(c.good, 5)+"\t"); a.status >= 300 {
			t.Errorf("%s: the good body: %d %s", path, a.status, a.body)
		}
	}
	// Calls that take none.
	for _, path := range []string{"/auth/me", "/auth/users", "/auth/groups", "/auth/tokens", "/auth/users/" + user, "/auth/tokens/x", "/auth/groups/x"} {
		n.want(n.as(root, "GET", path+"?x", ""), 400, "invalid_parameter")
		n.want(n.as(root, "GET", path+"?%zz", ""), 400, "invalid_parameter")
	}
}

func manyScopes(k int) string {
	var list []string
	for i := range k {
		list = append(list, fmt.Sprintf(`"read:%d%s"`, i, strings.Repeat("x", 500)))
	}
	return strings.Join(list, ",")
}

func pick1(path string) string {
	if strings.Contains(path, "?") {
		return "&"
	}
	return "?"
}

// everything is what an admin sees of users, groups and tokens, and the keys.
func (n *testNode) everything() string {
	root, _ := n.store.Tree().Root()
	var b strings.Builder
	token := n.root() // not noted, and so not listed
	for _, path := range []string{"/auth/users", "/auth/groups", "/auth/tokens"} {
		b.WriteString(n.as(token, "GET", path, "").body)
	}
	return fmt.Sprintf("%x %s", root, b.String())
}

func TestNicknames(t *testing.T) {
	n := secureNode(t)
	root := n.root()
	quoted := func(s string) string { b, _ := json.Marshal(map[string]string{"nickname": s}); return string(b) }
	for _, what := range []string{"users", "groups"} {
		missing := map[string]string{"users": "user_not_found", "groups": "group_not_found"}[what]
		for _, good := range []string{"a", "Ann", "ann b", "é", "日本", "a/b", "a%2Fb", "..", ".", "?", "#", "_x", "a:b", `a"b\`, "<script>", strings.Repeat("é", 64), "0", "null", "😀"} {
			a := n.as(root, "POST", "/auth/"+what, quoted(good))
			if n.want(a, 201, ""); a.status != 201 {
				continue
			}
			n.want(n.as(root, "POST", "/auth/"+what, quoted(good)), 409, "name_taken")
			found := n.as(root, "GET", "/auth/"+what+"/"+escaped(good), "")
			if n.want(found, 200, ""); found.member("uuid") != a.member("uuid") || found.member("nickname") != good {
				t.Errorf("%q is found as %s", good, found.body)
			}
			n.want(n.as(root, "DELETE", "/auth/"+what+"/"+escaped(good), ""), 204, "")
			n.want(n.as(root, "DELETE", "/auth/"+what+"/"+escaped(good), ""), 404, missing)
			n.want(n.as(root, "GET", "/auth/"+what+"/"+a.member("uuid"), ""), 404, missing)
			n.want(n.as(root, "POST", "/auth/"+what, quoted(good)), 201, "") // free again
		}
		for _, bad := range []string{"", " ", " a", "a ", "a\t", "a\nb", "a\x00b", "\u0085", "a\u200bb", "\u202ea", "root", "ROOT", "anonymous", "Anonymous",
			strings.Repeat("é", 65), strings.Repeat("a", 1000), "0190b6c2-0000-7000-8000-000000000000", "0190B6C2-0000-7000-8000-000000000000",
			"{0190b6c2-0000-7000-8000-000000000000}", "urn:uuid:0190b6c2-0000-7000-8000-000000000000", "0190b6c2000070008000000000000000"} {
			n.want(n.as(root, "POST", "/auth/"+what, quoted(bad)), 400, "invalid_body")
		}
		for _, body := range []string{`{"nickname":"` + "\xff" + `"}`, `{"nickname":"a","nickname":"b"}`, `{"nickname":"a","NICKNAME":"b"}`, `{"nickname":["a"]}`, `{"nickname":null}`, `{"nickname":1}`} {
			n.want(n.as(root, "POST", "/auth/"+what, body), 400, "invalid_body")
		}
		for _, none := range []string{"nobody", "root", "anonymous", "%00", "%FF", "a%0Ab", strings.Repeat("x", 3000), "0190b6c2-0000-7000-8000-000000000000"} {
			for _, method := range []string{"GET", "DELETE"} {
				n.want(n.as(root, method, "/auth/"+what+"/"+none, ""), 404, missing)
			}
		}
	}
}

// escaped is a name as a part of a path, dots included: a client would drop them.
func escaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// TestNicknameIsGivenOnce: of many at once, one gets it.
func TestNicknameIsGivenOnce(t *testing.T) {
	n := secureNode(t)
	root := n.root()
	for round := range 5 {
		statuses := make([]int, 12)
		var wg sync.WaitGroup
		for i := range statuses {
			wg.Go(func() {
				statuses[i] = n.as(root, "POST", "/auth/users", fmt.Sprintf(`{"nickname":"name %d"}`, round)).status
			})
		}
		wg.Wait()
		slices.Sort(statuses)
		if want := append([]int{201}, slices.Repeat([]int{409}, 11)...); !slices.Equal(statuses, want) {
			t.Errorf("round %d: %v", round, statuses)
		}
	}
	// One that two nodes gave away is ambiguous, and its UUIDs are not.
	other := auth.NewDirectory(nil)
	_, changes, err := other.NewUser("name 0")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.change(requestAs(t, everybody), func() ([]auth.Change, error) { return changes, nil }); err != nil {
		t.Fatal(err)
	}
	a := n.as(root, "GET", "/auth/users/name%200", "")
	if n.want(a, 400, "invalid_parameter"); !strings.Contains(a.body, "UUID") {
		t.Errorf("ambiguous: %s", a.body)
	}
	n.want(n.as(root, "DELETE", "/auth/users/name%200", ""), 400, "invalid_parameter")
	n.want(n.as(root, "POST", "/auth/tokens", `{"user_uuid":"name 0","scopes":["read"]}`), 400, "")
}

func TestTokens(t *testing.T) {
	n := secureNode(t)
	root, ann := n.root(), n.addUser("ann")
	group := n.addGroup("g", ann)
	made := func(body string) (token, id string, expires int64) {
		t.Helper()
		a := n.as(root, "POST", "/auth/tokens", body)
		n.want(a, 201, "")
		var m struct {
			Token, JTI string
			Expires    int64 `json:"expires_at"`
		}
		if err := json.Unmarshal([]byte(a.body), &m); err != nil || m.Token == "" || m.JTI == "" {
			t.Fatalf("%v: %s", err, a.body)
		}
		return m.Token, m.JTI, m.Expires
	}
	near := func(expires int64, life time.Duration) {
		t.Helper()
		if d := time.Until(time.UnixMilli(expires)) - life; d > time.Second || d < -20*time.Second {
			t.Errorf("expires %v off", d)
		}
	}
	token, id, expires := made(`{"user_uuid":"ann","scopes":["read","write:users/"],"expires_in":"15m"}`)
	near(expires, 15*time.Minute)
	_, _, expires = made(`{"scopes":["jobs"]}`)
	near(expires, 24*time.Hour)
	_, _, expires = made(`{"scopes":["jobs:q"],"expires_in":"3650d"}`)
	near(expires, 3650*24*time.Hour)
	made(`{"scopes":["read:a/b","read:a/b/","admin:x y"],"expires_in":"1s"}`)

	me := n.as(token, "GET", "/auth/me", "")
	if want := fmt.Sprintf(`{"subject":%q,"nickname":"ann","groups":[%q],"scopes":["read","write:users/"],"jti":%q,"expires_at":`, ann, group, id); !strings.HasPrefix(me.body, want) {
		t.Errorf("me: %s, want %s", me.body, want)
	}
	list := n.as(root, "GET", "/auth/tokens", "")
	if one := n.as(root, "GET", "/auth/tokens/"+id, ""); one.status != 200 || one.member("subject") != ann || !strings.Contains(list.body, id) {
		t.Errorf("one: %s\nall: %s", one.body, list.body)
	}
	for _, part := range append(strings.Split(token, "."), token) {
		if strings.Contains(list.body+me.body, part) {
			t.Errorf("a part of a token is listed: %s", part)
		}
	}
	// A token cannot make itself stronger, nor see others.
	for _, scope := range [][]string{{"read", "write", "jobs", "admin:a/"}} {
		weak := n.token(ann, scope...)
		n.want(n.as(weak, "POST", "/auth/tokens", `{"scopes":["admin"]}`), 403, "forbidden")
		n.want(n.as(weak, "DELETE", "/auth/tokens/"+id, ""), 403, "forbidden")
		n.want(n.as(weak, "GET", "/auth/users/"+ann, ""), 403, "forbidden")
	}
	// Nobody learns the names of users by giving keys to them.
	writer := n.token(ann, "write", "read")
	n.have("theirs", "1", metaOf(t, "root", "root", "cdwr:----:----"))
	n.have("shown", "1", metaOf(t, "root", "root", "cdwr:----:---r"))
	for _, field := range []string{"owner", "group"} {
		for _, name := range []string{"ann", "g", ann, "nobody"} {
			body := fmt.Sprintf(`{%q:%q}`, field, name)
			n.want(n.as(writer, "PUT", "/kv/theirs?metadata", body), 404, "key_not_found")
			n.want(n.as(writer, "PUT", "/kv/never?metadata", body), 404, "key_not_found")
			n.want(n.as(writer, "PUT", "/kv/shown?metadata", body), 403, "forbidden")
		}
	}

	// Revoking: by id, once; a mistyped id is told from one that is not listed.
	_, unlisted := n.tokenAndID(ann, "read")
	n.want(n.as(root, "GET", "/auth/tokens/"+unlisted, ""), 404, "token_not_found")
	n.want(n.as(root, "DELETE", "/auth/tokens/"+unlisted, ""), 204, "")
	for _, wrong := range []string{"x", unlisted[:31], unlisted + "A", strings.ToLower(unlisted), flipped(unlisted), token, "%00", "%FF", strings.Repeat("A", 3000), ann, unlisted} {
		n.want(n.as(root, "DELETE", "/auth/tokens/"+wrong, ""), 404, "token_not_found")
	}
	n.want(n.as(token, "GET", "/kv/x", ""), 404, "key_not_found")
	n.want(n.as(root, "DELETE", "/auth/tokens/"+id, ""), 204, "")
	n.want(n.as(token, "GET", "/kv/x", ""), 401, "unauthorized")
	if strings.Contains(n.as(root, "GET", "/auth/tokens", "").body, id) {
		t.Error("a revoked token is listed")
	}
	// An admin can revoke the token in their hand.
	self, selfID := n.tokenAndID("root", "admin")
	n.want(n.as(self, "DELETE", "/auth/tokens/"+selfID, ""), 204, "")
	n.want(n.as(self, "GET", "/auth/me", ""), 401, "unauthorized")
}

func flipped(id string) string {
	if id[0] == 'A' {
		return "B" + id[1:]
	}
	return "A" + id[1:]
}
