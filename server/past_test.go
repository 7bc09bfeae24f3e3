package server

import (
	"fmt"
	"testing"
	"time"

	"kvs/auth"
	"kvs/config"
	"kvs/types"
)

// Older versions are read by their id or by a time, and written again.
func TestPast(t *testing.T) {
	n := startNode(t)
	var ids []string
	var times []int64
	for i := range 3 {
		a := n.do("PUT", "/kv/k", fmt.Sprintf(`{"n":%d}`, i))
		ids = append(ids, a.member("uuid"))
		ms, err := a.object(t)["timestamp"].(interface{ Int64() (int64, error) }).Int64()
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, ms)
		for n.store.Now().UnixMilli() <= ms { // the next version has a millisecond of its own
			time.Sleep(100 * time.Microsecond)
		}
	}
	n.want(n.do("DELETE", "/kv/k", ""), 204, "")
	n.want(n.do("GET", "/kv/k", ""), 404, "key_not_found")

	for i, id := range ids {
		want := fmt.Sprintf(`{"n":%d}`, i)
		for _, query := range []string{"revision=" + id, fmt.Sprint("at=", times[i]), "at=" + time.UnixMilli(times[i]).UTC().Format("2006-01-02T15:04:05.000Z07:00")} {
			a := n.do("GET", "/kv/k?raw&"+query, "")
			if n.want(a, 200, ""); a.body != want || a.header.Get("Etag") != `"`+id+`"` {
				t.Errorf("%s gives %s, %s; want %s", query, a.body, a.header.Get("Etag"), want)
			}
		}
	}
	n.want(n.do("GET", fmt.Sprint("/kv/k?at=", times[0]-1), ""), 404, "revision_not_found")
	n.want(n.do("GET", fmt.Sprint("/kv/k?at=", n.store.Now().UnixMilli()), ""), 404, "key_not_found") // it was deleted by then
	n.want(n.do("GET", "/kv/k?revision=01890a5d-ac96-774b-bcce-b302099a8057", ""), 404, "revision_not_found")
	for _, bad := range []string{"revision=", "revision=x", "at=", "at=yesterday", "revision=" + ids[0] + "&at=1", "restore=" + ids[0]} {
		n.want(n.do("GET", "/kv/k?"+bad, ""), 400, "")
	}

	a := n.do("POST", "/kv/k?restore="+ids[1], "")
	n.want(a, 201, "")
	if got := n.do("GET", "/kv/k?raw", ""); got.body != `{"n":1}` || a.member("uuid") == ids[1] {
		t.Errorf("restored as %s, version %s", got.body, a.member("uuid"))
	}
	n.want(n.do("POST", "/kv/k?restore="+ids[0], "", "If-Match", `"`+ids[1]+`"`), 412, "precondition_failed")
	n.want(n.do("POST", "/kv/k?restore="+ids[0], "1"), 400, "invalid_body")
	n.want(n.do("POST", "/kv/k?restore=nothing", ""), 400, "")
	n.want(n.do("PUT", "/kv/k?metadata&restore="+ids[0], ""), 400, "")
	deleted := ""
	for _, v := range n.do("GET", "/kv/k?revisions", "").object(t)["revisions"].([]any) {
		if v := v.(map[string]any); v["deleted"] == true {
			deleted = v["uuid"].(string)
		}
	}
	n.want(n.do("POST", "/kv/k?restore="+deleted, ""), 400, "invalid_parameter")
	n.want(n.do("GET", "/kv/k?revision="+deleted, ""), 404, "key_not_found")

	off := startNode(t, func(c *config.Config) { c.RevisionHistoryEnabled = false })
	off.do("PUT", "/kv/k", "1")
	for _, call := range [][2]string{{"GET", "?revision=" + ids[0]}, {"GET", "?at=1"}, {"POST", "?restore=" + ids[0]}} {
		off.want(off.do(call[0], "/kv/k"+call[1], ""), 404, "feature_disabled")
	}
}

// What has expired is not read by the back door, and bytes stay bytes.
func TestPastOfTheExpired(t *testing.T) {
	n := startNode(t)
	short := n.do("PUT", "/kv/k?ttl=1ms", "1").member("uuid")
	for {
		if a := n.do("GET", "/kv/k", ""); a.status == 404 {
			break
		}
	}
	n.want(n.do("GET", "/kv/k?revision="+short, ""), 404, "key_not_found")
	n.want(n.do("POST", "/kv/k?restore="+short, ""), 400, "invalid_parameter")
	bytes := n.do("PUT", "/kv/b", "\x00\xff", "Content-Type", "image/png").member("uuid")
	n.do("PUT", "/kv/b", "1")
	n.want(n.do("POST", "/kv/b?restore="+bytes+"&ttl=1h", ""), 200, "")
	a := n.do("GET", "/kv/b?raw", "")
	if a.body != "\x00\xff" || a.header.Get("Content-Type") != "image/png" {
		t.Errorf("%q, %s", a.body, a.header.Get("Content-Type"))
	}
	if n.do("GET", "/kv/b", "").object(t)["expires_at"] == nil {
		t.Error("the ttl of a restore was not taken")
	}
}

// Restoring is reading and writing, and needs the rights for both.
func TestPastNeedsPermission(t *testing.T) {
	n := secureNode(t)
	ann := n.addUser("ann")
	n.have("k", "1", types.Meta{Owner: ann, Group: auth.Root, Mode: 0o7777 & 0b1111_0000_0000})
	first := n.as(n.root(), "GET", "/kv/k", "").member("uuid")
	n.want(n.as(n.token(ann, "write"), "PUT", "/kv/k", "2"), 200, "")
	n.want(n.as(n.token(ann, "write"), "POST", "/kv/k?restore="+first, ""), 403, "forbidden")
	n.want(n.as(n.token(ann, "read", "write"), "POST", "/kv/k?restore="+first, ""), 200, "")
	other := n.token(n.addUser("bob"), "read", "write")
	absent := n.as(other, "GET", "/kv/none?revision="+first, "")
	if a := n.as(other, "GET", "/kv/k?revision="+first, ""); a.status != 404 || a.body != absent.body {
		t.Errorf("a hidden version answers %d %s, an absent one %d %s", a.status, a.code(), absent.status, absent.code())
	}
}
