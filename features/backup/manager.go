package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"kvs/storage"
	"kvs/types"
)

// Options configure a Manager.
type Options struct {
	Store     *storage.Store
	Dir       string        // where the backups are
	DataDir   string        // of the store
	NodeID    string        // the node's name
	Schedule  string        // five fields of cron, in local time; empty = only when asked
	Retention time.Duration // how long a backup is kept
	MinFree   int64         // bytes that the node keeps free where its data is
	Program   string        // version of kvs, for the header
	Ready     func() error  // why no backup can be made now; nil = one always can

	FreeDisk func(dir string) (int64, error) // nil asks the file system
	Now      func() time.Time                // nil = time.Now
	Log      *slog.Logger                    // nil = slog.Default

	// create makes a file that must not exist; nil = on disk.
	create func(path string) (file, error)
	// horizon stands for E; nil = the store's and the snapshot's.
	horizon func() int64
}

// file is a file that is being written.
type file interface {
	io.WriteCloser
	Sync() error
}

func createFile(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// ErrBusy says that a backup or a restore is under way: there is one at a time.
var ErrBusy = errors.New("a backup or a restore is under way on this node")

// Manager makes and keeps the backups of one node. Its methods are safe for
// concurrent use.
type Manager struct {
	opts     Options
	log      *slog.Logger
	node     types.NodeID
	schedule cron.Schedule // nil = none

	life   context.Context
	end    context.CancelFunc
	mu     sync.Mutex // guards what follows
	busy   bool
	closed bool
	idle   *sync.Cond
	stats  Stats
}

// Stats are counters since the start.
type Stats struct {
	Made     uint64
	Failed   uint64
	LastAt   int64 // Unix ms of the newest that was made since the start; 0 if none
	LastSize int64 // bytes
}

// New checks the schedule. Close is called before the store is closed.
func New(o Options) (*Manager, error) {
	if o.FreeDisk == nil {
		o.FreeDisk = freeDisk
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.create == nil {
		o.create = createFile
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	m := &Manager{opts: o, log: o.Log, node: o.Store.Identity().UUID}
	m.idle = sync.NewCond(&m.mu)
	if o.Schedule != "" {
		var err error
		if m.schedule, err = cron.ParseStandard(o.Schedule); err != nil {
			return nil, fmt.Errorf("backup_schedule: %w", err)
		}
	}
	m.life, m.end = context.WithCancel(context.Background())
	return m, nil
}

// Close ends what is under way, and waits for it. Nothing can be begun then.
func (m *Manager) Close() error {
	m.end()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for m.busy {
		m.idle.Wait()
	}
	return nil
}

// Stats reads the counters.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// begin makes sure that nothing else is under way. The context it gives ends
// with the manager too.
func (m *Manager) begin(ctx context.Context) (context.Context, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, nil, types.ErrClosed
	case m.busy:
		return nil, nil, ErrBusy
	}
	m.busy = true
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.busy = false
		m.idle.Broadcast()
	}, nil
}

// List gives the backups in the directory, of whichever node, oldest first. What
// cannot be read is in the log.
func (m *Manager) List() []Info {
	infos, wrong := List(m.opts.Dir)
	for _, err := range wrong {
		m.log.Warn("a file among the backups is none", "error", err)
	}
	return infos
}

// Backup makes a backup; it is complete and verified when Backup returns. Where
// there is none that an incremental one could follow, it is a full one.
//
// The error is ErrBusy, types.ErrDiskFull, types.ErrClosed, what Ready said, the
// context's, or that of a disk. It has left nothing behind.
func (m *Manager) Backup(ctx context.Context, t Type) (Info, error) {
	ctx, done, err := m.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer done()
	start := m.opts.Now()
	info, err := m.make(ctx, t)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.stats.Failed++
		if m.life.Err() != nil {
			err = types.ErrClosed
		}
		return Info{}, err
	}
	m.stats.Made++
	m.stats.LastAt, m.stats.LastSize = info.Created, info.Size
	m.log.Info("backup made", "file", info.Path(), "type", info.Type, "records", info.Records, "bytes", info.Size,
		"sequence", info.Sequence, "took", m.opts.Now().Sub(start).Round(time.Millisecond))
	return info, nil
}
