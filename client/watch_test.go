package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"kvs/types"
)

// events answers with a stream that ends.
func events(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Kvs-Sequence", "1.0-n")
	io.WriteString(w, text)
}

// watchAll takes n events, or all until an error.
func watchAll(ctx context.Context, c *Client, o WatchOptions, n int) (got []Event, err error) {
	for e, err := range c.Watch(ctx, o) {
		if err != nil {
			return got, err
		}
		if got = append(got, e); len(got) == n {
			break
		}
	}
	return got, nil
}

func TestWatchReads(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.String(); got != "/kv/_watch?prefix=a%2F&since=0.1-n" || r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("%s %v", got, r.Header)
		}
		events(w, ": hello\n\nid: 2.0-n\nevent: put\ndata: {\"key\":\"a/1\",\"uuid\":\"u\",\"timestamp\":7,\"data\":{\"n\": 1.0}}\n\n"+
			"id:3.0-n\r\nevent:delete\r\nother: x\r\ndata:{\"key\":\"a/1\",\r\ndata:\"uuid\":\"v\",\"timestamp\":8}\r\n\r\n"+
			": alive\nid: 4.0-n\n\n"+
			"event: expire\ndata: {\"key\":\"a/2\",\"uuid\":\"w\",\"timestamp\":8,\"expires_at\":9}\n\n")
	})
	got, err := watchAll(t.Context(), c, WatchOptions{Prefix: "a/", Since: "0.1-n"}, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := []Event{
		{"put", "2.0-n", Item{Key: "a/1", UUID: "u", Timestamp: 7, Data: []byte(`{"n": 1.0}`)}},
		{"delete", "3.0-n", Item{Key: "a/1", UUID: "v", Timestamp: 8}},
		{"expire", "4.0-n", Item{Key: "a/2", UUID: "w", Timestamp: 8, ExpiresAt: 9}},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestWatchResumes: from the last id, be it that of an event, of an idle stream,
// or of its begin; after breaks of every kind.
func TestWatchResumes(t *testing.T) {
	var asked []string
	var lost []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("since"))
		switch len(asked) {
		case 1:
			events(w, ": hello\n\n")
		case 2:
			events(w, "id: 2.0-n\nevent: put\ndata: {\"key\":\"a\"}\n\nid: 3.0-n\nevent: put\ndata: {\"key\":\"torn")
		case 3:
			problem(w, 503, "shutting_down", "stopping")
		case 4:
			problem(w, 502, "", "a proxy")
		case 5:
			events(w, ": alive\nid: 5.0-n\n\n")
		default:
			events(w, "id: 6.0-n\nevent: put\ndata: {\"key\":\"b\"}\n\n")
		}
	})
	got, err := watchAll(t.Context(), c, WatchOptions{Lost: func(err error, pause time.Duration) {
		if err == nil || pause < 0 || pause > maxWatchPause {
			t.Errorf("%v, %s", err, pause)
		}
		lost = append(lost, err.Error())
	}}, 2)
	if err != nil || len(got) != 2 || got[0].Key != "a" || got[1].Key != "b" {
		t.Fatalf("%v, %v", got, err)
	}
	if want := []string{"", "1.0-n", "2.0-n", "2.0-n", "2.0-n", "5.0-n"}; !slices.Equal(asked, want) || len(lost) != len(want)-1 {
		t.Errorf("%q, %q", asked, lost)
	}
}

// TestWatchEnds where there is no point in trying again.
func TestWatchEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		first, then http.HandlerFunc
		want        error
		text        string
	}{
		"revoked": {func(w http.ResponseWriter, _ *http.Request) { events(w, ": hi\n\n") },
			func(w http.ResponseWriter, _ *http.Request) { problem(w, 401, "unauthorized", "revoked") }, ErrUnauthorized, "revoked"},
		"gone": {func(w http.ResponseWriter, _ *http.Request) { events(w, ": hi\n\n") },
			func(w http.ResponseWriter, _ *http.Request) { problem(w, 410, "sequence_gone", "list again") }, ErrSequenceGone, "list again"},
		"gone at once": {func(w http.ResponseWriter, _ *http.Request) { problem(w, 410, "sequence_gone", "list again") }, nil, ErrSequenceGone, "list again"},
		"not a node":   {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, nil, nil, "text/html"},
		"not events":   {func(w http.ResponseWriter, _ *http.Request) { events(w, "data: nonsense\n\n") }, nil, nil, "not that of a node"},
		"too large":    {func(w http.ResponseWriter, _ *http.Request) { events(w, "data: "+strings.Repeat("x", 5000)) }, nil, nil, "MaxResponse"},
		"syncing":      {func(w http.ResponseWriter, _ *http.Request) { problem(w, 503, "syncing", "filled") }, nil, types.ErrSyncing, ""},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if calls++; calls > 1 && tt.then != nil {
					tt.then(w, r)
					return
				}
				tt.first(w, r)
			})
			c.maxResponse = 1000
			got, err := watchAll(t.Context(), c, WatchOptions{}, 1)
			if err == nil || len(got) != 0 || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// TestWatchUnreachable: at the begin it is an error, later a reason to wait.
func TestWatchUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &counted{answer: func(int, *http.Request) (*http.Response, error) { return nil, refused() }}
		c, err := New(Options{Transport: tr})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watchAll(t.Context(), c, WatchOptions{}, 1); !errors.Is(err, types.ErrUnreachable) || tr.attempts != 4 {
			t.Errorf("%v after %d attempts", err, tr.attempts)
		}
		tr.attempts, tr.answer = 0, func(n int, r *http.Request) (*http.Response, error) {
			switch {
			case n == 1:
				return answer(200, ": hi\n\n", "Content-Type", "text/event-stream")
			case n < 200:
				return nil, refused()
			}
			return answer(200, "data: {\"key\":\"a\"}\n\n", "Content-Type", "text/event-stream")
		}
		begun := time.Now()
		got, err := watchAll(t.Context(), c, WatchOptions{}, 1)
		if took := time.Since(begun); err != nil || len(got) != 1 || took > 200*maxWatchPause || took < 50*maxWatchPause {
			t.Errorf("%v, %v after %s", got, err, took)
		}
	})
}

// TestWatchSilence: a connection on which nothing comes is given up; one that is
// merely idle is not, nor one whose events are not taken.
func TestWatchSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		tr := &counted{answer: func(n int, r *http.Request) (*http.Response, error) {
			in, out := io.Pipe()
			context.AfterFunc(r.Context(), func() { out.CloseWithError(r.Context().Err()) })
			resp, err := answer(200, "", "Content-Type", "text/event-stream")
			resp.Body = in
			go func() {
				if n > 1 {
					io.WriteString(out, "data: {\"key\":\"second\"}\n\n")
					return
				}
				io.WriteString(out, "data: {\"key\":\"first\"}\n\n")
				for range 20 {
					time.Sleep(15 * time.Second)
					io.WriteString(out, ": alive\n\n")
				}
			}()
			return resp, err
		}}
		c, err := New(Options{Transport: tr})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for e, err := range c.Watch(t.Context(), WatchOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if keys = append(keys, e.Key); len(keys) == 2 {
				break
			}
			time.Sleep(10 * time.Minute)
		}
		// Ten minutes in which nothing was taken, five with comments, and the silence.
		if took := time.Since(begun).Round(time.Minute); !slices.Equal(keys, []string{"first", "second"}) || took != 15*time.Minute+time.Minute {
			t.Errorf("%q after %s", keys, took)
		}
	})
}

func TestWatchCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		events(w, "data: {\"key\":\"a\"}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	n := 0
	for _, err := range c.Watch(ctx, WatchOptions{}) {
		if n++; n == 1 {
			cancel()
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	if n != 2 {
		t.Errorf("%d", n)
	}
}

// FuzzEventLines: whatever comes is read without fault, and alike however it is
// cut into reads.
func FuzzEventLines(f *testing.F) {
	f.Add([]byte("id: 1\nevent: put\ndata: {}\n\n: x\n\ndata:a\r\ndata\r\n\r\n"))
	f.Add([]byte("data: " + strings.Repeat("x", 20<<10) + "\n\n"))
	f.Add([]byte("\n\n:\nid\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(r io.Reader) (out []string) {
			l := newEventLines(r, 18<<10)
			for {
				block, err := l.next(func() {})
				if err != nil {
					return append(out, err.Error())
				}
				out = append(out, fmt.Sprintf("%q %q %q", block.id, block.event, block.data))
			}
		}
		if a, b := read(bytes.NewReader(b)), read(iotest.OneByteReader(bytes.NewReader(b))); !slices.Equal(a, b) {
			t.Errorf("%q and %q", a, b)
		}
	})
}
