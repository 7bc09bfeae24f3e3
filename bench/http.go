package main

import (
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

func getRequest(buf []byte, i int64) []byte {
	return fmt.Appendf(buf, "GET /kv/bench/%05d HTTP/1.1\r\nHost: bench\r\n\r\n", i%httpKeys)
}

func putRequest(buf []byte, i int64) []byte {
	buf = fmt.Appendf(buf, "PUT /kv/bench/%05d HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", i%httpKeys, len(document))
	return append(buf, document...)
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
	if _, err := (&load{addr: n.addr, connections: httpConnections, request: putRequest}).run(ctx, max(length, 3*time.Second)); err != nil {
		return err
	}
	for _, kind := range []struct {
		name    string
		request func([]byte, int64) []byte
		aim     string
	}{{"GET, 200 bytes, 64 connections", getRequest, "0.85"}, {"durable PUT, 200 bytes, 64 connections", putRequest, "0.50"}} {
		var ratios, ours, theirs []float64
		for range httpPairs {
			a, err := (&load{addr: n.addr, connections: httpConnections, request: kind.request}).run(ctx, length)
			if err != nil {
				return err
			}
			z, err := (&load{addr: bare, connections: httpConnections, request: kind.request}).run(ctx, length)
			if err != nil {
				return err
			}
			ratios, ours, theirs = append(ratios, a/z), append(ours, a), append(theirs, z)
		}
		b.report(row{kind.name, fmt.Sprintf("%.2f of a bare handler (aim %s)", median(ratios), kind.aim),
			fmt.Sprintf("%.0f/s against %.0f/s, medians of %d pairs", median(ours), median(theirs), httpPairs), "go run ./bench -run http"})
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
