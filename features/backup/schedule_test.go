package backup

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"kvs/types"
)

// The schedule makes a full backup a day and incremental ones in between, and
// goes on after one that failed.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		schedule, err := cron.ParseStandard("30 */6 * * *")
		if err != nil {
			t.Fatal(err)
		}
		var made []string
		var full time.Time
		var offset atomic.Int64 // by which the clock was set
		s := scheduler{schedule: schedule, log: slog.New(slog.DiscardHandler), newestFull: func() time.Time { return full }}
		s.now = func() time.Time { return time.Now().UTC().Add(time.Duration(offset.Load())) }
		s.backup = func(_ context.Context, kind Type) error {
			made = append(made, s.now().Format("2 15:04 ")+string(kind))
			if kind == Full {
				full = s.now()
			}
			if len(made) == 3 {
				return errors.New("failed")
			}
			time.Sleep(time.Minute) // it takes a while
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.run(ctx); close(done) }()
		time.Sleep(29 * time.Hour) // from midnight of the 1st of January 2000
		synctest.Wait()
		want := []string{"1 00:30 full", "1 06:30 incremental", "1 12:30 incremental", "1 18:30 incremental", "2 00:30 full"}
		if !slices.Equal(made, want) {
			t.Errorf("made %q", made)
		}
		// The clock is set ahead to a minute before the next one.
		offset.Store(int64(89 * time.Minute))
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if want = append(want, "2 06:30 incremental"); !slices.Equal(made, want) {
			t.Errorf("after the clock was set: %q", made)
		}
		cancel()
		<-done
	})
}

func TestScheduleOfNoDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		schedule, err := cron.ParseStandard("0 0 30 2 *")
		if err != nil {
			t.Fatal(err)
		}
		s := scheduler{schedule: schedule, now: time.Now, backup: func(context.Context, Type) error { t.Error("a backup was made"); return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 10*24*time.Hour)
		defer cancel()
		s.run(ctx)
	})
}

// What the manager is given is what the schedule runs on.
func TestRun(t *testing.T) {
	n := startNode(t, func(o *Options) { o.Schedule = "* * * * *" })
	n.put("a", "1")
	n.m.opts.Ready = func() error { return types.ErrSyncing }
	// A second before the next minute, as far as the manager knows.
	begin := time.Now()
	n.m.opts.Now = func() time.Time {
		return begin.Truncate(time.Minute).Add(59*time.Second + 990*time.Millisecond + time.Since(begin))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.m.Run(ctx) }()
	for end := time.Now().Add(10 * time.Second); n.m.Stats().Failed == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the schedule did not begin a backup")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"x", "61 * * * *", "* * * *"} {
		if _, err := New(Options{Store: n.store, Schedule: bad}); err == nil || !strings.Contains(err.Error(), "backup_schedule") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
