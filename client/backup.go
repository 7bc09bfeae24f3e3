package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Backup is a backup that a node has in its directory.
type Backup struct {
	Name     string `json:"name"`
	Type     string `json:"type"` // full or incremental
	Size     int64  `json:"size"` // bytes
	Records  uint64 `json:"records"`
	Sequence uint64 `json:"sequence"` // of the node, whose state this is
	Since    uint64 `json:"since"`    // changes after this one; 0 for a full one
	Created  int64  `json:"created"`  // Unix milliseconds
	Node     string `json:"node"`
	// Damaged is how many keys the node could not read, and the backup lacks.
	Damaged uint64 `json:"damaged,omitempty"`
}

// backupTime is how long a node may take to make a backup or to restore one.
const backupTime = 24 * time.Hour

// MakeBackup makes a backup, "full" or "incremental", and returns when it is
// complete. Where there is none that an incremental one could follow, it is a full
// one. A node goes on with it if the caller does not wait.
func (c *Client) MakeBackup(ctx context.Context, kind string) (Backup, error) {
	body, err := marshal(map[string]string{"type": kind})
	if err != nil {
		return Backup{}, err
	}
	var b Backup
	err = c.call(ctx, request{
		method: http.MethodPost,
		path:   "/admin/backup",
		header: http.Header{"Content-Type": {jsonType}},
		body:   body,
		extra:  backupTime,
	}, &b)
	return b, err
}

// Backups lists the backups in the node's directory, oldest first. Those of other
// nodes that share it are among them.
func (c *Client) Backups(ctx context.Context) ([]Backup, error) {
	var answer struct{ Backups []Backup }
	err := c.call(ctx, request{method: http.MethodGet, path: "/admin/backups"}, &answer)
	return answer.Backups, err
}

// MergeOptions qualify a MergeBackup.
type MergeOptions struct {
	DryRun bool // say what would change
	// Missing brings back keys that the cluster has not, though it may have deleted
	// them.
	Missing bool
}

// MergedBackup is what became of the records of a backup.
type MergedBackup struct {
	DryRun  bool   `json:"dry_run"`
	Records uint64 `json:"records"`
	Merged  uint64 `json:"merged"`
	Known   uint64 `json:"known"`   // the cluster has them already, or something newer
	Purged  uint64 `json:"purged"`  // deleted or expired, and forgotten
	Missing uint64 `json:"missing"` // the cluster has not got the key, and may have deleted it
	Left    uint64 `json:"left"`    // they belong to the cluster of the backup alone
	Refused uint64 `json:"refused"`
	Refusal string `json:"refusal,omitempty"` // the first one
}

// MergeBackup merges a backup into the cluster of the node: body is one file, or a
// chain of them one after another from the full one on, of size bytes together.
// Nothing is changed before all of it has arrived and is verified. It is safe to
// merge it again.
func (c *Client) MergeBackup(ctx context.Context, body io.Reader, size int64, o MergeOptions) (MergedBackup, error) {
	const path = "/admin/restore"
	query := url.Values{}
	if o.DryRun {
		query.Set("dry_run", "true")
	}
	if o.Missing {
		query.Set("missing", "true")
	}
	bounded, cancel := context.WithTimeoutCause(ctx, backupTime, fmt.Errorf("no answer within %s", backupTime))
	defer cancel()
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(bounded, http.MethodPost, target, body)
	if err != nil {
		return MergedBackup{}, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("User-Agent", "kvs-client")
	if err := c.authorize(req); err != nil {
		return MergedBackup{}, err
	}
	// Never sent again: the body is read once.
	resp, err := c.http.Do(req)
	if err != nil {
		return MergedBackup{}, c.unreachable(ctx, bounded, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, c.maxResponse))
	if err != nil {
		return MergedBackup{}, c.unreachable(ctx, bounded, err)
	}
	if resp.StatusCode >= 300 {
		return MergedBackup{}, parseProblem(resp.StatusCode, resp.Header, answer)
	}
	var r MergedBackup
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("POST %s: the answer is not the JSON of a node (is %s one?): %w", path, c.base, err)
	}
	return r, nil
}
