package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvs/types"
)

// transport answers without a network, so that time can be simulated.
type transport func(attempt int, r *http.Request) (*http.Response, error)

type counted struct {
	attempts int
	answer   transport
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.attempts++
	return c.answer(c.attempts, r)
}

func answer(status int, body string, header ...string) (*http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func refused() error {
	return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func TestRetries(t *testing.T) {
	const busy = `{"code":"syncing","detail":"being filled"}`
	for name, tt := range map[string]struct {
		answer   transport
		attempts int
		wait     time.Duration // at least, and less than twice
		want     error         // nil: success
	}{
		"refused, then up": {func(n int, _ *http.Request) (*http.Response, error) {
			if n < 3 {
				return nil, refused()
			}
			return answer(200, `{"uuid":"u"}`)
		}, 3, 150 * time.Millisecond, nil},
		"refused for good": {func(int, *http.Request) (*http.Response, error) { return nil, refused() },
			4, 350 * time.Millisecond, types.ErrUnreachable},
		"asked to wait": {func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 {
				return answer(503, busy, "Retry-After", "2")
			}
			return answer(200, `{"uuid":"u"}`)
		}, 2, 2 * time.Second, nil},
		"asked to wait for ever": {func(int, *http.Request) (*http.Response, error) {
			return answer(503, busy, "Retry-After", "1")
		}, 4, 3 * time.Second, types.ErrSyncing},
		"asked to wait too long": {func(int, *http.Request) (*http.Response, error) {
			return answer(503, busy, "Retry-After", "3600")
		}, 1, 0, types.ErrSyncing},
		"503 without a time": {func(int, *http.Request) (*http.Response, error) {
			return answer(503, busy)
		}, 1, 0, types.ErrSyncing},
		"read-only": {func(int, *http.Request) (*http.Response, error) {
			return answer(503, `{"code":"read_only"}`, "Retry-After", "1")
		}, 1, 0, types.ErrReadOnly},
		"507": {func(int, *http.Request) (*http.Response, error) {
			return answer(507, `{"code":"disk_full"}`, "Retry-After", "1")
		}, 1, 0, types.ErrDiskFull},
		"broken off": {func(int, *http.Request) (*http.Response, error) {
			return nil, io.ErrUnexpectedEOF
		}, 1, 0, types.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := &counted{answer: func(n int, r *http.Request) (*http.Response, error) {
					if b, _ := io.ReadAll(r.Body); string(b) != "1" {
						t.Errorf("attempt %d carried %q", n, b)
					}
					return tt.answer(n, r)
				}}
				c, err := New(Options{Transport: tr})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err = c.Put(t.Context(), "k", 1, PutOptions{})
				if !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if tr.attempts != tt.attempts {
					t.Errorf("%d attempts, want %d", tr.attempts, tt.attempts)
				}
				if took := time.Since(start); took < tt.wait || took > 4*tt.wait {
					t.Errorf("waited %v, want about %v", took, tt.wait)
				}
			})
		})
	}
}

func TestNoRetries(t *testing.T) {
	tr := &counted{answer: func(int, *http.Request) (*http.Response, error) { return nil, refused() }}
	c, err := New(Options{Transport: tr, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) || tr.attempts != 1 {
		t.Errorf("%v after %d attempts", err, tr.attempts)
	}
}

func TestTimeouts(t *testing.T) {
	hang := &counted{answer: func(_ int, r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}}
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{Transport: hang, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = c.Put(t.Context(), "k", 1, PutOptions{Replicas: Replicas{W: "2", Timeout: 20 * time.Second}})
		if !errors.Is(err, types.ErrUnreachable) || !strings.Contains(err.Error(), "no answer within 30s") {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("took %v", took)
		}
		// The caller's own end is reported as such, not as the node's fault.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Health(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, types.ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
}

func TestAnswersAreBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 1000))
	}))
	defer server.Close()
	c, err := New(Options{URL: server.URL, MaxResponse: 999})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetRaw(t.Context(), "k"); err == nil || !strings.Contains(err.Error(), "larger than 999 bytes") {
		t.Errorf("%v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			t.Errorf("went to %s", r.URL.Path)
		}
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	})
	_, err := c.Health(t.Context())
	if p := (*Problem)(nil); !errors.As(err, &p) || p.Status != 301 {
		t.Errorf("%v", err)
	}
}

func TestProblem(t *testing.T) {
	for name, tt := range map[string]struct {
		body, text string
		is         error
	}{
		"problem":  {`{"status":412,"code":"precondition_failed","title":"T","detail":"another version"}`, "another version (precondition_failed, status 412)", types.ErrPrecond},
		"no words": {`{"code":"key_not_found"}`, "Precondition Failed (key_not_found, status 412)", types.ErrNotFound},
		"a proxy":  {"<html>\n  <b>Bad\xff\n", "<html> <b>Bad? (status 412)", nil},
		"empty":    {"", "Precondition Failed (status 412)", nil},
		"unknown":  {`{"code":"new_code","title":"New"}`, "New (new_code, status 412)", nil},
		"long":     {strings.Repeat("é", 200), strings.Repeat("é", 100) + "… (status 412)", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := parseProblem(412, http.Header{}, []byte(tt.body))
			if p.Error() != tt.text || p.Status != 412 {
				t.Errorf("%q, want %q", p, tt.text)
			}
			if tt.is != nil && !errors.Is(p, tt.is) {
				t.Errorf("is not %v", tt.is)
			}
			if errors.Is(p, types.ErrClosed) {
				t.Error("is what it is not")
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": -1, "0": 0, "7": 7 * time.Second, "soon": -1, "-1": -1,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {in}}); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// A node may answer anything at all: no answer may be a panic.
func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"status":404,"code":"key_not_found","results":[{"status":1,"data":{}}]}`))
	f.Add([]byte("\xff\xfe<html>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := parseProblem(500, http.Header{}, body)
		if p.Error() == "" || p.Status != 500 {
			t.Errorf("%+v", p)
		}
	})
}
