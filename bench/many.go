package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"kvs/storage"
	"kvs/types"
)

// preload fills a data directory with b.keys documents, offline.
func (b *bench) preload(ctx context.Context, dir string) error {
	s, err := storage.Open(storage.Options{Dir: dir, Compression: true, ScrubEvery: -1})
	if err != nil {
		return err
	}
	defer s.Close()
	const batch = 1000
	ops := make([]storage.Op, 0, batch)
	for i := 0; i < b.keys; i += batch {
		ops = ops[:0]
		for j := i; j < min(i+batch, b.keys); j++ {
			ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: manyKey(j), Value: document})
		}
		if _, err := s.Write(ctx, ops, false); err != nil {
			return err
		}
	}
	return s.Close()
}

func manyKey(i int) types.Ref {
	return types.DataRef(types.Key(fmt.Sprintf("many/%03d/%07d", i%500, i)))
}

// filled gives a node whose data directory holds b.keys documents.
func (b *bench) filled(ctx context.Context, name string, seeds []string, more ...string) (*node, error) {
	n, err := b.newNode(name, seeds, more...)
	if err != nil {
		return nil, err
	}
	if err := b.fillMaster(ctx); err != nil {
		return nil, err
	}
	return n, os.Symlink(filepath.Join(b.dir, "master"), n.dir)
}

// fillMaster fills the directory that the experiments with many keys share, one
// after the other.
func (b *bench) fillMaster(ctx context.Context) error {
	master := filepath.Join(b.dir, "master")
	if _, err := os.Stat(master); err == nil {
		return nil
	}
	fmt.Fprintf(os.Stderr, "  filling a data directory with %d keys\n", b.keys)
	return b.preload(ctx, master)
}

func runRestart(ctx context.Context, b *bench) error {
	n, err := b.filled(ctx, "restart", nil)
	if err != nil {
		return err
	}
	var clean, killed []float64
	for range 3 {
		took, err := n.start(ctx, b.binary)
		if err != nil {
			return err
		}
		clean = append(clean, took.Seconds())
		if err := n.stop(); err != nil {
			return err
		}
	}
	for range 3 {
		if _, err := n.start(ctx, b.binary); err != nil {
			return err
		}
		if _, err := (&load{addr: n.addr, connections: 16, request: requests(http.MethodPut, n.token)}).run(ctx, 2*time.Second); err != nil {
			return err
		}
		n.cmd.Process.Kill()
		n.cmd.Wait()
		took, err := n.start(ctx, b.binary)
		if err != nil {
			return err
		}
		killed = append(killed, took.Seconds())
		if err := n.stop(); err != nil {
			return err
		}
	}
	b.report(row{fmt.Sprintf("restart with %d keys until it serves", b.keys), fmt.Sprintf("%.2f s (aim 2 s)", median(clean)),
		fmt.Sprintf("after kill -9 under load %.2f s; medians of 3", median(killed)), "go run ./bench -run restart"})
	return nil
}

func runJoin(ctx context.Context, b *bench) error {
	full, err := b.filled(ctx, "join1", nil)
	if err != nil {
		return err
	}
	empty, err := b.newNode("join2", []string{full.addr})
	if err != nil {
		return err
	}
	if _, err := full.start(ctx, b.binary); err != nil {
		return err
	}
	defer full.stop()
	if _, err := empty.start(ctx, b.binary); err != nil {
		return err
	}
	defer empty.stop()
	begin := time.Now()
	if err := equalRoots(ctx, []*node{full, empty}, b.keys, 10*time.Minute); err != nil {
		return err
	}
	took := time.Since(begin)
	anonymous, _, err := empty.memory()
	if err != nil {
		return err
	}
	b.report(row{fmt.Sprintf("an empty node joins one with %d keys", b.keys), fmt.Sprintf("%.0f records/s (aim 50,000)", float64(b.keys)/took.Seconds()),
		fmt.Sprintf("%.1f s until both roots are equal; the new node takes %d MB", took.Seconds(), anonymous>>20), "go run ./bench -run join"})
	return nil
}
