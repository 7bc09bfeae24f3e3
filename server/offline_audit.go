package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"kvs/config"
	"kvs/features/tamperlog"
	"kvs/storage"
	"kvs/types"
)

// OfflineAudit reads the tamper log of a node that does not run.
type OfflineAudit struct {
	Config config.Config
	Log    *slog.Logger // nil: nothing is logged
}

// AuditReport is what a check of a tamper log found. Times are Unix
// milliseconds.
type AuditReport struct {
	Node        string         `json:"node"`
	Entries     uint64         `json:"entries"` // that could be read
	Last        uint64         `json:"last"`    // number of the last one
	Head        string         `json:"head"`
	FirstTime   int64          `json:"first_time"`
	LastTime    int64          `json:"last_time"`
	Refused     uint64         `json:"refused"`      // refused attempts
	Suppressed  uint64         `json:"suppressed"`   // of them, those that are only counted
	Witnessed   uint64         `json:"witnessed"`    // checkpoints of other nodes that agree with the log
	WitnessedTo uint64         `json:"witnessed_to"` // the last entry that one of them vouches for
	Problems    []AuditProblem `json:"problems"`
	Gaps        []AuditGap     `json:"gaps"`
	Unlisted    uint64         `json:"unlisted"` // problems and gaps beyond the bound of the lists
}

// AuditProblem is one thing that is wrong.
type AuditProblem struct {
	Kind  string `json:"kind"`
	First uint64 `json:"first"` // the entries concerned
	Last  uint64 `json:"last"`
	Text  string `json:"text"`
}

// AuditGap is a time in which changes were made without the log.
type AuditGap struct {
	Entry   uint64 `json:"entry"`   // that tells of it; 0: the log's end
	Time    int64  `json:"time"`    // when it ended; 0 for the log's end
	Records uint64 `json:"records"` // that were changed
}

// Verify checks the whole log. witnessed is called once, with the node's UUID,
// and gives the checkpoints that others keep; progress is told the number of
// the last entry read, now and then. What is wrong with the log is in the
// report; the error is that it could not be read.
func (o OfflineAudit) Verify(ctx context.Context, witnessed func(ctx context.Context, node string) []AuditCheckpoint, progress func(n uint64)) (report AuditReport, err error) {
	err = o.withStore(func(store *storage.Store) error {
		node := store.Identity().UUID
		key, err := tamperlog.LoadPublicKey(o.Config.DataDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		kept, wrong := decodeCheckpoints(node, witnessed(ctx, node.String()))
		found, err := tamperlog.Verify(ctx, store, tamperlog.VerifyOptions{
			Witnessed: kept, PublicKey: key, Off: !o.Config.TamperLoggingEnabled, Progress: progress,
		})
		report = auditReport(found)
		report.Problems = append(report.Problems, wrong...)
		return err
	})
	return report, err
}

// Entries calls fn with the entries that p selects, as GET /admin/audit does,
// oldest first, until fn gives an error.
func (o OfflineAudit) Entries(ctx context.Context, p map[string]string, fn func(AuditEntry) error) error {
	f, err := auditFilter(p)
	if err != nil {
		return err
	}
	return o.withStore(func(store *storage.Store) error {
		for {
			entries, next, err := tamperlog.Entries(ctx, store, f)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := fn(auditEntry(e)); err != nil {
					return err
				}
			}
			if next == 0 {
				return nil
			}
			f.After = next
		}
	})
}

// withStore opens the data directory, which must be there.
func (o OfflineAudit) withStore(fn func(*storage.Store) error) (err error) {
	if _, err := os.Stat(o.Config.DataDir); err != nil {
		return fmt.Errorf("the node's data directory: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	so := storeOptions(o.Config, log)
	so.Hooks, so.ScrubEvery = nil, -1
	store, err := storage.Open(so)
	if err != nil {
		return fmt.Errorf("data directory %s (the node must be stopped): %w", o.Config.DataDir, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store)
}

func auditReport(r tamperlog.Report) AuditReport {
	out := AuditReport{
		Node: r.Node.String(), Entries: r.Entries, Last: r.Last, Head: r.Head.String(), FirstTime: r.FirstTime, LastTime: r.LastTime,
		Refused: r.Refused, Suppressed: r.Suppressed, Witnessed: r.Witnessed, WitnessedTo: r.WitnessedTo,
		Problems: []AuditProblem{}, Gaps: []AuditGap{}, Unlisted: r.Unlisted,
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, AuditProblem{string(p.Kind), p.First, p.Last, p.Text})
	}
	for _, g := range r.Gaps {
		out.Gaps = append(out.Gaps, AuditGap{g.Entry, g.Time, g.Records})
	}
	return out
}

// decodeCheckpoints reads checkpoints of a node's log as witnesses gave them.
func decodeCheckpoints(node types.NodeID, list []AuditCheckpoint) (kept []tamperlog.Checkpoint, wrong []AuditProblem) {
	for _, j := range list {
		c := tamperlog.Checkpoint{Node: node, N: j.N, Time: j.Time}
		if decodeHex(c.Head[:], j.Head) && decodeHex(c.PublicKey[:], j.PublicKey) && decodeHex(c.Signature[:], j.Signature) {
			kept = append(kept, c)
			continue
		}
		wrong = append(wrong, AuditProblem{string(tamperlog.KindWitness), j.N, j.N, "a witness gave something that is no checkpoint"})
	}
	return kept, wrong
}

func decodeHex(into []byte, s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == len(into) && copy(into, b) == len(b)
}
