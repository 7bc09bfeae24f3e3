package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"kvs/features/backup"
)

// restoreJSON is the answer of POST /admin/restore: what became of the records of
// the backups, or would.
type restoreJSON struct {
	DryRun  bool   `json:"dry_run"`
	Records uint64 `json:"records"`
	Merged  uint64 `json:"merged"`
	Known   uint64 `json:"known"`   // this cluster has them already, or something newer
	Purged  uint64 `json:"purged"`  // deleted or expired, and forgotten
	Missing uint64 `json:"missing"` // the cluster has not got the key, and may have deleted it
	Left    uint64 `json:"left"`    // they belong to the cluster of the backup alone
	Refused uint64 `json:"refused"`
	Refusal string `json:"refusal,omitempty"` // the first one
}

// restore answers POST /admin/restore: the body is a backup, or a chain of them
// one after another. It is merged as what another node sends, once all of it has
// come and is verified.
func (b *backups) restore(w http.ResponseWriter, r *request) error {
	p, err := parseParams(r, "dry_run", "missing")
	if err != nil {
		return err
	}
	o := backup.MergeOptions{By: r.actor()}
	if o.DryRun, err = p.flag("dry_run"); err != nil {
		return err
	}
	if o.Missing, err = p.flag("missing"); err != nil {
		return err
	}
	if !o.DryRun {
		if err := b.api.writable(); err != nil {
			return err
		}
	}
	body := &pacedBody{w: w, from: r.Body, grace: b.api.bodyGrace, start: time.Now()}
	report, err := b.manager.Merge(r.Context(), body, o)
	if damage := (*backup.DamageError)(nil); errors.As(err, &damage) || errors.Is(err, backup.ErrNoChain) {
		return damagedBackup.refuse("%s; nothing was changed", err)
	}
	if err != nil {
		return backupError(err)
	}
	answer := restoreJSON{
		DryRun: o.DryRun, Records: report.Records, Merged: report.Merged, Known: report.Known, Purged: report.Purged,
		Missing: report.Missing, Left: report.Left, Refused: report.Refused,
	}
	if report.Refusal != nil {
		answer.Refusal = report.Refusal.Error()
	}
	return writeAny(w, http.StatusOK, answer)
}

// pacedBody is a body of any length, which has to come as fast as every other.
type pacedBody struct {
	w     http.ResponseWriter
	from  io.Reader
	grace time.Duration
	start time.Time
	n     int64
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.n > 0 { // for the first part there is a deadline already
		setReadDeadline(b.w, b.start.Add(b.grace+time.Duration(b.n)*time.Second/bodyRate))
	}
	n, err := b.from.Read(p)
	b.n += int64(n)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF:
		// Left in place it would end the watch for a client that goes away.
		setReadDeadline(b.w, time.Time{})
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, bodyTimeout.refuse("%d bytes came in %s; at least %d bytes per second must", b.n, time.Since(b.start).Round(time.Second), bodyRate)
	}
	return n, badRequest.refuse("the body cannot be read: %s", err)
}
