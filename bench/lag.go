package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	lagRate   = 1000 // writes per second
	lagWriter = 10   // connections that share them
)

// runLag writes to one node at a steady rate, and after each answer polls the
// other until the value is there.
func runLag(ctx context.Context, b *bench) error {
	first, err := b.newNode("lag1", nil)
	if err != nil {
		return err
	}
	second, err := b.newNode("lag2", []string{first.addr})
	if err != nil {
		return err
	}
	for _, n := range []*node{first, second} {
		if _, err := n.start(ctx, b.binary); err != nil {
			return err
		}
		defer n.stop()
	}
	if err := first.formed(ctx, 2); err != nil {
		return err
	}
	var mu sync.Mutex // guards lags and failed
	var lags []time.Duration
	var failed error
	var wg sync.WaitGroup
	deadline := time.Now().Add(time.Duration(b.seconds) * time.Second)
	for w := range lagWriter {
		wg.Go(func() {
			got, err := lagWorker(ctx, w, first.addr, second.addr, b.token, deadline)
			mu.Lock()
			defer mu.Unlock()
			lags, failed = append(lags, got...), errors.Join(failed, err)
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	slices.Sort(lags)
	at := func(q float64) time.Duration { return lags[int(q*float64(len(lags)-1))].Round(10 * time.Microsecond) }
	b.report(row{fmt.Sprintf("push lag at %.0f writes/s", float64(len(lags))/float64(b.seconds)), fmt.Sprintf("median %v, p99 %v (aim 5ms, 50ms)", at(0.5), at(0.99)),
		fmt.Sprintf("%d writes, from the answer on one node to readable on the other", len(lags)), "go run ./bench -run lag"})
	return nil
}

func lagWorker(ctx context.Context, w int, to, from, token string, deadline time.Time) (lags []time.Duration, err error) {
	writer, err := net.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	reader, err := net.Dial("tcp", from)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	wr, rd := bufio.NewReader(writer), bufio.NewReader(reader)
	pace := time.NewTicker(time.Second * lagWriter / lagRate)
	defer pace.Stop()
	for i := int64(0); time.Now().Before(deadline); i++ {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return lags, ctx.Err()
		}
		number := int64(w)*1_000_000 + i
		key := fmt.Sprintf("lag/%d", number)
		if _, err := fmt.Fprintf(writer, "PUT /kv/%s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", key, token, len(document), document); err != nil {
			return lags, err
		}
		if err := readAnswer(wr); err != nil {
			return lags, err
		}
		begin := time.Now()
		for {
			if _, err := fmt.Fprintf(reader, "GET /kv/%s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", key, token); err != nil {
				return lags, err
			}
			err := readAnswer(rd)
			if err == nil {
				break
			}
			var status statusError
			if !errors.As(err, &status) || !strings.Contains(string(status), "404") || time.Since(begin) > 10*time.Second {
				return lags, err
			}
		}
		lags = append(lags, time.Since(begin))
	}
	return lags, nil
}
