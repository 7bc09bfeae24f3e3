package backup

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"

	"kvs/types"
)

// fullEvery is how old the newest full backup may be when an incremental one is
// scheduled. So a schedule of once a day makes full ones.
const fullEvery = 23 * time.Hour

// nap is how long the clock goes unlooked at: it may be set, and machines sleep.
const nap = time.Minute

// Run makes backups by the schedule until ctx ends, or Close is called. A time at which the node did
// not run, or was busy, is passed over.
func (m *Manager) Run(ctx context.Context) error {
	if err := removeLeftovers(m.opts.Dir, m.node); err != nil {
		m.log.Warn("what an earlier backup left behind could not be removed", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life, cancel)()
	if m.schedule == nil {
		<-ctx.Done()
		return nil
	}
	s := scheduler{schedule: m.schedule, now: m.opts.Now, newestFull: m.newestFull, log: m.log, backup: func(ctx context.Context, t Type) error {
		_, err := m.Backup(ctx, t)
		return err
	}}
	s.run(ctx)
	return nil
}

// newestFull is when the newest full backup of this node was made.
func (m *Manager) newestFull() (at time.Time) {
	for _, info := range m.List() {
		if info.Type == Full && info.Node.UUID == m.node {
			at = time.UnixMilli(info.Created)
		}
	}
	return at
}

// scheduler says when which backup is made.
type scheduler struct {
	schedule   cron.Schedule
	now        func() time.Time
	newestFull func() time.Time // zero: there is none
	backup     func(context.Context, Type) error
	log        *slog.Logger
}

func (s *scheduler) run(ctx context.Context) {
	for s.wait(ctx, s.schedule.Next(s.now())) {
		t := Full
		if s.now().Sub(s.newestFull()) < fullEvery {
			t = Incremental
		}
		if err := s.backup(ctx, t); err != nil && ctx.Err() == nil && !errors.Is(err, types.ErrClosed) {
			s.log.Error("the scheduled backup failed", "error", err)
		}
	}
}

// wait reports whether the time has come, and not the end of ctx.
func (s *scheduler) wait(ctx context.Context, at time.Time) bool {
	if at.IsZero() { // a date that there is not, such as the 30th of February
		<-ctx.Done()
		return false
	}
	for {
		left := at.Sub(s.now())
		if left <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(left, nap))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
