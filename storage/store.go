package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/uuid"

	"kvs/storage/merkle"
	"kvs/types"
	"kvs/utils/hlc"
)

// Store is a node's records on disk. Its methods are safe for concurrent use.
type Store struct {
	opts     Options
	log      *slog.Logger
	db       *badger.DB
	identity Identity
	clock    *hlc.Clock
	ceiling  *ceiling
	disk     *disk
	tree     *merkle.Tree // changed by the committer only
	ring     *ring
	cache    *cache
	pins     pins

	seq        atomic.Uint64 // newest durable and visible commit
	txnBytes   int           // greatest transaction
	txnEntries int
	queue      chan *call
	stop       chan struct{} // closed by Close: the committer takes no more
	stopped    chan struct{} // closed by the committer
	broken     atomic.Pointer[error]

	checkpointed uint64 // sequence of the durable checkpoint; the background loop's, then Close's
	background   sync.WaitGroup
	cancel       context.CancelFunc
	closeOnce    sync.Once
	closeErr     error

	counters struct{ commits, conflicts, corrupt, repaired, scrubbed atomic.Uint64 }
}

// minWait is the longest part of the ceiling that a start waits out. What lies
// further ahead comes from a clock that was wrong, and Write then refuses until
// the wall clock has caught up.
const minWait = time.Second

// queueLen bounds the calls that wait for the committer; more of them wait in
// submit.
const queueLen = 4096

// poolRandomness makes version ids cheap: they need to be unique, not secret.
// Once, because it must not run while ids are made.
var poolRandomness = sync.OnceFunc(uuid.EnableRandPool)

// Open opens the data directory, or makes a new one.
func Open(o Options) (_ *Store, err error) {
	o = o.withDefaults()
	poolRandomness()
	s := &Store{
		opts: o, log: o.Log,
		queue: make(chan *call, queueLen), stop: make(chan struct{}), stopped: make(chan struct{}),
		disk: &disk{dir: o.Dir, min: o.MinFreeDisk, ask: o.FreeDisk},
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	if err := s.checkRoom(); err != nil {
		return nil, err
	}
	var existed bool
	if s.ceiling, existed, err = openCeiling(filepath.Join(o.Dir, ceilingFile)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.ceiling.slots.Close()
		}
	}()
	if existed {
		s.waitForCeiling()
	}
	s.clock = hlc.New(o.Wall, s.ceiling.time.Load())
	if s.db, err = openBadger(o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.db.Close()
		}
	}()
	// A little less than what Badger takes: entrySize is an estimate, if one that
	// errs upwards.
	s.txnBytes, s.txnEntries = int(s.db.MaxBatchSize())-64<<10, int(s.db.MaxBatchCount()*3/4)
	s.seq.Store(max(s.db.MaxVersion(), s.ceiling.seq.Load(), 1))
	if err := s.loadTree(); err != nil {
		return nil, err
	}
	s.letDiscard(s.checkpointed)
	s.ring = newRing(o.RingBytes, s.seq.Load())
	s.cache = newCache(o.MemoryBudget / 16)

	if err := s.loadIdentity(); err != nil {
		return nil, err
	}

	go s.commitLoop()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.background.Go(func() { s.watchDisk(ctx) })
	s.background.Go(func() { s.keepCheckpoints(ctx) })
	s.background.Go(func() { s.keepCollecting(ctx) })
	if o.ScrubEvery > 0 {
		s.background.Go(func() { s.keepScrubbing(ctx, existed) })
	}
	return s, nil
}

// checkRoom refuses to open where Badger would die: it replays its log into
// tables before anything else.
func (s *Store) checkRoom() error {
	free, _, err := s.disk.check()
	if err != nil || s.opts.MinFreeDisk == 0 {
		return err
	}
	if need := min(s.opts.MinFreeDisk, 2*memtableSize); free < need {
		return fmt.Errorf("%w: %s has %d MiB free, and opening the database needs %d; free some space and start again",
			types.ErrDiskFull, s.opts.Dir, free>>20, need>>20)
	}
	return nil
}

// waitForCeiling waits until the wall clock has passed the ceiling, so that new
// timestamps are neither used twice nor in the future.
func (s *Store) waitForCeiling() {
	ahead := types.Timestamp(s.ceiling.time.Load()).Time().Sub(s.opts.Wall())
	switch {
	case ahead > minWait:
		s.log.Warn("this machine's clock is behind the last timestamp that was used; is it set right?", "behind", ahead.Round(time.Millisecond))
	case ahead > 0:
		time.Sleep(ahead)
	}
}

// openBadger opens the database; what Badger panics about, such as a damaged
// table index, becomes an error with the remedy.
func openBadger(o Options) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%v", p)
		}
		if err != nil {
			err = fmt.Errorf("the database in %s cannot be opened (if it is damaged: move the directory away and start with an empty one, the other nodes have the data): %w", o.Dir, err)
		}
	}()
	return badger.OpenManaged(badgerOptions(o))
}

// Close stops the committer after what was queued, writes a checkpoint, and
// closes the database. It may be called more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.cancel()
		s.background.Wait()
		close(s.stop)
		<-s.stopped
		var err error
		if s.broken.Load() == nil && !s.disk.full.Load() && s.seq.Load() != s.checkpointed {
			err = s.writeCheckpoint(merkle.Encode(s.tree, s.seq.Load(), s.Horizon()), s.seq.Load())
		}
		s.closeErr = errors.Join(err, s.db.Close(), s.ceiling.slots.Close())
	})
	return s.closeErr
}

// Identity gives the node's identity.
func (s *Store) Identity() Identity { return s.identity }

// Now reads the node's wall clock.
func (s *Store) Now() time.Time { return s.clock.Wall() }

// Horizon is E, in Unix ms: what has a purge time at or below it is absent. No
// garbage is collected yet, so it is 0.
func (s *Store) Horizon() int64 { return 0 }

// Stats are counters since the start, and the state of the disk.
type Stats struct {
	Records   uint64 // in the tree, tombstones included
	Commits   uint64
	Conflicts uint64 // losers kept
	Corrupt   uint64 // reads of damaged records
	Repaired  uint64 // damaged records replaced
	Scrubbed  uint64 // Merkle buckets that the scrub found to differ from the disk
	FreeDisk  int64  // bytes
	DiskFull  bool
	DiskBytes int64 // of the database's files
}

// Stats reads the counters.
func (s *Store) Stats() Stats {
	_, records := s.tree.Root()
	lsm, vlog := s.db.Size()
	return Stats{
		Records: records, Commits: s.counters.commits.Load(), Conflicts: s.counters.conflicts.Load(),
		Corrupt: s.counters.corrupt.Load(), Repaired: s.counters.repaired.Load(), Scrubbed: s.counters.scrubbed.Load(),
		FreeDisk: s.disk.free.Load(), DiskFull: s.disk.full.Load(), DiskBytes: lsm + vlog,
	}
}
