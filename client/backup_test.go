package client

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"kvs/types"
)

func TestBackups(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch r.Method + " " + r.URL.RequestURI() {
		case "POST /admin/backup":
			if string(body) != `{"type":"incremental"}` {
				t.Errorf("body %s", body)
			}
			w.WriteHeader(201)
			io.WriteString(w, `{"name":"n","type":"incremental","size":1,"records":2,"sequence":3,"since":4,"created":5,"node":"m","damaged":6}`)
		case "GET /admin/backups":
			io.WriteString(w, `{"backups":[{"name":"a"},{"name":"b"}]}`)
		default:
			t.Errorf("called %s %s", r.Method, r.URL)
		}
	})
	b, err := c.MakeBackup(t.Context(), "incremental")
	if want := (Backup{"n", "incremental", 1, 2, 3, 4, 5, "m", 6}); err != nil || b != want {
		t.Errorf("%+v, %v", b, err)
	}
	list, err := c.Backups(t.Context())
	if err != nil || len(list) != 2 || list[1].Name != "b" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestMergeBackup(t *testing.T) {
	calls := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		if r.ContentLength == 5 {
			return // its body breaks off
		}
		body, err := io.ReadAll(r.Body)
		switch r.URL.RequestURI() {
		case "/admin/restore":
			if err != nil || string(body) != "first second" || r.ContentLength != 12 || r.Header.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%v, body %s of %d, header %v", err, body, r.ContentLength, r.Header)
			}
			io.WriteString(w, `{"records":5,"merged":1,"known":2,"purged":1,"missing":1}`)
		case "/admin/restore?dry_run=true&missing=true":
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(503)
			io.WriteString(w, `{"code":"syncing","detail":"later"}`)
		}
	})
	stream := io.MultiReader(strings.NewReader("first "), strings.NewReader("second"))
	r, err := c.MergeBackup(t.Context(), stream, 12, MergeOptions{})
	if want := (MergedBackup{Records: 5, Merged: 1, Known: 2, Purged: 1, Missing: 1}); err != nil || r != want {
		t.Errorf("%+v, %v", r, err)
	}
	// A body that is read once is not sent twice.
	if _, err := c.MergeBackup(t.Context(), strings.NewReader("x"), 1, MergeOptions{DryRun: true, Missing: true}); !errors.Is(err, types.ErrSyncing) || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
	if _, err := c.MergeBackup(t.Context(), iotest.ErrReader(errors.New("the file is gone")), 5, MergeOptions{}); err == nil || !strings.Contains(err.Error(), "the file is gone") {
		t.Errorf("a body that breaks off: %v", err)
	}
}
