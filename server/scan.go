package server

import (
	"context"
	"errors"
	"fmt"

	"kvs/storage"
	"kvs/types"
)

const (
	// maxRangeBytes ends a page early: a thousand large values are better sent
	// as several pages than held at once.
	maxRangeBytes = 8 << 20
	// firstStep is how many values are read before their size is known; each
	// step after it reads twice as many, up to maxStep.
	firstStep, maxStep = 16, 256
	// maxSearches is how many scans at a time may pass over what is hidden.
	maxSearches = 2
	// maxHeals bounds how many damaged records one page waits for.
	maxHeals = 16
)

// scan reads a page, in steps, so that no more than about maxRangeBytes and one
// step are held. Its sequence is that of the first step: a watch from there
// misses nothing of what came between the steps.
func (a *api) scan(ctx context.Context, o storage.ScanOptions) (storage.ScanPage, error) {
	limit, size := o.Limit, 0
	o.Limit = min(limit, firstStep)
	if o.KeysOnly {
		o.Limit = limit
	}
	page, err := a.scanStep(ctx, o)
	for step := o.Limit; err == nil && page.More; {
		for _, rec := range page.Records[max(0, len(page.Records)-step):] {
			size += len(rec.Value)
		}
		have := len(page.Records) + len(page.Prefixes)
		if have >= limit || size >= maxRangeBytes {
			break
		}
		if o.Reverse {
			o.End = page.Next
		} else {
			o.Start = page.Next
		}
		step = min(2*step, maxStep, limit-have)
		o.Limit = step
		var more storage.ScanPage
		if more, err = a.scanStep(ctx, o); err == nil {
			page.Records = append(page.Records, more.Records...)
			page.Prefixes = append(page.Prefixes, more.Prefixes...)
			page.More, page.Next = more.More, more.Next
		}
	}
	return page, err
}

// scanStep is Store.Scan, where damaged records are healed on the way.
func (a *api) scanStep(ctx context.Context, o storage.ScanOptions) (storage.ScanPage, error) {
	if o.Visible != nil {
		// Passing over what may not be seen is work without an answer: a page may
		// look at everything. Such scans take turns, so that they leave the machine
		// to others.
		select {
		case a.searching <- struct{}{}:
			defer func() { <-a.searching }()
		case <-ctx.Done():
			return storage.ScanPage{}, ctx.Err()
		}
	}
	for range maxHeals {
		page, err := a.store.Scan(ctx, o)
		damaged := (*storage.CorruptError)(nil)
		if !errors.As(err, &damaged) {
			return page, err
		}
		if err := a.heal(ctx, damaged.Ref, err); err != nil {
			return page, err
		}
	}
	return storage.ScanPage{}, fmt.Errorf("%w: more than %d records of this range", types.ErrCorrupt, maxHeals)
}
