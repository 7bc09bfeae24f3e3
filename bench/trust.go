package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// runTrust pairs requests with a token with those of nobody on the same node,
// and a node that keeps the tamper log with one that does not.
func runTrust(ctx context.Context, b *bench) error {
	logging, err := b.newNode("logging", nil, "allow_anonymous_read: true")
	if err != nil {
		return err
	}
	silent, err := b.newNode("silent", nil, "tamper_logging_enabled: false")
	if err != nil {
		return err
	}
	length := time.Duration(b.seconds) * time.Second
	for _, n := range []*node{logging, silent} {
		if _, err := n.start(ctx, b.binary); err != nil {
			return err
		}
		defer n.stop()
		fill := &load{addr: n.addr, connections: httpConnections, request: requests(http.MethodPut, n.token)}
		if _, err := fill.run(ctx, max(length, 3*time.Second)); err != nil {
			return err
		}
	}
	for _, pair := range []struct {
		name, aim, against string
		ours, theirs       target
	}{
		{"GET with a token, 64 connections, net/http client", "(aim 0.90)", "one without",
			target{logging, http.MethodGet, logging.token}, target{logging, http.MethodGet, ""}},
		{"durable PUT with the tamper log, the same", "(aim 0.85)", "one without the log",
			target{logging, http.MethodPut, logging.token}, target{silent, http.MethodPut, silent.token}},
	} {
		var ratios, ours, theirs []float64
		for range httpPairs {
			a, err := pair.ours.run(ctx, length)
			if err != nil {
				return err
			}
			z, err := pair.theirs.run(ctx, length)
			if err != nil {
				return err
			}
			ratios, ours, theirs = append(ratios, a/z), append(ours, a), append(theirs, z)
		}
		b.report(row{pair.name, fmt.Sprintf("%.2f of %s %s", median(ratios), pair.against, pair.aim),
			fmt.Sprintf("%.0f/s against %.0f/s, medians of %d pairs", median(ours), median(theirs), httpPairs), "go run ./bench -run trust"})
	}
	return nil
}

// target is whom a load of one kind goes to.
type target struct {
	node          *node
	method, token string
}

func (t target) run(ctx context.Context, length time.Duration) (float64, error) {
	return goClient{t.method, t.token}.run(ctx, t.node.addr, length)
}
