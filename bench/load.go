package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load sends requests over keep-alive connections and counts the answers. It
// speaks just enough HTTP/1.1 to cost little beside the server, which shares
// the machine with it.
type load struct {
	addr        string
	connections int
	// request appends request number i to buf.
	request func(buf []byte, i int64) []byte
	first   int64 // number of the first request
}

// run gives answers per second over the given time. An answer other than 200
// or 201 is an error.
func (l *load) run(ctx context.Context, length time.Duration) (perSecond float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var next, done atomic.Int64
	next.Store(l.first)
	var wg sync.WaitGroup
	errs := make(chan error, l.connections)
	begin := time.Now()
	for range l.connections {
		wg.Go(func() {
			n, err := l.connection(ctx, &next)
			done.Add(n)
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return float64(done.Load()) / elapsed.Seconds(), err
}

func (l *load) connection(ctx context.Context, next *atomic.Int64) (done int64, err error) {
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 8<<10)
	var buf []byte
	for ctx.Err() == nil {
		buf = l.request(buf[:0], next.Add(1))
		if _, err := conn.Write(buf); err != nil {
			return done, err
		}
		if err := readAnswer(r); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

// statusError is an answer other than 200 or 201.
type statusError string

func (e statusError) Error() string { return "answer " + string(e) }

// readAnswer reads one response with a Content-Length. After a statusError the
// connection can go on.
func readAnswer(r *bufio.Reader) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	length := -1
	for {
		header, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(header) <= 2 {
			break
		}
		if v, ok := bytes.CutPrefix(header, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("answer without Content-Length")
	}
	if _, err := r.Discard(length); err != nil {
		return err
	}
	if len(line) < 12 || line[9:11] != "20" {
		return statusError(strings.TrimSpace(line))
	}
	return nil
}
