package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"kvs/storage"
	"kvs/types"
)

// MergeOptions say how backups are merged into a running cluster.
type MergeOptions struct {
	DryRun bool
	// Missing brings back keys that the cluster has not (any longer), though it
	// may have deleted them and forgotten that.
	Missing bool
	By      *storage.Actor // who asked
}

// MergeReport is what a merge did, or would do.
type MergeReport struct {
	Records uint64 // current ones in the backups
	Merged  uint64 // they are new here, or newer than what was here
	Known   uint64 // they were here already, or something newer
	Purged  uint64 // deleted or expired, and forgotten by the cluster too
	Missing uint64 // the cluster has not got the key, and may have deleted it
	Left    uint64 // they belong to the cluster of the backup alone
	Refused uint64
	Refusal error // the first of them
}

// mergeBatch is how many records are merged at once. Clients' writes go between.
const mergeBatch = 200

// Merge takes the backups in that stand one after another in body: one alone, or
// a chain from its full one on. Each key's current version is merged as one that
// another node sends, so what is newer stays.
//
// Nothing is written before everything has come and is verified. Merging again
// changes nothing. The error is a *DamageError, ErrBusy, or one of the disk; if it
// came in the middle, the report says how far it was.
func (m *Manager) Merge(ctx context.Context, body io.Reader, o MergeOptions) (report MergeReport, err error) {
	ctx, done, err := m.begin(ctx)
	if err != nil {
		return report, err
	}
	defer done()
	if err := m.opts.Ready(); err != nil {
		return report, err
	}
	f, err := m.spool(body)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, f.Close(), removeIfThere(f.Name())) }()
	st, err := f.Stat()
	if err != nil {
		return report, err
	}
	sources, err := openSpool(ctx, f, st.Size())
	if err != nil {
		return report, err
	}
	g := merger{m: m, o: o, last: sources[len(sources)-1].header, report: &report}
	if g.related, err = related(ctx, m.opts.Store, g.last); err != nil {
		return report, err
	}
	if err = g.run(ctx, sources); err == nil && !o.DryRun {
		// Not before: one that broke off is to go on as it began.
		err = markLineage(ctx, m.opts.Store, g.last)
	}
	return report, err
}

// spool keeps what comes in a file, for as long as it is verified and merged.
func (m *Manager) spool(body io.Reader) (*os.File, error) {
	if err := os.MkdirAll(m.opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("backup_path: %w", err)
	}
	if err := removeLeftovers(m.opts.Dir, m.node); err != nil {
		return nil, err
	}
	if err := m.room(0); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(m.opts.Dir, temporary(m.node, "restore")), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, asDiskFull(err)
	}
	if _, err := io.Copy(&watched{to: f, m: m}, body); err != nil {
		return nil, errors.Join(err, f.Close(), removeIfThere(f.Name()))
	}
	return f, nil
}

// merger merges a chain.
type merger struct {
	m       *Manager
	o       MergeOptions
	last    Header // of the newest backup
	related bool   // the cluster has had nodes or records of the backup's
	report  *MergeReport
	batch   []types.Record
	size    int
}

func (g *merger) run(ctx context.Context, sources []source) error {
	err := walkChain(ctx, sources, func(k *history) error {
		switch {
		case k.current == nil:
			return nil
		case k.ref.NS == types.NSCluster:
			g.report.Records++
			g.report.Left++
			return nil
		}
		g.report.Records++
		g.batch = append(g.batch, *k.current)
		if g.size += len(k.current.Key) + len(k.current.Value); len(g.batch) < mergeBatch && g.size < restoreBytes {
			return nil
		}
		return g.flush(ctx)
	})
	if err != nil {
		return err
	}
	return g.flush(ctx)
}

// flush merges what was collected.
func (g *merger) flush(ctx context.Context) error {
	batch := g.batch
	g.batch, g.size = nil, 0
	if len(batch) == 0 {
		return nil
	}
	if g.o.DryRun {
		for i := range batch {
			g.try(&batch[i])
		}
		return nil
	}
	// The committer counts into what the report takes over once it is done.
	out := *g.report
	changed, refused, err := g.m.opts.Store.MergeIf(ctx, batch, g.o.By, func(rec, old *types.Record) bool {
		return g.admit(&out, rec, old)
	})
	if err != nil {
		return err
	}
	for _, c := range changed {
		if c {
			out.Merged++
		}
	}
	out.Refused += uint64(len(refused))
	if out.Refusal == nil && len(refused) > 0 {
		out.Refusal = refused[0].Err
	}
	out.Known = out.Records - out.Merged - out.Purged - out.Missing - out.Left - out.Refused
	*g.report = out
	return nil
}

// admit decides whether a record may be merged, and counts it where it is purged
// or missing.
//
// The cluster forgets a delete once the horizon has passed it. Of a key that it
// has no record of, a backup cannot tell whether it was lost or deleted, unless no
// such delete can have been forgotten: the record is dated above the horizon; or
// the horizon is where it was when the backup was made; or the cluster never had
// records of the backup's. For the same reason what is newer here is no conflict
// then: the key may have been deleted in between.
func (g *merger) admit(report *MergeReport, rec, old *types.Record) bool {
	horizon := g.m.horizon()
	forgetful := g.related && horizon > g.last.Horizon && rec.Timestamp.Millis() <= horizon
	switch {
	case rec.Purged(max(horizon, g.last.Horizon)):
		report.Purged++
		return false
	case !forgetful:
		return true
	case old != nil:
		return rec.Version.Compare(old.Version) >= 0
	case g.o.Missing:
		return true
	}
	report.Missing++
	return false
}

// try is what merging a record would do.
func (g *merger) try(rec *types.Record) {
	var old *types.Record
	if have, err := g.m.opts.Store.Lookup(rec.Ref); err == nil {
		old = &have
	}
	counted := g.report.Purged + g.report.Missing
	switch {
	case g.admit(g.report, rec, old) && (old == nil || types.Merge(*old, *rec).Second):
		g.report.Merged++
	case g.report.Purged+g.report.Missing == counted:
		g.report.Known++
	}
}

func (m *Manager) horizon() int64 {
	if m.opts.horizon != nil {
		return m.opts.horizon()
	}
	return m.opts.Store.Horizon()
}
