package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"kvs/config"
	"kvs/features/backup"
	"kvs/storage"
	"kvs/utils/atomicfile"
)

// OfflineRestore restores a chain of backups into an empty data directory,
// without a node running. The node that is started on it is a new one, alone in a
// cluster of its own.
type OfflineRestore struct {
	Config config.Config // whose data_dir it is
	Files  []string      // what they follow, and what follows a single full one, is looked for beside them
	Only   bool          // nothing that follows
	At     time.Time     // the state as of then; zero: that of the newest backup
	// SkipUnknown leaves out the keys of which no backup tells what they were then.
	SkipUnknown bool
	DryRun      bool
	Progress    func(what string, done, of uint64) // nil: nobody asks
}

// RestoreReport is what an OfflineRestore did, or would do.
type RestoreReport struct {
	Backups    []BackupInfo `json:"backups"` // in the order in which they were read
	DryRun     bool         `json:"dry_run"`
	Dir        string       `json:"data_dir"`
	Node       string       `json:"uuid,omitempty"` // of the new node
	Live       uint64       `json:"live"`           // values
	Tombstones uint64       `json:"tombstones"`
	Expired    uint64       `json:"expired"` // values that have expired since
	Older      uint64       `json:"older"`   // versions that are history
	Left       uint64       `json:"left"`    // records that belong to the old cluster alone
	Unknown    uint64       `json:"unknown"` // keys whose state at the time is not known
	Damaged    uint64       `json:"damaged"` // keys that could not be read when the backups were made
}

// restoringDir is where a restore works, in the data directory. What is in it
// becomes a data directory by its FORMAT file alone, which is moved last: no node
// starts on what is not complete.
const restoringDir = ".restoring"

// formatFile makes a directory a data directory; see docs/FORMAT.md.
const formatFile = "FORMAT"

// Do verifies all files and then writes. On an error the directory is as it was.
func (o OfflineRestore) Do(ctx context.Context) (report RestoreReport, err error) {
	report = RestoreReport{DryRun: o.DryRun, Dir: o.Config.DataDir, Backups: []BackupInfo{}}
	if err := checkEmpty(o.Config.DataDir); err != nil {
		return report, err
	}
	chain, err := backup.Resolve(o.Files, !o.Only)
	if err != nil {
		return report, err
	}
	for _, info := range chain {
		report.Backups = append(report.Backups, backupInfo(info))
	}
	p, err := backup.Prepare(ctx, backup.RestoreOptions{
		Chain: chain, At: o.At, SkipUnknown: o.SkipUnknown, Older: revisionLimit(o.Config), Now: time.Now(), MaxSkew: o.Config.MaxClockSkew, Progress: o.Progress,
	})
	if err != nil {
		return report, err
	}
	defer p.Close()
	r := p.Report
	report.Live, report.Tombstones, report.Expired, report.Older = r.Live, r.Tombstones, r.Expired, r.Older
	report.Left, report.Unknown, report.Damaged = r.Left, r.Unknown, r.Damaged
	if o.DryRun {
		return report, nil
	}
	report.Node, err = o.write(ctx, p)
	return report, err
}

// checkEmpty refuses a directory in which there is anything.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "lost+found":
		case restoringDir:
			return fmt.Errorf("a restore into %s is under way, or broke off; if it broke off, empty the directory and restore again", dir)
		default:
			return fmt.Errorf("the data directory %s is not empty: it holds %s. A restore needs an empty one (data_dir); "+
				"into a cluster that runs, restore with --merge", dir, e.Name())
		}
	}
	return nil
}

func (o OfflineRestore) write(ctx context.Context, p *backup.Prepared) (node string, err error) {
	dir := o.Config.DataDir
	work := filepath.Join(dir, restoringDir)
	_, err = os.Stat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	// Of two restores at once, one makes it.
	if err := os.Mkdir(work, 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	defer func() {
		if err != nil {
			clean := []error{err, os.RemoveAll(work)}
			if made {
				clean = append(clean, os.Remove(dir))
			}
			err = errors.Join(clean...)
		}
	}()
	if node, err = o.fill(ctx, p, work); err != nil {
		return "", err
	}
	return node, moveInto(dir, work)
}

// fill makes a data directory of a backup.
func (o OfflineRestore) fill(ctx context.Context, p *backup.Prepared, dir string) (node string, err error) {
	so := storeOptions(o.Config, slog.New(slog.DiscardHandler))
	so.Dir = dir
	so.SyncWrites = false // all is made durable at the end, or nothing is kept
	so.ScrubEvery = -1
	store, err := storage.Open(so)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := p.Write(ctx, store); err != nil {
		return "", err
	}
	return store.Identity().UUID.String(), nil
}

// moveInto moves the files of a data directory into the directory that it is in,
// durably. It is one from the moment on that FORMAT is in it.
func moveInto(dir, work string) error {
	entries, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncFile(filepath.Join(work, e.Name())); err != nil {
			return err
		}
	}
	var moved []string
	for _, e := range entries {
		if e.Name() == formatFile {
			continue
		}
		to := filepath.Join(dir, e.Name())
		if err = os.Rename(filepath.Join(work, e.Name()), to); err != nil {
			break
		}
		moved = append(moved, to)
	}
	if err == nil {
		err = atomicfile.SyncDir(dir)
	}
	if err == nil {
		err = os.Rename(filepath.Join(work, formatFile), filepath.Join(dir, formatFile))
	}
	if err != nil {
		for _, path := range moved {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	_ = os.Remove(work) // it is complete, and what is left is an empty directory
	return atomicfile.SyncDir(dir)
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// VerifyBackup reads a backup as a whole.
func VerifyBackup(ctx context.Context, path string) (BackupInfo, error) {
	info, err := backup.Verify(ctx, path)
	return backupInfo(info), err
}

// BackupChain finds the files that belong together, as OfflineRestore does, from
// the full one on.
func BackupChain(files []string, only bool) ([]string, error) {
	chain, err := backup.Resolve(files, !only)
	var paths []string
	for _, info := range chain {
		paths = append(paths, info.Path())
	}
	return paths, err
}
