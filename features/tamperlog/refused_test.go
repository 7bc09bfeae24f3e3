package tamperlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// run runs the log until the function that it gives is called.
func (n *node) run() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.log.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// attempts counts what the log says of refused attempts.
func (n *node) attempts() (listed, counted, entries uint64) {
	n.t.Helper()
	for _, e := range n.entries(Filter{}) {
		switch e.Action {
		case ActionRefused:
			listed += e.Count
			entries++
		case ActionGap:
			counted += e.Count
			entries++
		}
	}
	return listed, counted, entries
}

// Without writes a refused attempt is in the log after about a second.
func TestRefusedWithoutWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNode(t, "")
		stop := n.run()
		time.Sleep(2 * time.Second)
		eve := storage.Actor{Subject: "eve", Token: "jti", Address: "10.0.0.9"}
		for range 3 {
			n.log.Refused(eve, "secret", "forbidden")
		}
		n.log.Refused(storage.Actor{Address: "10.0.0.9"}, "", "unauthorized")
		time.Sleep(noteDelay / 2)
		if got := n.entries(Filter{Action: ActionRefused}); len(got) != 0 {
			t.Errorf("too early: %+v", got)
		}
		time.Sleep(noteDelay)
		got := n.entries(Filter{Action: ActionRefused})
		if len(got) != 2 || got[0].By != eve || got[0].Count != 3 || got[0].Key != "secret" || got[0].NS != types.NSData || got[0].Detail != "forbidden" ||
			got[1].NS != 0 || got[1].Key != "" || got[1].Detail != "unauthorized" {
			t.Errorf("%+v", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		n.sound(VerifyOptions{})
	})
}

// A flood is bounded in the log and in memory, and everything is counted,
// whether there are writes or not.
func TestFlood(t *testing.T) {
	for _, writes := range []bool{false, true} {
		t.Run(fmt.Sprintf("writes=%v", writes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := openNode(t, "")
				stop := n.run()
				const seconds, each = 3, 5000
				for s := range seconds {
					for i := range each {
						n.log.Refused(storage.Actor{Subject: "eve"}, fmt.Sprintf("k%d.%d", s, i), "forbidden")
						if writes && i%100 == 0 {
							storagetest.Put(t, n.store, "k", `1`)
						}
					}
					n.log.mu.Lock()
					if waiting := len(n.log.refused.waiting); waiting > 2*maxPerSecond+1 { // of two seconds, and that of the start
						t.Errorf("%d entries wait", waiting)
					}
					n.log.mu.Unlock()
					time.Sleep(time.Second)
				}
				time.Sleep(3 * time.Second)
				listed, counted, entries := n.attempts()
				if listed+counted != seconds*each || listed < seconds*maxPerSecond || entries > seconds*(maxPerSecond+2) {
					t.Errorf("%d listed, %d counted, of %d; %d entries", listed, counted, seconds*each, entries)
				}
				if s := n.log.Stats(); s.Refused != seconds*each || s.Suppressed != counted {
					t.Errorf("stats %+v", s)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				if r := n.sound(VerifyOptions{}); r.Refused != seconds*each || r.Suppressed != counted {
					t.Errorf("report %+v", r)
				}
			})
		})
	}
}

// What waits when Run ends is written, the count included.
func TestRefusedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNode(t, "")
		stop := n.run()
		for i := range 500 {
			n.log.Refused(storage.Actor{Subject: "eve"}, fmt.Sprint(i), "forbidden")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if listed, counted, _ := n.attempts(); listed != maxPerSecond || counted != 500-maxPerSecond {
			t.Errorf("%d listed, %d counted", listed, counted)
		}
	})
}

// However short Run runs, what waits is written.
func TestRunEndsAtOnce(t *testing.T) {
	n := openNode(t, "")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range uint64(20) {
		n.log.Refused(storage.Actor{Subject: "eve"}, fmt.Sprint(i), "forbidden")
		if err := n.log.Run(ended); err != nil {
			t.Fatal(err)
		}
		if listed, _, _ := n.attempts(); listed != i+1 {
			t.Fatalf("%d of %d attempts are in the log", listed, i+1)
		}
	}
}

// On a full disk attempts are counted until there is room again.
func TestRefusedOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		free.Store(1 << 40)
		dir := t.TempDir()
		n := &node{t: t, dir: dir, log: New(Options{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})}
		n.store = storagetest.Open(t, storage.Options{Dir: dir, Hooks: []storage.Hook{n.log}, MinFreeDisk: 1 << 30,
			FreeDisk: func(string) (int64, error) { return free.Load(), nil }})
		if err := n.log.Start(t.Context(), n.store); err != nil {
			t.Fatal(err)
		}
		stop := n.run()
		free.Store(1 << 20)
		time.Sleep(2 * time.Second)
		const seconds = 30
		for s := range seconds {
			for i := range 2 * maxPerSecond {
				n.log.Refused(storage.Actor{Subject: "eve"}, fmt.Sprintf("k%d.%d", s, i), "forbidden")
			}
			time.Sleep(time.Second)
		}
		n.log.mu.Lock()
		if waiting := len(n.log.refused.waiting); waiting > maxWaiting {
			t.Errorf("%d entries wait", waiting)
		}
		n.log.mu.Unlock()
		if listed, counted, _ := n.attempts(); listed+counted != 0 {
			t.Errorf("%d listed, %d counted on a full disk", listed, counted)
		}
		free.Store(1 << 40)
		time.Sleep(retryDelay + 3*time.Second)
		listed, counted, _ := n.attempts()
		if listed+counted != seconds*2*maxPerSecond || listed > maxWaiting {
			t.Errorf("%d listed, %d counted", listed, counted)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		n.sound(VerifyOptions{})
	})
}

// At the end of Run a store that takes nothing is an error that says what is
// lost.
func TestRefusedWhenClosed(t *testing.T) {
	n := openNode(t, "")
	stop := n.run()
	n.log.Refused(storage.Actor{Subject: "eve"}, "k", "forbidden")
	n.close()
	if err := stop(); !errors.Is(err, types.ErrClosed) || !strings.Contains(err.Error(), "refused attempts") {
		t.Errorf("%v", err)
	}
}

func TestRunBeforeStart(t *testing.T) {
	if err := New(Options{}).Run(t.Context()); !errors.Is(err, errNotStarted) {
		t.Errorf("%v", err)
	}
}

// Whoever shows no token cannot fill the disk.
func TestStrangersAreBounded(t *testing.T) {
	var r refusals
	now := time.Now()
	for s := range 60 {
		for i := range 10 {
			r.add(attempt{by: storage.Actor{Address: "192.0.2.1"}, key: fmt.Sprint(s, " ", i)}, now.Add(time.Duration(s)*time.Second))
		}
	}
	if len(r.waiting) != maxStrangers || r.suppressed != 600-maxStrangers {
		t.Errorf("%d attempts of strangers are listed and %d counted, within a minute", len(r.waiting), r.suppressed)
	}
	if !r.add(attempt{by: storage.Actor{Subject: "eve"}, key: "k"}, now.Add(59*time.Second)) {
		t.Error("an attempt with a token is not listed because of the strangers")
	}
	if !r.add(attempt{by: storage.Actor{Address: "192.0.2.1"}, key: "k"}, now.Add(61*time.Second)) {
		t.Error("a stranger of the next minute is not listed")
	}
}
