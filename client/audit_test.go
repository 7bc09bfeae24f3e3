package client

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestAuditEntries(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		switch r.URL.Query().Get("after") {
		case "5":
			w.Write([]byte(`{"entries":[{"n":6,"time":7,"action":"put","who":"u","token":"j","from":"::1","key":"a","namespace":"data","after":"v"}],"next_after":900}`))
		case "900": // nothing matched among many
			w.Write([]byte(`{"entries":[],"next_after":1800}`))
		case "1800":
			w.Write([]byte(`{"entries":[{"n":18446744073709551615,"time":8,"action":"refused","who":"anonymous","detail":"why"}],"next_after":0}`))
		default:
			t.Errorf("asked %s", r.URL)
		}
	})
	var got []AuditEntry
	f := AuditFilter{Since: time.UnixMilli(1), Until: time.UnixMilli(2), Who: "u", Key: "a/b", Action: "put", After: 5}
	for e, err := range c.AuditEntries(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	want := []AuditEntry{
		{N: 6, Time: 7, Action: "put", Who: "u", Token: "j", From: "::1", Key: "a", Namespace: "data", After: "v"},
		{N: 1<<64 - 1, Time: 8, Action: "refused", Who: "anonymous", Detail: "why"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	const query = "/admin/audit?action=put&after=%d&key=a%%2Fb&limit=1000&since=1&until=2&who=u"
	if want := []string{fmt.Sprintf(query, 5), fmt.Sprintf(query, 900), fmt.Sprintf(query, 1800)}; !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %s\nwant  %s", strings.Join(asked, " "), strings.Join(want, " "))
	}
}

// A node that leads in a circle does not hold a program up for ever.
func TestAuditEntriesEnd(t *testing.T) {
	calls := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.Write([]byte(`{"entries":[{"n":1}],"next_after":1}`))
	})
	n := 0
	for _, err := range c.AuditEntries(t.Context(), AuditFilter{}) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if calls != 2 || n != 2 {
		t.Errorf("%d calls, %d entries", calls, n)
	}
	// Whoever stops early asks for no further page.
	calls = 0
	for range c.AuditEntries(t.Context(), AuditFilter{PageSize: 1}) {
		break
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func TestWitnessed(t *testing.T) {
	c, sent := once(t, 200, `{"node":"n","checkpoints":[{"n":3,"head":"aa","time":4,"public_key":"bb","signature":"cc"}]}`)
	got, err := c.Witnessed(t.Context(), "a b")
	if want := []AuditCheckpoint{{3, "aa", 4, "bb", "cc"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if *sent != "GET /admin/audit/witnessed?node=a+b" {
		t.Errorf("sent %s", *sent)
	}
}
