package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"kvs/client"
	"kvs/types"
)

func TestImportFormats(t *testing.T) {
	text := "{\"key\":\"a\",\"value\":{ \"n\":1.00, \"s\":\"<\\u0041>\"}}\r\n\n{\"value\":null,\"key\":\"b/ü\"}"
	for name, content := range map[string][]byte{
		"plain.jsonl": []byte(text), "packed.gz": gz(text), "packed.zst": zst(text), "misnamed.txt": zst(text),
		"members.gz": append(gz(text[:30]), gz(text[30:])...),
	} {
		for _, stdin := range []bool{false, true} {
			t.Run(fmt.Sprint(name, stdin), func(t *testing.T) {
				n := newFakeNode(t)
				file, in := write(t, name, content), io.Reader(nil)
				if stdin {
					file, in = "-", bytes.NewReader(content)
				}
				r := run(t, t.Context(), in, "import", file)
				if r.code != exitOK || !strings.HasPrefix(r.stdout, "imported 2 documents in ") || r.stderr != "" {
					t.Errorf("%+v", r)
				}
				if n.values["a"] != `{ "n":1.00, "s":"<\u0041>"}` || n.values["b/ü"] != "null" {
					t.Errorf("stored %v", n.values)
				}
			})
		}
	}
}

func TestImportStopsAtABrokenLineAndGoesOn(t *testing.T) {
	n := newFakeNode(t)
	good := documents(1, 1200)
	file := write(t, "f", []byte(good+"{\"key\":\"broken\",\"value\":\n"+documents(1202, 1300)))
	r := run(t, t.Context(), nil, "import", file)
	if r.code != exitFailed || !strings.HasPrefix(r.stdout, "imported 1200 documents") {
		t.Errorf("%+v", r)
	}
	want := "kvs: line 1201: the JSON breaks off\nthe lines up to 1200 are imported; run the same command again to go on\n"
	if r.stderr != want {
		t.Errorf("said  %q\nwant %q", r.stderr, want)
	}
	// The line is mended, and the file compressed on the way: it goes on.
	os.WriteFile(file, gz(good+documents(1201, 1300)), 0o600)
	r = run(t, t.Context(), nil, "import", file)
	if r.code != exitOK || !strings.Contains(r.stderr, "going on after line 1200") || !strings.HasPrefix(r.stdout, "imported 100 documents") {
		t.Errorf("%+v", r)
	}
	if values, puts := n.count(); values != 1300 || puts != 1300 {
		t.Errorf("%d values by %d puts", values, puts)
	}
	// Complete, it begins anew.
	if r = run(t, t.Context(), nil, "import", file); r.code != exitOK || !strings.HasPrefix(r.stdout, "imported 1300 documents") {
		t.Errorf("%+v", r)
	}
}

func TestImportBeginsAnewWhereResumingIsNotSafe(t *testing.T) {
	const broken = "broken\n"
	for name, change := range map[string]func(n *fakeNode, file string){
		"edited before the place": func(_ *fakeNode, file string) {
			os.WriteFile(file, []byte(strings.Replace(documents(1, 10), `"n":3`, `"n":4`, 1)), 0o600)
		},
		"shorter": func(_ *fakeNode, file string) {
			os.WriteFile(file, []byte(documents(1, 4)), 0o600)
		},
		"another node": func(n *fakeNode, file string) {
			os.WriteFile(file, []byte(documents(1, 10)), 0o600)
			n.mu.Lock()
			n.uuid = "node-2"
			n.mu.Unlock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t)
			file := write(t, "f", []byte(documents(1, 5)+broken))
			if r := run(t, t.Context(), nil, "import", file); r.code != exitFailed {
				t.Fatalf("%+v", r)
			}
			_, before := n.count()
			change(n, file)
			content, _ := os.ReadFile(file)
			r := run(t, t.Context(), nil, "import", file)
			if _, puts := n.count(); r.code != exitOK || puts-before != bytes.Count(content, []byte("\n")) {
				t.Errorf("%+v after %d puts", r, puts-before)
			}
		})
	}
}

func TestImportFromLine(t *testing.T) {
	n := newFakeNode(t)
	file := write(t, "f", []byte("broken\n"+documents(2, 5)+"broken\n"))
	r := run(t, t.Context(), nil, "import", file, "--from-line", "3")
	if r.code != exitFailed || !strings.Contains(r.stderr, "line 6") || !strings.Contains(r.stderr, "use --from-line 6") {
		t.Errorf("%+v", r)
	}
	if values, _ := n.count(); values != 3 || n.values["k2"] != "" {
		t.Errorf("stored %v", n.values)
	}
	// The user's word about the lines before does not count for later runs.
	if r := run(t, t.Context(), nil, "import", file); !strings.Contains(r.stderr, "line 1:") || !strings.Contains(r.stderr, "nothing is imported") {
		t.Errorf("%+v", r)
	}
}

func TestImportNamesRefusedLines(t *testing.T) {
	n := newFakeNode(t)
	n.refuse = func(key string) int {
		if key == "k3" {
			return 413
		}
		return 0
	}
	file := write(t, "f", []byte(documents(1, 5)))
	r := run(t, t.Context(), nil, "import", file)
	want := "kvs: line 3: the value is too large (value_too_large, status 413)\n" +
		"the lines up to 2 are imported, and 2 later ones that were on their way; run the same command again to go on\n"
	if r.code != exitFailed || r.stderr != want {
		t.Errorf("%+v\nwant %s", r, want)
	}
	os.WriteFile(file, []byte(documents(1, 5)+"{}\n"), 0o600)
	r = run(t, t.Context(), nil, "import", file, "--keep-going", "-o", "json")
	if r.code != exitFailed || !strings.Contains(r.stdout, `"imported":4,"left_out":2`) || !strings.Contains(r.stderr, "2 lines left out") ||
		!strings.Contains(r.stderr, "left out: line 3:") || !strings.Contains(r.stderr, `left out: line 6: it has no "key"`) {
		t.Errorf("%+v", r)
	}
	// What is the node's fault is no reason to leave lines out.
	n.refuse = func(string) int { return 507 }
	if r = run(t, t.Context(), nil, "import", file, "--keep-going"); r.code != exitFailed || !strings.Contains(r.stderr, "nothing is imported") {
		t.Errorf("%+v", r)
	}
}

func TestImportInputErrors(t *testing.T) {
	newFakeNode(t)
	whole := gz(documents(1, 50_000))
	for name, tt := range map[string]struct {
		file string
		want string
	}{
		"missing":   {filepath.Join(t.TempDir(), "none.jsonl"), "none.jsonl"},
		"directory": {t.TempDir(), "is a directory"},
		"cut off":   {write(t, "f", whole[:len(whole)/2]), "is the file complete?"},
		"no gzip":   {write(t, "f", []byte{0x1f, 0x8b, 1, 2}), "f: "},
		"too long":  {write(t, "f", bytes.Repeat([]byte(" "), maxLine+1)), "line 1: it is longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := run(t, t.Context(), nil, "import", tt.file); r.code != exitFailed || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestImportInterrupted(t *testing.T) {
	n := newFakeNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	batches := 0
	n.before = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if batches++; batches == 6 {
			cancel()
		}
	}
	file := write(t, "f", []byte(documents(1, 10_000)))
	r := run(t, ctx, nil, "import", file)
	if r.code != exitInterrupted || !strings.Contains(r.stderr, "run the same command again to go on") {
		t.Errorf("%+v", r)
	}
	r = run(t, t.Context(), nil, "import", file)
	if values, puts := n.count(); r.code != exitOK || values != 10_000 || puts > 10_000+2*inFlight*chunkOps {
		t.Errorf("%+v: %d values by %d puts", r, values, puts)
	}
}

func TestImportNoNode(t *testing.T) {
	newFakeNode(t)
	r := run(t, t.Context(), nil, "import", write(t, "f", []byte(documents(1, 1))), "--url", "127.0.0.1:1")
	if r.code != exitUnreachable || !strings.Contains(r.stderr, "http://127.0.0.1:1") || !strings.Contains(r.stderr, "KVS_URL") {
		t.Errorf("%+v", r)
	}
}

// The last of several lines with one key wins, however the chunks overtake each
// other, and no two chunks with a key in common are in flight together.
func TestImportKeepsTheOrderOfAKey(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var text strings.Builder
	want := map[string]string{}
	for i := range 20_000 {
		key := fmt.Sprintf("k%d", rng.IntN(15_000))
		want[key] = fmt.Sprint(i)
		fmt.Fprintf(&text, "{\"key\":%q,\"value\":%d}\n", key, i)
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		got, flying, most := map[string]string{}, map[string]int{}, 0
		im := testImporter(text.String(), func(ctx context.Context, ops []client.Op, _ bool) ([]client.BatchResult, error) {
			mu.Lock()
			seen := map[string]bool{}
			for _, op := range ops {
				seen[op.Key] = true
			}
			for key := range seen {
				if flying[key]++; flying[key] > 1 {
					t.Errorf("%s is in flight twice", key)
				}
			}
			most = max(most, len(ops))
			delay := time.Duration(rng.IntN(100)) * time.Millisecond
			mu.Unlock()
			time.Sleep(delay) // of the bubble: no real time passes
			mu.Lock()
			defer mu.Unlock()
			for _, op := range ops {
				got[op.Key] = string(op.Data)
			}
			for key := range seen {
				flying[key]--
			}
			return make([]client.BatchResult, len(ops)), nil
		})
		result, err := im.run(t.Context())
		if err != nil || result.documents != 20_000 || result.complete != 20_000 || most > chunkOps {
			t.Errorf("%+v, %v, %d at once", result, err, most)
		}
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s, want %s", key, got[key], value)
			}
		}
	})
}

func TestImportSitsOutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		im := testImporter(documents(1, 3), func(_ context.Context, ops []client.Op, _ bool) ([]client.BatchResult, error) {
			if time.Since(start) < 8*time.Second {
				return nil, fmt.Errorf("%w: gone", types.ErrUnreachable)
			}
			return make([]client.BatchResult, len(ops)), nil
		})
		if result, err := im.run(t.Context()); err != nil || result.documents != 3 {
			t.Errorf("%+v, %v", result, err)
		}
		// A node that stays away is given up, one that says no at once.
		for _, failure := range []error{types.ErrUnreachable, &client.Problem{Status: 503, Code: "read_only"}} {
			im = testImporter(documents(1, 3), func(context.Context, []client.Op, bool) ([]client.BatchResult, error) {
				return nil, failure
			})
			start = time.Now()
			result, err := im.run(t.Context())
			if !errors.Is(err, failure) || result.complete != 0 {
				t.Errorf("%+v, %v", result, err)
			}
			if took := time.Since(start); took > 30*time.Second || failure != types.ErrUnreachable && took > 0 {
				t.Errorf("%v after %v", failure, took)
			}
		}
	})
}

func TestImportLine(t *testing.T) {
	for line, want := range map[string]string{
		`{"key":"a","value":1}`:              "",
		`{"key":"a","value":null}`:           "",
		`{"key":"a"}`:                        `no "value"`,
		`{"value":1}`:                        `no "key"`,
		`{"key":null,"value":1}`:             `no "key"`,
		`{"key":7,"value":1}`:                "number",
		`{"key":"a","value":1,"ttl":"1h"}`:   "ttl",
		`{"key":"a","value":1} x`:            "more on it",
		`{"key":"a//b","value":1}`:           "empty segment",
		`{"key":"_a","value":1}`:             "underscore",
		`["a",1]`:                            "array",
		`x`:                                  "invalid character",
		"{\"key\":\"\xff\",\"value\":1}":     "UTF-8",
		"{\"key\":\"a\",\"value\":\"\xff\"}": "UTF-8",
	} {
		_, err := importLine([]byte(line))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func FuzzImportLine(f *testing.F) {
	f.Add([]byte(`{"key":"a","value":{"n": 1.0}}`))
	f.Add([]byte(`{"key":"a","value":null} `))
	f.Fuzz(func(t *testing.T, line []byte) {
		op, err := importLine(line)
		if err != nil {
			return
		}
		if client.CheckKey(op.Key) != nil || !bytes.Contains(line, op.Data) {
			t.Errorf("%q gave %+v", line, op)
		}
	})
}

func testImporter(text string, send batchFunc) *importer {
	return &importer{
		send: send, lines: newLines("test", strings.NewReader(text)),
		leftOut: func(error) {}, advanced: func(position, int) {},
	}
}

// documents makes lines from one number to another, both included.
func documents(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "{\"key\":\"k%d\",\"value\":{\"n\":%d}}\n", i, i)
	}
	return b.String()
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func gz(s string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.Bytes()
}

func zst(s string) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll([]byte(s), nil)
}
