package storage

import (
	"context"
	"fmt"
	"runtime"

	"kvs/types"
)

// work is what a caller asks of the committer. It is staged part by part; a part
// is never split over two commits, the parts of one work may be.
type work interface {
	parts() int
	// size bounds what part i adds to a transaction, in bytes as entrySize.
	size(i int) int
	// stage decides part i within c. Outcomes are kept in the work itself,
	// which belongs to the committer until the call is answered.
	stage(c *commit, i int)
}

// call is a work on its way through the committer.
type call struct {
	work
	err  error
	done chan error // capacity 1
}

// maxYields bounds the wait for further calls, in turns of the scheduler.
const maxYields = 50

// maxGroup bounds how many calls share a commit, so that the first of them does
// not wait for ever longer ones.
const maxGroup = 1024

// submit hands w to the committer and waits until it is durable. If ctx ends
// first, w may or may not be written, and stays the committer's.
func (s *Store) submit(ctx context.Context, w work) error {
	c := &call{work: w, done: make(chan error, 1)}
	select {
	case s.queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return types.ErrClosed
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
		// The committer may have answered just before it stopped.
		select {
		case err := <-c.done:
			return err
		default:
			return types.ErrClosed
		}
	}
}

// commitLoop is the committer. It ends when stop is closed, after what was
// queued by then.
func (s *Store) commitLoop() {
	defer close(s.stopped)
	last := 0 // calls in the latest group
	for {
		select {
		case first := <-s.queue:
			// The callers of the latest group are likely to call again, and a
			// commit costs nearly the same for one call as for many. Those that
			// are ready to run go first; where none is, this takes no time.
			for yields := 0; yields < maxYields && len(s.queue)+1 < last; yields++ {
				runtime.Gosched()
			}
			last = s.group(first)
		case <-s.stop:
			for {
				select {
				case first := <-s.queue:
					s.group(first)
				default:
					return
				}
			}
		}
	}
}

// group commits first together with what else is waiting, and gives the number
// of calls.
func (s *Store) group(first *call) int {
	c := s.begin()
	waiting := make([]*call, 0, 64)
	flush := func() {
		err := s.finish(c)
		for _, w := range waiting {
			if w.err == nil {
				w.err = err
			}
		}
	}
	for next := first; next != nil; {
		waiting = append(waiting, next)
		for i := range next.parts() {
			if c.full(next.size(i)) {
				flush()
				c = s.begin()
			}
			next.stage(c, i)
		}
		next = s.waitingCall(len(waiting))
	}
	flush()
	for _, w := range waiting {
		w.done <- w.err
	}
	return len(waiting)
}

func (s *Store) waitingCall(have int) *call {
	if have >= maxGroup {
		return nil
	}
	select {
	case c := <-s.queue:
		return c
	default:
		return nil
	}
}

// finish applies c unless an earlier commit broke the store.
func (s *Store) finish(c *commit) error {
	if err := s.broken.Load(); err != nil {
		c.read.Discard()
		return *err
	}
	if err := c.apply(); err != nil {
		return s.fail(err)
	}
	return nil
}

// fail ends all writing: what Badger holds after a failure is not known until
// the next start.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("the data directory %s could not be written, and no write is taken until a restart: %w", s.opts.Dir, err)
	s.broken.Store(&err)
	s.log.Error("storage failed", "error", err)
	return err
}

// inCommitter runs fn between two commits. No context ends it early: what fn
// writes is the caller's again when it returns.
func (s *Store) inCommitter(fn func()) error {
	return s.submit(context.Background(), funcWork(fn))
}

type funcWork func()

func (funcWork) parts() int           { return 1 }
func (funcWork) size(int) int         { return 1 << 30 } // nothing staged before it, nothing after it in its commit
func (f funcWork) stage(*commit, int) { f() }
