package server

import (
	"fmt"
	"log/slog"
	"time"
)

// teardown is what has to be undone, last in, first out, each step under a name
// that the log shows when it fails or takes long.
type teardown struct {
	steps []step
	log   *slog.Logger
}

type step struct {
	name string
	undo func() error
}

// slowStep is what a step of a normal stop stays under.
const slowStep = 5 * time.Second

func (t *teardown) push(name string, undo func() error) {
	t.steps = append(t.steps, step{name, undo})
}

// run undoes everything, and gives the first failure. A second call does
// nothing.
func (t *teardown) run() (first error) {
	for len(t.steps) > 0 {
		s := t.steps[len(t.steps)-1]
		t.steps = t.steps[:len(t.steps)-1]
		start := time.Now()
		if err := s.undo(); err != nil {
			t.log.Warn("a step of the stop failed", "step", s.name, "error", err)
			if first == nil {
				first = fmt.Errorf("%s: %w", s.name, err)
			}
		}
		if took := time.Since(start); took > slowStep {
			t.log.Warn("a step of the stop was slow", "step", s.name, "took", took.Round(time.Millisecond))
		}
	}
	return first
}
