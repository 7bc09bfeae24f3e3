package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"kvs/auth"
	"kvs/config"
	"kvs/storage"
	"kvs/types"
)

// owned gives owner, group and mode of a key.
func (n *testNode) owned(key string) string {
	n.t.Helper()
	rec, err := n.store.Get(types.DataRef(types.Key(key)))
	if err != nil {
		n.t.Fatalf("%s: %v", key, err)
	}
	return rec.Meta.Owner + " " + rec.Meta.Group + " " + auth.FormatMode(rec.Meta.Mode)
}

func TestNewKeys(t *testing.T) {
	n := secureNode(t, func(c *config.Config) { c.AllowAnonymousWrite = true })
	ann := n.addUser("ann")
	group := n.addGroup("g", ann)
	annToken := n.token(ann, "write")
	is := func(key, want string) {
		t.Helper()
		if got := n.owned(key); got != want {
			t.Errorf("%s has %q, want %q", key, got, want)
		}
	}
	put := func(token, key string) {
		t.Helper()
		n.want(n.as(token, "PUT", kvPath(key), `1`), 201, "")
	}
	const def = "cdwr:--wr:---r"
	put(annToken, "x/y")
	is("x/y", ann+" root "+def)
	put(n.root(), "r")
	is("r", "root root "+def)
	put("", "z")
	is("z", "anonymous root "+def)
	put(n.token(ann, "admin"), "ax")
	is("ax", ann+" root "+def)

	// The nearest key above decides, and passes on its group and mode, not its
	// owner.
	n.have("a", "1", metaOf(t, "root", group, "----:c---:c---"))
	n.have("a/b/c", "1", metaOf(t, "root", group, "----:c-w-:----"))
	put(annToken, "a/b/c/d/e")
	is("a/b/c/d/e", ann+" "+group+" ----:c-w-:----")
	put(annToken, "a/b/c2")
	is("a/b/c2", ann+" "+group+" ----:c---:c---")
	put("", "a/anonymous")
	is("a/anonymous", "anonymous "+group+" ----:c---:c---")
	n.want(n.as("", "PUT", "/kv/a/b/c/d2", `1`), 403, "forbidden")
	put(n.root(), "a/b/c/by-admin")
	is("a/b/c/by-admin", "root "+group+" ----:c-w-:----")
	// What was deleted or has expired is not above anything any more.
	n.want(n.as(n.root(), "DELETE", "/kv/a/b/c", ""), 204, "")
	put("", "a/b/c/d2")
	is("a/b/c/d2", "anonymous "+group+" ----:c---:c---")
	gone := n.have("e", "1", metaOf(t, "root", group, "----:----:----"), time.Millisecond)
	eventually(t, "e has expired", func() bool { return n.store.Now().UnixMilli() > gone.ExpiresAt })
	put(annToken, "e/f")
	is("e/f", ann+" root "+def)

	// Overwriting leaves all three, whoever does it; a new life of the key does
	// not.
	n.want(n.as(n.root(), "PUT", "/kv/x/y", `2`), 200, "")
	is("x/y", ann+" root "+def)
	n.want(n.as(annToken, "DELETE", "/kv/x/y", ""), 204, "")
	put("", "x/y")
	is("x/y", "anonymous root "+def)
	put(annToken, "e")
	is("e", ann+" root "+def)
	is("e/f", ann+" root "+def)

	// In a batch each operation sees those before it, and only those.
	n.have("q", "1", metaOf(t, ann, group, "c-w-:----:---r"))
	for _, atomic := range []bool{true, false} {
		k := fmt.Sprint("q/", atomic)
		body := fmt.Sprintf(`{"atomic":%v,"ops":[{"op":"put","key":"%[2]s/late/x","data":1},{"op":"put","key":"%[2]s/late","data":1},{"op":"put","key":"%[2]s/late/y","data":1},
			{"op":"delete","key":"q"},{"op":"put","key":"%[2]s/z","data":1}]}`, atomic, k)
		a := n.as(annToken, "POST", "/kv/_batch", body)
		// q may not be deleted by its owner, and is not there for a token that may not read.
		if got, _ := a.results(t); atomic && got != "424 424 424 404 424" || !atomic && got != "201 201 201 404 201" {
			t.Errorf("atomic %v: %s", atomic, a.body)
		}
	}
	is("q/false/late/y", ann+" "+group+" c-w-:----:---r")
	body := `{"atomic":true,"ops":[{"op":"put","key":"new","data":1},{"op":"put","key":"new/x","data":1},{"op":"delete","key":"new"},{"op":"put","key":"new/y","data":1}]}`
	n.want(n.as(n.token(ann, "write"), "POST", "/kv/_batch", body), 200, "")
	is("new/x", ann+" root "+def)
	// It is gone again, for its owner too.
	n.want(n.as(annToken, "PUT", "/kv/new?metadata", `{"mode":"cdwr:----:----"}`), 404, "key_not_found")

	closed := secureNode(t, func(c *config.Config) { c.DefaultMode = mode(t, "-d-r:--w-:----") })
	closed.want(closed.as(closed.root(), "PUT", "/kv/k", `1`), 201, "")
	if got := closed.owned("k"); got != "root root -d-r:--w-:----" {
		t.Errorf("with another default_mode: %s", got)
	}
}

// TestModeAndWriteInOneOrder: a write that was allowed was made before the change
// of mode that forbids it, however close they were.
func TestModeAndWriteInOneOrder(t *testing.T) {
	n := secureNode(t)
	ann := n.addUser("ann")
	token, root := n.token(ann, "write"), n.root()
	for round := range 25 {
		key := fmt.Sprint("k", round)
		n.have(key, "0", metaOf(t, "root", "root", "cdwr:----:-dwr"))
		var wg sync.WaitGroup
		answers := make([]answer, 4)
		wg.Go(func() { answers[0] = n.as(root, "PUT", "/kv/"+key+"?metadata", `{"mode":"cdwr:----:----"}`) })
		wg.Go(func() { answers[1] = n.as(token, "PUT", "/kv/"+key, `1`) })
		wg.Go(func() {
			answers[2] = n.as(token, "POST", "/kv/_batch", `{"ops":[{"op":"put","key":"`+key+`","data":2}]}`)
		})
		wg.Go(func() { answers[3] = n.as(token, "PUT", "/kv/"+key+"?metadata", `{"ttl":"1h"}`) })
		wg.Wait()
		var history struct{ Revisions []struct{ UUID string } }
		if err := json.Unmarshal([]byte(n.as(root, "GET", "/kv/"+key+"?revisions", "").body), &history); err != nil {
			t.Fatal(err)
		}
		if answers[0].status != 200 || len(history.Revisions) == 0 || history.Revisions[0].UUID != answers[0].member("uuid") {
			t.Errorf("round %d: the newest version is not the change of mode: %s, %v", round, answers[0].body, history)
		}
		for _, a := range answers[1:] {
			if a.status == 200 || a.status == 403 || a.status == 404 {
				continue
			}
			t.Errorf("round %d: %d %s", round, a.status, a.body)
		}
	}
	// A range is deleted as it was seen, not as it has become.
	for i := range 50 {
		n.have(fmt.Sprintf("range/%02d", i), "0", metaOf(t, "root", "root", "cdwr:----:-dwr"))
	}
	page, err := n.store.Scan(t.Context(), storage.ScanOptions{NS: types.NSData, Prefix: "range/", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	n.want(n.as(root, "PUT", "/kv/range/07?metadata", `{"mode":"cdwr:----:----"}`), 200, "")
	if deleted, err := n.deleteAll(requestAs(t, everybody), page.Records); err != nil || deleted != 49 {
		t.Errorf("deleted %d, %v", deleted, err)
	}
	if got := n.owned("range/07"); !strings.Contains(got, "cdwr:----:----") {
		t.Errorf("range/07 has %s", got)
	}
}

// TestWriterCannotEndAKey: without the right to delete there is no way around it
// by way of an expiry, after which the key could be made anew.
func TestWriterCannotEndAKey(t *testing.T) {
	n := secureNode(t)
	ann := n.addUser("ann")
	token := n.token(ann, "write", "read")
	n.have("k", "1", metaOf(t, "root", "root", "cdwr:----:--wr"))
	n.have("hour", "1", metaOf(t, "root", "root", "cdwr:----:--wr"), time.Hour)
	n.have("d", "1", metaOf(t, "root", "root", "cdwr:----:-dw-"))
	try := func(key, ttl string, want int) {
		t.Helper()
		n.want(n.as(token, "PUT", "/kv/"+key+"?ttl="+ttl, "2"), want, "")
		n.want(n.as(token, "PUT", "/kv/"+key, `{"data":2,"ttl":"`+ttl+`"}`), want, "")
		n.want(n.as(token, "PUT", "/kv/"+key+"?metadata", `{"ttl":"`+ttl+`"}`), want, "")
		a := n.as(token, "POST", "/kv/_batch", `{"ops":[{"op":"put","key":"`+key+`","data":2,"ttl":"`+ttl+`"}]}`)
		if got, _ := a.results(t); got != fmt.Sprint(want) {
			t.Errorf("%s for %s in a batch: %s", ttl, key, a.body)
		}
	}
	for _, ttl := range []string{"1ms", "1h", "36500d"} {
		try("k", ttl, 403)
	}
	try("k", "0", 200)
	for _, ttl := range []string{"1ms", "59m"} {
		try("hour", ttl, 403)
	}
	for range 20 {
		try("hour", "1h", 200) // a session goes on
	}
	try("hour", "2h", 200)
	try("hour", "1h", 403)
	try("hour", "0", 200)
	try("hour", "1h", 403)
	try("d", "1h", 200)
	try("d", "59m", 200)
	if rec, err := n.store.Get(types.DataRef("k")); err != nil || rec.ExpiresAt != 0 || rec.Meta.Owner != "root" {
		t.Errorf("%+v, %v", rec, err)
	}
	// What expires by default does so for whoever may delete; others must say 0.
	short := secureNode(t, func(c *config.Config) { c.DefaultTTL = time.Hour })
	short.have("k", "1", metaOf(t, "root", "root", "cdwr:----:--wr"))
	a := short.as(token, "PUT", "/kv/k", "2")
	if short.want(a, 403, "forbidden"); !strings.Contains(a.body, "ttl") {
		t.Error(a.body)
	}
	short.want(short.as(token, "PUT", "/kv/k?ttl=0", "2"), 200, "")
	short.want(short.as(token, "PUT", "/kv/new", "2"), 201, "")
	short.want(short.as(token, "PUT", "/kv/new", "2"), 200, "")
}
