package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kvs/storage"
	"kvs/types"
)

// RestoreOptions say what is restored, and how.
type RestoreOptions struct {
	Chain []Info    // as Resolve gives it
	At    time.Time // the state as of then; zero: that of the newest backup
	// SkipUnknown leaves out the keys of which no backup tells what they were at
	// that time. Otherwise there being some is an UnknownError.
	SkipUnknown bool
	Older       int                             // versions of a key's history that are restored
	Now         time.Time                       // of this machine
	MaxSkew     time.Duration                   // how far records may be dated ahead of it
	Progress    func(what string, n, of uint64) // told now and then; nil = nobody
}

// Report is what a restore did, or would do.
type Report struct {
	Live       uint64 // values
	Tombstones uint64
	Expired    uint64 // values that have expired since
	Older      uint64 // versions that are history
	Left       uint64 // records that belong to the old cluster alone
	Unknown    uint64 // keys whose state at the time is not known, and that are left out
	Damaged    uint64 // keys that the node could not read when the backups were made
}

// UnknownError says that no backup tells what some keys were at a time.
type UnknownError struct {
	At    time.Time
	Keys  uint64
	First types.Ref
}

// Error names the first of the keys and the remedy.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("no backup tells what %d keys were at %s, among them %s: they changed too often since. "+
		"A backup that was made soon after that time may tell (name it, if it is not beside these), or leave these keys out (--skip-unknown)",
		e.Keys, e.At.UTC().Format(time.RFC3339), e.First)
}

// restoreBatch is how many records are written at once, and of how many bytes.
const (
	restoreBatch = 1000
	restoreBytes = 4 << 20
)

// Prepared is a chain that is verified as a whole, and what restoring it would
// do. Nothing has been written.
type Prepared struct {
	o       RestoreOptions
	sources []source
	close   func()
	plan    plan
	total   uint64 // entries
	Report  Report
}

// Prepare verifies a chain and finds out what restoring it does. Close the
// outcome.
func Prepare(ctx context.Context, o RestoreOptions) (_ *Prepared, err error) {
	if o.Progress == nil {
		o.Progress = func(string, uint64, uint64) {}
	}
	p := &Prepared{o: o}
	p.sources, p.close, err = openChain(ctx, o.Chain, func(name string) { o.Progress("verifying "+name, 0, 0) })
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	last := &p.sources[len(p.sources)-1]
	p.plan = plan{horizon: last.header.Horizon, older: o.Older}
	if !o.At.IsZero() {
		p.plan.at = o.At.UnixMilli()
		if created := o.Chain[len(o.Chain)-1].Created; p.plan.at > created {
			return nil, fmt.Errorf("%s is later than the newest backup of the chain, which is of %s",
				o.At.UTC().Format(time.RFC3339), time.UnixMilli(created).UTC().Format(time.RFC3339))
		}
	}
	for i := range p.sources {
		t := &p.sources[i].trailer
		p.total += t.Records
		p.Report.Damaged += t.Damaged
		if ahead := t.Newest.Time().Sub(o.Now); ahead > o.MaxSkew {
			return nil, fmt.Errorf("%w: %s holds a record that is dated %s, %s ahead of this machine's clock; set the clock right, or wait",
				types.ErrClockSkew, p.sources[i].name, t.Newest.Time().UTC().Format(time.RFC3339), ahead.Round(time.Second))
		}
	}
	var first types.Ref
	err = p.walk(ctx, "reading", func(k *history, records []types.Record, f fate) error {
		p.count(records, f)
		if f == unknown && p.Report.Unknown == 1 {
			first = k.ref
		}
		return nil
	})
	if err == nil && p.Report.Unknown > 0 && !o.SkipUnknown {
		err = &UnknownError{o.At, p.Report.Unknown, first}
	}
	return p, err
}

// Close releases the files.
func (p *Prepared) Close() { p.close() }

// Header is that of the newest backup of the chain.
func (p *Prepared) Header() Header { return p.sources[len(p.sources)-1].header }

// walk gives each key with what becomes of it.
func (p *Prepared) walk(ctx context.Context, what string, fn func(*history, []types.Record, fate) error) error {
	n := uint64(0)
	return walkChain(ctx, p.sources, func(k *history) error {
		if n++; n%10_000 == 0 {
			p.o.Progress(what, n, p.total)
		}
		records, f := p.plan.of(k)
		return fn(k, records, f)
	})
}

func (p *Prepared) count(records []types.Record, f fate) {
	switch f {
	case left:
		p.Report.Left++
	case unknown:
		p.Report.Unknown++
	case restored:
		current := &records[len(records)-1]
		p.Report.Older += uint64(len(records) - 1)
		switch {
		case current.Tombstone():
			p.Report.Tombstones++
		case current.Live(p.o.Now.UnixMilli()):
			p.Report.Live++
		default:
			p.Report.Expired++
		}
	}
}

// Write writes what was prepared into an empty store, which belongs to a cluster
// of its own.
func (p *Prepared) Write(ctx context.Context, s *storage.Store) error {
	if _, count := s.Tree().Root(); count > 0 {
		return errors.New("the store is not empty")
	}
	batches := make(chan []types.Record, 2)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for batch := range batches {
			if err := s.Restore(ctx, batch); err != nil {
				cancel(err)
				return
			}
		}
	}()
	var batch []types.Record
	size := 0
	send := func() error {
		select {
		case batches <- batch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		batch, size = nil, 0
		return nil
	}
	err := p.walk(ctx, "restoring", func(_ *history, records []types.Record, _ fate) error {
		for i := range records {
			size += len(records[i].Key) + len(records[i].Value)
		}
		if batch = append(batch, records...); len(batch) < restoreBatch && size < restoreBytes {
			return nil
		}
		return send()
	})
	if err == nil && len(batch) > 0 {
		err = send()
	}
	close(batches)
	<-done
	if cause := context.Cause(ctx); cause != nil {
		err = cause // rather than what came of it
	}
	if err != nil {
		return err
	}
	return markLineage(ctx, s, p.Header())
}
