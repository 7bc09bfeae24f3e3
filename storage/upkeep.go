package storage

import (
	"context"
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/merkle"
)

// every calls fn at intervals until ctx ends.
func every(ctx context.Context, interval time.Duration, fn func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fn()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Store) watchDisk(ctx context.Context) {
	every(ctx, diskCheckEvery, func() {
		free, changed, err := s.disk.check()
		switch {
		case err != nil:
			s.log.Error("free disk space is not known", "error", err)
		case changed && s.disk.full.Load():
			s.log.Error("disk nearly full: writes are refused until space is freed", "free_mb", free>>20, "min_free_disk_mb", s.opts.MinFreeDisk>>20)
		case changed:
			s.log.Info("disk space is back: writes are taken again", "free_mb", free>>20)
		}
	})
}

func (s *Store) keepCheckpoints(ctx context.Context) {
	every(ctx, s.opts.CheckpointEvery, func() {
		if s.disk.full.Load() {
			return
		}
		if err := s.checkpoint(); err != nil {
			s.log.Error("checkpoint failed", "error", err)
		}
	})
}

// valueLogEvery is how often the value log is looked at. Badger rewrites a file
// at a time, and only one of which half is garbage.
const valueLogEvery = 5 * time.Minute

// valueLogGrowth is by how many bytes the value log grows before a flush.
const valueLogGrowth = 512 << 20

func (s *Store) keepCollecting(ctx context.Context) {
	_, flushedAt := s.db.Size()
	every(ctx, valueLogEvery, func() {
		if s.disk.full.Load() {
			return
		}
		// Badger's sizes are up to a minute old, which does not matter here.
		if _, size := s.db.Size(); size-flushedAt > valueLogGrowth {
			if err := s.flush(); err != nil {
				s.log.Error("flushing the tables failed", "error", err)
				return
			}
			flushedAt = size
		}
		if err := s.collectValueLog(ctx); err != nil {
			s.log.Error("value log collection failed", "error", err)
		}
	})
}

// collectValueLog rewrites files of the value log of which half is garbage, as
// far as compactions have found out.
func (s *Store) collectValueLog(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.db.RunValueLogGC(0.5)
		if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flush makes Badger write its memtable to a table and compact it, which is how
// it learns what in the value log is garbage. By itself it does so when a
// memtable is full, and of large values there are only pointers in it: a few
// keys overwritten again and again would fill the disk.
//
// Badger has no call for that. Dropping a prefix does it, if there is a key with
// the prefix. It stops reads and writes for as long as it takes, about a second.
func (s *Store) flush() error {
	var failed error
	err := s.inCommitter(func() {
		if err := s.broken.Load(); err != nil {
			failed = *err
			return
		}
		txn := s.db.NewTransactionAt(s.seq.Load(), true)
		defer txn.Discard()
		if failed = txn.Set([]byte{spaceFlush}, nil); failed != nil {
			return
		}
		if failed = txn.CommitAt(s.seq.Load(), nil); failed == nil {
			failed = s.db.DropPrefix([]byte{spaceFlush})
		}
		if failed != nil {
			failed = s.fail(failed)
		}
	})
	return errors.Join(err, failed)
}

// scrubDelay lets a node that just started serve before it reads everything.
const scrubDelay = 10 * time.Second

// keepScrubbing scrubs soon after the start, unless there was nothing at the
// start, and then at intervals.
func (s *Store) keepScrubbing(ctx context.Context, soon bool) {
	scrub := func() {
		if found, err := s.Scrub(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("scrub failed", "error", err)
		} else if found > 0 {
			s.log.Error("scrub: records on disk are damaged or lost; they will be fetched from other nodes", "merkle_buckets", found)
		}
	}
	if soon {
		select {
		case <-time.After(min(scrubDelay, s.opts.ScrubEvery)):
			scrub()
		case <-ctx.Done():
			return
		}
	}
	every(ctx, s.opts.ScrubEvery, scrub)
}

// Scrub reads every record and compares what it finds with the Merkle tree,
// bucket by bucket. A bucket that differs is counted anew, so that anti-entropy
// fetches what was lost. It gives the number of such buckets.
func (s *Store) Scrub(ctx context.Context) (int, error) {
	var want *merkle.Tree
	var txn *badger.Txn
	if err := s.inCommitter(func() { want, txn = s.tree.Clone(), s.snapshot() }); err != nil {
		return 0, err
	}
	suspects := want.Diff(s.countAll(txn))
	found := 0
	for _, bucket := range suspects {
		if ctx.Err() != nil {
			return found, ctx.Err()
		}
		if err := s.inCommitter(func() {
			if s.recountNow(bucket) {
				found++
			}
		}); err != nil {
			return found, err
		}
	}
	s.counters.scrubbed.Add(uint64(found))
	return found, nil
}
