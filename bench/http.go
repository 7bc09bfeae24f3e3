package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	httpConnections = 64
	httpPairs       = 5 // runs of each, in turn, so that a drift of the machine hits both
	httpKeys        = 10_000
	bareCommand     = "bare-handler"
)

// document is a JSON document of 200 bytes.
var document = []byte(fmt.Sprintf(`{"name":"till","text":"%s"}`, strings.Repeat("x", 200-25)))

// bareAnswer is what the bare handler answers: as many bytes as a node does.
var (
	bareGet = []byte(`{"uuid":"01890a5d-ac96-774b-bcce-b302099a8057","timestamp":1700000000000,"data":` + string(document) + `}`)
	barePut = []byte(`{"uuid":"01890a5d-ac96-774b-bcce-b302099a8057","timestamp":1700000000000}`)
)

// serveBare is a handler that does nothing but read and answer; it prints its
// address.
func serveBare(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	answer := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Write(body)
		}
	}
	mux.HandleFunc("GET /kv/{path...}", answer(bareGet))
	mux.HandleFunc("PUT /kv/{path...}", answer(barePut))
	fmt.Println(l.Addr())
	server := &http.Server{Handler: mux}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startBare runs serveBare in a process of its own, as the node is one.
func (b *bench) startBare(ctx context.Context) (addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, bareCommand)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		stop()
		return "", nil, fmt.Errorf("the bare handler gave no address: %w", err)
	}
	return addr, stop, nil
}

// requests makes the requests of a load. The token may be empty.
func requests(method, token string) func(buf []byte, i int64) []byte {
	head := "Host: bench\r\n"
	if token != "" {
		head += "Authorization: Bearer " + token + "\r\n"
	}
	var body []byte
	if method == http.MethodPut {
		body = document
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return func(buf []byte, i int64) []byte {
		buf = fmt.Appendf(buf, "%s /kv/bench/%05d HTTP/1.1\r\n%s\r\n", method, i%httpKeys, head)
		return append(buf, body...)
	}
}

// runHTTP pairs a node with the bare handler, GET with GET and PUT with PUT.
func runHTTP(ctx context.Context, b *bench) error {
	n, err := b.newNode("http", nil)
	if err != nil {
		return err
	}
	if _, err := n.start(ctx, b.binary); err != nil {
		return err
	}
	defer n.stop()
	bare, stopBare, err := b.startBare(ctx)
	if err != nil {
		return err
	}
	defer stopBare()

	length := time.Duration(b.seconds) * time.Second
	// Every key exists before anything counts.
	if _, err := (&load{addr: n.addr, connections: httpConnections, request: requests(http.MethodPut, n.token)}).run(ctx, max(length, 3*time.Second)); err != nil {
		return err
	}
	raw := func(request func([]byte, int64) []byte) func(context.Context, string, time.Duration) (float64, error) {
		return func(ctx context.Context, addr string, length time.Duration) (float64, error) {
			return (&load{addr: addr, connections: httpConnections, request: request}).run(ctx, length)
		}
	}
	for _, kind := range []struct {
		name, aim string
		load      func(context.Context, string, time.Duration) (float64, error)
	}{
		{"GET, 200 bytes, 64 connections, net/http client", " (aim 0.85)", goClient{http.MethodGet, n.token}.run},
		{"durable PUT, 200 bytes, 64 connections, net/http client", " (aim 0.50)", goClient{http.MethodPut, n.token}.run},
		// A client that takes next to none of the machine shows more of the server.
		{"GET, the same, raw client", "", raw(requests(http.MethodGet, n.token))},
		{"durable PUT, the same, raw client", "", raw(requests(http.MethodPut, n.token))},
	} {
		var ratios, ours, theirs []float64
		for range httpPairs {
			a, err := kind.load(ctx, n.addr, length)
			if err != nil {
				return err
			}
			z, err := kind.load(ctx, bare, length)
			if err != nil {
				return err
			}
			ratios, ours, theirs = append(ratios, a/z), append(ours, a), append(theirs, z)
		}
		b.report(row{kind.name, fmt.Sprintf("%.2f of a bare handler%s", median(ratios), kind.aim),
			fmt.Sprintf("%.0f/s against %.0f/s, medians of %d pairs", median(ours), median(theirs), httpPairs), "go run ./bench -run http"})
	}
	return nil
}

// goClient sends requests of one method with Go's own client.
type goClient struct{ method, token string }

func (c goClient) run(ctx context.Context, addr string, length time.Duration) (perSecond float64, err error) {
	transport := &http.Transport{MaxIdleConnsPerHost: httpConnections, MaxConnsPerHost: httpConnections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var next, done atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, httpConnections)
	begin := time.Now()
	for range httpConnections {
		wg.Go(func() {
			for ctx.Err() == nil && time.Since(begin) < length {
				if err := c.one(ctx, client, addr, next.Add(1)); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return float64(done.Load()) / time.Since(begin).Seconds(), err
}

func (c goClient) one(ctx context.Context, client *http.Client, addr string, i int64) error {
	var body io.Reader
	if c.method == http.MethodPut {
		body = bytes.NewReader(document)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, fmt.Sprintf("http://%s/kv/bench/%05d", addr, i%httpKeys), body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return statusError(res.Status)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
