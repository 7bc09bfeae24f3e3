package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kvs/types"
)

// serve starts h and gives its address.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func echo(_ context.Context, body []byte) ([]byte, error) { return body, nil }

func TestCallRoundTrip(t *testing.T) {
	addr := serve(t, Handler(0, nil, echo))
	c := newClient(t, Options{Authorize: func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }})
	noise := make([]byte, 5000)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, body := range map[string][]byte{
		"empty": {}, "small": []byte("abc"), "compressible": bytes.Repeat([]byte("kvs "), 100_000), "noise": noise,
	} {
		sent, received := c.Traffic()
		got, err := c.Call(t.Context(), addr, "/sync/echo", body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%s: %d bytes of %d came back, error %v", name, len(got), len(body), err)
		}
		sent2, received2 := c.Traffic()
		if name == "compressible" && (sent2-sent > 2000 || received2-received > 2000) {
			t.Errorf("%s: %d bytes sent, %d received: not compressed", name, sent2-sent, received2-received)
		}
	}
}

func TestConnectionIsKept(t *testing.T) {
	remotes := map[string]bool{}
	h := Handler(0, nil, echo)
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remotes[r.RemoteAddr] = true
		h.ServeHTTP(w, r)
	}))
	c := newClient(t, Options{})
	for range 5 {
		if _, err := c.Call(t.Context(), addr, "/x", []byte("a")); err != nil {
			t.Fatal(err)
		}
	}
	if len(remotes) != 1 {
		t.Errorf("%d connections for 5 calls", len(remotes))
	}
}

func TestErrorsAreTyped(t *testing.T) {
	cases := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"chosen", &Error{409, "horizon", "behind"}, 409, "horizon"},
		{"wrapped", fmt.Errorf("merge: %w", &Error{400, "invalid_body", "x"}), 400, "invalid_body"},
		{"disk", fmt.Errorf("merge: %w", types.ErrDiskFull), 507, "disk_full"},
		{"closed", types.ErrClosed, 503, "shutting_down"},
		{"other", errors.New("boom"), 500, "internal"},
	}
	for _, tc := range cases {
		addr := serve(t, Handler(0, nil, func(context.Context, []byte) ([]byte, error) { return nil, tc.err }))
		_, err := newClient(t, Options{}).Call(t.Context(), addr, "/x", nil)
		var e *Error
		if !errors.As(err, &e) || e.Status != tc.status || e.Code != tc.code {
			t.Errorf("%s: error %v", tc.name, err)
		}
	}
}

func TestAnswersThatAreNoProblem(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		},
		"html": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, strings.Repeat("<p>", 100_000), http.StatusBadGateway)
		},
	} {
		_, err := newClient(t, Options{}).Call(t.Context(), serve(t, h), "/x", nil)
		var e *Error
		if !errors.As(err, &e) || e.Code != "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	const limit = 10_000
	bomb := bytes.Repeat([]byte{0}, 10*limit) // tiny once compressed
	noise := make([]byte, limit+1)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, body := range map[string][]byte{"bomb": bomb, "long": noise} {
		request := serve(t, Handler(limit, nil, echo))
		_, err := newClient(t, Options{}).Call(t.Context(), request, "/x", body)
		var e *Error
		if !errors.As(err, &e) || e.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s as a request: error %v", name, err)
		}
		answer := serve(t, Handler(0, nil, func(context.Context, []byte) ([]byte, error) { return body, nil }))
		if _, err := newClient(t, Options{MaxBody: limit}).Call(t.Context(), answer, "/x", nil); !errors.Is(err, errTooLarge) {
			t.Errorf("%s as an answer: error %v", name, err)
		}
	}
}

func TestGarbageIsRefused(t *testing.T) {
	addr := serve(t, Handler(0, nil, echo))
	for _, encoding := range []string{"zstd", "gzip"} {
		req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/x", strings.NewReader("not zstd at all"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Encoding", encoding)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", encoding, resp.StatusCode)
		}
	}
	resp, err := http.Get("http://" + addr + "/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: status %d", resp.StatusCode)
	}
}

func TestHangingPeerEndsByTimeout(t *testing.T) {
	release := make(chan struct{})
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer close(release)
	_, err := newClient(t, Options{Timeout: 50 * time.Millisecond}).Call(t.Context(), addr, "/x", nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	addr := s.Listener.Addr().String()
	s.Close()
	if _, err := newClient(t, Options{}).Call(t.Context(), addr, "/x", nil); !errors.Is(err, types.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}
