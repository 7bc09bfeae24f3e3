package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// interrupting is an output whose reader presses Ctrl-C after so many lines.
type interrupting struct {
	bytes.Buffer
	lines     int
	interrupt func()
}

func (w *interrupting) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if bytes.Count(w.Bytes(), []byte{'\n'}) >= w.lines {
		w.interrupt()
	}
	return n, err
}

// watchOnce runs the command against a node that answers with each text in turn,
// and interrupts it after so many lines.
func watchOnce(t *testing.T, lines int, texts []string, args ...string) (stdout, stderr string, asked []string, err error) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := interrupting{lines: lines, interrupt: interrupt}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		text := texts[min(len(asked), len(texts))-1]
		if code, ok := strings.CutPrefix(text, "410"); ok {
			w.WriteHeader(410)
			fmt.Fprintf(w, `{"code":"sequence_gone","status":410,"detail":"list again%s"}`, code)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, text)
		if len(asked) == len(texts) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	defer node.Close()
	t.Setenv("KVS_URL", node.URL)
	t.Setenv("KVS_TOKEN", "t")
	var errs bytes.Buffer
	cmd := newWatch()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = cmd.ExecuteContext(ctx)
	return out.String(), errs.String(), asked, err
}

const watched = "id: 5.0-n\nevent: put\ndata: {\"key\":\"a/1\",\"uuid\":\"u\",\"timestamp\":1000,\"data\":{\"n\":  1}}\n\n" +
	"id: 5.1-n\nevent: put\ndata: {\"key\":\"a/2\",\"uuid\":\"u\",\"timestamp\":1000,\"content_type\":\"text/plain\",\"data\":\"G1tt\"}\n\n" +
	"id: 5.2-n\nevent: put\ndata: {\"key\":\"a/3\",\"uuid\":\"u\",\"timestamp\":1000,\"content_type\":\"image/png\",\"data\":\"AP8=\"}\n\n"

func TestWatchPrints(t *testing.T) {
	stdout, stderr, asked, err := watchOnce(t, 5, []string{watched,
		"id: 6.0-n\nevent: delete\ndata: {\"key\":\"a/1\",\"uuid\":\"v\",\"timestamp\":2000}\n\n" +
			"id: 6.1-n\nevent: expire\ndata: {\"key\":\"a/2\",\"uuid\":\"v\",\"timestamp\":2000,\"expires_at\":3000}\n\n"}, "a/", "--since", "4.0-n")
	if err != nil {
		t.Errorf("Ctrl-C is an error: %v", err)
	}
	want := when(1000) + "\tput\ta/1\t{\"n\":  1}\n" + when(1000) + "\tput\ta/2\t\\x1b[m\n" + when(1000) + "\tput\ta/3\t(2 bytes, image/png)\n" +
		when(2000) + "\tdelete\ta/1\n" + when(3000) + "\texpire\ta/2\n"
	if stdout != want {
		t.Errorf("%q, want %q", stdout, want)
	}
	if strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "connection lost") {
		t.Errorf("%q", stderr)
	}
	if fmt.Sprint(asked) != "[prefix=a%2F&since=4.0-n prefix=a%2F&since=5.2-n]" {
		t.Errorf("%q", asked)
	}
}

func TestWatchPrintsJSON(t *testing.T) {
	stdout, _, _, err := watchOnce(t, 1, []string{watched[:strings.Index(watched, "id: 5.1")]}, "-o", "json")
	want := `{"event":"put","id":"5.0-n","key":"a/1","uuid":"u","timestamp":1000,"data":{"n":1}}` + "\n"
	if err != nil || stdout != want {
		t.Errorf("%q, want %q; %v", stdout, want, err)
	}
}

func TestWatchRefused(t *testing.T) {
	stdout, _, _, err := watchOnce(t, 1, []string{"410"})
	if err == nil || !strings.Contains(err.Error(), "list again") || stdout != "" || exitCode(err) != exitFailed {
		t.Errorf("%q, %v", stdout, err)
	}
}
