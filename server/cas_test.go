package server

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

// Six clients increment one number by compare-and-set, with singles and with
// batches. None is lost, and the writes that were answered with success form one
// line: each replaced the version that its condition named, and no version was
// replaced twice.
func TestCompareAndSetIsLinear(t *testing.T) {
	n := startNode(t)
	first := n.do("PUT", "/kv/counter", "0").member("uuid")
	const clients, increments = 6, 40
	var mu sync.Mutex // guards next
	next := map[string]string{}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for done := 0; done < increments; {
				cur := n.do("GET", "/kv/counter?raw", "")
				value, err := strconv.Atoi(cur.body)
				if err != nil {
					t.Errorf("the counter is %q", cur.body)
					return
				}
				tag := cur.header.Get("Etag")
				from, to := tag[1:len(tag)-1], ""
				if c%2 == 0 {
					a := n.do("PUT", "/kv/counter", strconv.Itoa(value+1), "If-Match", tag)
					switch a.status {
					case http.StatusOK:
						to = a.member("uuid")
					case http.StatusPreconditionFailed:
						continue
					default:
						t.Errorf("PUT: %d %s", a.status, a.body)
						return
					}
				} else {
					a := n.do("POST", "/kv/_batch", fmt.Sprintf(`{"atomic":true,"ops":[{"op":"put","key":"counter","data":%d,"if_match":%q},{"op":"put","key":"by/%d","data":%d}]}`,
						value+1, from, c, value+1))
					switch a.status {
					case http.StatusOK:
						to = a.object(t)["results"].([]any)[0].(map[string]any)["uuid"].(string)
					case http.StatusPreconditionFailed:
						continue
					default:
						t.Errorf("batch: %d %s", a.status, a.body)
						return
					}
				}
				mu.Lock()
				if next[from] != "" {
					t.Errorf("version %s was replaced by %s and by %s", from, next[from], to)
				}
				next[from] = to
				mu.Unlock()
				done++
			}
		})
	}
	wg.Wait()
	length := 0
	for at := first; next[at] != ""; at = next[at] {
		length++
	}
	if got := n.do("GET", "/kv/counter?raw", "").body; got != strconv.Itoa(clients*increments) || length != clients*increments {
		t.Errorf("the counter is %s after a line of %d writes, want %d", got, length, clients*increments)
	}
}
