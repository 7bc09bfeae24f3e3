package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"kvs/config"
	"kvs/features/backup"
	"kvs/types"
)

// backups are the calls about backups, and what they are about.
type backups struct {
	api     *api
	manager *backup.Manager // nil: backup_enabled is false
}

// newBackups makes what a node has for backups. On a node that makes none, what
// was remembered for the next one is forgotten.
func newBackups(a *api, cfg config.Config, o Options) (*backups, error) {
	b := &backups{api: a}
	if !cfg.BackupEnabled {
		return b, backup.Forget(context.Background(), a.store)
	}
	var err error
	b.manager, err = backup.New(backup.Options{
		Store:     a.store,
		Dir:       cfg.BackupPath,
		DataDir:   cfg.DataDir,
		NodeID:    cfg.NodeID,
		Schedule:  cfg.BackupSchedule,
		Retention: cfg.BackupRetention,
		MinFree:   cfg.MinFreeDisk,
		Program:   o.Version,
		Ready:     b.ready,
		Log:       a.log,
	})
	return b, err
}

// ready keeps a node that is being filled from backing up half of what there is.
func (b *backups) ready() error {
	if b.api.peers.Mode() == types.ModeSyncing {
		return syncing.refuse("this node is being filled from a peer, and no backup of it is made yet")
	}
	return nil
}

// run makes backups by the schedule until ctx ends.
func (b *backups) run(ctx context.Context) error {
	if b.manager == nil {
		return nil
	}
	return b.manager.Run(ctx)
}

// close ends what is under way. The store is closed after it.
func (b *backups) close() error {
	if b.manager == nil {
		return nil
	}
	return b.manager.Close()
}

// calls are the calls under /admin/ about backups.
func (b *backups) calls() map[string]map[string]call {
	admin := func(h handler) call { return call{withAdmin, b.enabled(h), false} }
	return map[string]map[string]call{
		"/admin/backup":  {"POST": admin(b.make)},
		"/admin/backups": {"GET": admin(b.list)},
		"/admin/restore": {"POST": admin(b.restore)},
	}
}

// enabled refuses a call on a node that makes no backups.
func (b *backups) enabled(h handler) handler {
	if b.manager != nil {
		return h
	}
	return func(http.ResponseWriter, *request) error {
		return featureDisabled.refuse("backups are off on this node (backup_enabled)")
	}
}

// BackupInfo is a backup as it is shown.
type BackupInfo struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Size     int64  `json:"size"` // bytes
	Records  uint64 `json:"records"`
	Sequence uint64 `json:"sequence"`
	Since    uint64 `json:"since"`   // 0 for a full one
	Created  int64  `json:"created"` // Unix ms
	Node     string `json:"node"`    // node_id
	// Damaged is how many keys the node could not read, and the backup lacks.
	Damaged uint64 `json:"damaged,omitempty"`
}

func backupInfo(i backup.Info) BackupInfo {
	return BackupInfo{
		Name: i.Name, Type: string(i.Type), Size: i.Size, Records: i.Records, Sequence: i.Sequence, Since: i.Since, Created: i.Created,
		Node: cmp.Or(i.Node.NodeID, i.Node.UUID.String()), Damaged: i.Damaged,
	}
}

// make answers POST /admin/backup {"type":"full"}, once the backup is complete.
// It is made even if whoever asked has gone by then.
func (b *backups) make(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	var body struct{ Type *string }
	if r.ContentLength != 0 {
		if err := b.api.readSmall(w, r, &body, `{"type":"full"} or {"type":"incremental"}`); err != nil {
			return err
		}
	}
	t := backup.Full
	if body.Type != nil {
		var err error
		if t, err = backup.ParseType(*body.Type); err != nil {
			return invalidBody.refuse(`"type": %s`, err)
		}
	}
	info, err := b.manager.Backup(context.WithoutCancel(r.Context()), t)
	if err != nil {
		return backupError(err)
	}
	return writeAny(w, http.StatusCreated, backupInfo(info))
}

// backupError tells an administrator what a stranger would not be told: mostly it
// is about the disk.
func backupError(err error) error {
	if errors.Is(err, backup.ErrBusy) {
		return backupBusy.refuse("%s; come back when it is done", err)
	}
	if refusalOf(err).problem == internalError {
		return backupFailed.refuse("%s", err)
	}
	return err
}

// stats are for the metrics.
func (b *backups) stats() backup.Stats {
	if b.manager == nil {
		return backup.Stats{}
	}
	return b.manager.Stats()
}

// list answers GET /admin/backups, oldest first, of whichever node.
func (b *backups) list(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	list := []BackupInfo{} // never null
	for _, info := range b.manager.List() {
		list = append(list, backupInfo(info))
	}
	return writeAny(w, http.StatusOK, map[string][]BackupInfo{"backups": list})
}
