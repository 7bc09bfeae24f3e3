package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"kvs/features/tamperlog"
	"kvs/storage"
	"kvs/types"
)

// witnessCall is the call between nodes that brings a checkpoint.
const witnessCall = "witness"

// checkpointEvery is how often the peers are shown the end of this node's tamper
// log, while there is something new.
const checkpointEvery = 10 * time.Second

// auditor keeps this node's tamper log, and what this node has witnessed of the
// others'.
type auditor struct {
	log     *tamperlog.Log // nil: tamper_logging_enabled is false
	witness *tamperlog.Witness

	mu    sync.Mutex              // guards shown
	shown map[types.NodeID]uint64 // by peer: the last entry that it has kept a checkpoint of
}

func newAuditor(dir string, logs bool, log *slog.Logger) *auditor {
	t := &auditor{
		witness: tamperlog.NewWitness(tamperlog.WitnessOptions{Log: log}),
		shown:   make(map[types.NodeID]uint64),
	}
	if logs {
		t.log = tamperlog.New(tamperlog.Options{Dir: dir, Log: log})
	}
	return t
}

func (t *auditor) hooks() []storage.Hook {
	if t.log == nil {
		return []storage.Hook{t.witness}
	}
	return []storage.Hook{t.log, t.witness}
}

func (t *auditor) start(ctx context.Context, store *storage.Store) error {
	if err := t.witness.Start(ctx, store); err != nil || t.log == nil {
		return err
	}
	return t.log.Start(ctx, store)
}

// asker reaches the other nodes.
type asker interface {
	Live() []types.NodeID
	Ask(ctx context.Context, node types.NodeID, call string, body []byte) ([]byte, error)
}

// run writes refused attempts and shows checkpoints to the peers until ctx ends;
// peers is nil on a node without a cluster.
func (t *auditor) run(ctx context.Context, peers asker) error {
	if t.log == nil {
		return nil
	}
	var wg sync.WaitGroup
	if peers != nil {
		wg.Go(func() {
			tick := time.NewTicker(checkpointEvery)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					t.show(ctx, peers)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	err := t.log.Run(ctx)
	wg.Wait()
	return err
}

// show sends the newest checkpoint to the live peers that have not kept it. One
// that fails gets it the next time.
func (t *auditor) show(ctx context.Context, peers asker) {
	c, ok := t.log.Checkpoint()
	if !ok {
		return
	}
	var wg sync.WaitGroup
	for _, node := range peers.Live() {
		t.mu.Lock()
		has := t.shown[node] >= c.N
		t.mu.Unlock()
		if has {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkpointEvery)
			defer cancel()
			if _, err := peers.Ask(ctx, node, witnessCall, c.Encode()); err == nil {
				t.mu.Lock()
				t.shown[node] = c.N
				t.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// take answers another node's witnessCall.
func (t *auditor) take(ctx context.Context, from types.NodeID, body []byte) ([]byte, error) {
	return nil, t.witness.Take(ctx, from, body)
}

// maxStrange is how many bytes of a path a stranger gets into the log.
const maxStrange = 100

// note keeps a refused request.
func (a *api) note(r *request, err error) {
	if r.noted {
		return
	}
	what := r.Method + " " + r.URL.Path
	if key, ok := strings.CutPrefix(r.URL.Path, "/kv/"); ok {
		what = key
	}
	if r.who == nil {
		what = what[:min(len(what), maxStrange)]
	}
	a.noteAt(r, what, err)
}

// noteAt keeps an attempt at what that was refused, if err is a refusal to the
// caller.
func (a *api) noteAt(r *request, what string, err error) {
	if a.audit.log == nil {
		return
	}
	reason := ""
	switch {
	case errors.Is(err, errHidden):
		reason = forbidden.code
	default:
		p := (*refusal)(nil)
		if !errors.As(err, &p) || p.problem != unauthorized && p.problem != forbidden {
			return
		}
		reason = p.code
	}
	by := storage.Actor{Address: r.from()}
	if r.who != nil {
		by = *r.actor()
	}
	a.audit.log.Refused(by, what, reason)
}
