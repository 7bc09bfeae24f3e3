package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"kvs/utils/atomicfile"
)

// maxHold bounds how long a backup holds its snapshot: a disk that slow is no
// place for it.
const maxHold = 6 * time.Hour

// make makes a backup from the first look at the disk to the removal of old ones.
func (m *Manager) make(ctx context.Context, t Type) (Info, error) {
	if err := m.opts.Ready(); err != nil {
		return Info{}, err
	}
	if err := os.MkdirAll(m.opts.Dir, 0o700); err != nil {
		return Info{}, fmt.Errorf("backup_path: %w", err)
	}
	if err := removeLeftovers(m.opts.Dir, m.node); err != nil {
		return Info{}, err
	}
	all := m.List()
	var follows *Info
	if t == Incremental {
		var err error
		if follows, err = m.last(all); err != nil {
			m.log.Info("a full backup is made instead of an incremental one", "because", err)
		}
	}
	if err := m.room(m.estimate(all, follows)); err != nil {
		return Info{}, err
	}
	info, err := m.write(ctx, follows)
	if err != nil {
		return Info{}, err
	}
	// The backup is there, whatever comes of the rest.
	if err := m.remember(ctx, info); err != nil {
		m.log.Warn("the next incremental backup will follow an earlier one", "error", err)
	}
	if err := m.prune(append(all, info)); err != nil {
		m.log.Warn("old backups could not be removed", "error", err)
	}
	return info, nil
}

// estimate is how large a backup may become. An incremental one is watched while
// it grows.
func (m *Manager) estimate(all []Info, follows *Info) int64 {
	if follows != nil {
		return 0
	}
	for _, info := range slices.Backward(all) {
		if info.Type == Full && info.Node.UUID == m.node {
			return info.Size + info.Size/8
		}
	}
	return usedBytes(m.opts.DataDir)
}

// write makes the file: under a temporary name, until it is verified.
func (m *Manager) write(ctx context.Context, follows *Info) (info Info, err error) {
	roster, err := rosterOf(ctx, m.opts.Store)
	if err != nil {
		return info, err
	}
	snap, err := m.opts.Store.Pin(maxHold)
	if err != nil {
		return info, err
	}
	defer snap.Release()
	created := m.opts.Now()
	h := Header{
		ID: ID(uuid.New()), Type: Full, Roster: roster, Sequence: snap.Seq(), Horizon: snap.Horizon(), Created: created.UnixMilli(),
		Node: Member{m.node, m.opts.NodeID, m.opts.Store.Identity().Joined}, Program: m.opts.Program,
	}
	if m.opts.horizon != nil {
		h.Horizon = m.opts.horizon()
	}
	if follows != nil {
		h.Type, h.Follows, h.Since = Incremental, follows.ID, follows.Sequence
	}
	temp := filepath.Join(m.opts.Dir, temporary(m.node, "backup"))
	taker := &taker{snap: snap, since: h.Since, horizon: h.Horizon, spill: m.scratch, damaged: func(err error) {
		m.log.Error("a backup lacks what this node cannot read; where another node has it, it will be fetched", "error", err)
	}}
	t, err := m.fill(ctx, temp, &h, taker)
	if errors.Is(err, errPassedOver) {
		m.log.Warn("the disk of this node is damaged: the backup is written anew, key by key where blocks are", "keys", len(taker.passed))
		if err = removeIfThere(temp); err == nil {
			t, err = m.fill(ctx, temp, &h, taker)
		}
	}
	if err != nil {
		return info, errors.Join(err, removeIfThere(temp))
	}
	snap.Release()
	info, err = m.check(ctx, temp, &h, &t)
	if err == nil {
		// Of two in one second, the second one is named after the next.
		for info.Name = fileName(m.opts.NodeID, created, h.Type); taken(m.opts.Dir, info.Name); {
			created = created.Add(time.Second)
			info.Name = fileName(m.opts.NodeID, created, h.Type)
		}
		err = os.Rename(temp, info.Path())
	}
	if err != nil {
		return info, errors.Join(err, removeIfThere(temp))
	}
	if err := atomicfile.SyncDir(m.opts.Dir); err != nil {
		return info, errors.Join(err, removeIfThere(info.Path()))
	}
	return info, nil
}

// scratch makes a file that is gone when it is closed, or the process ends.
func (m *Manager) scratch() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(m.opts.Dir, temporary(m.node, "notes")), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// fill writes the file, durably.
func (m *Manager) fill(ctx context.Context, path string, h *Header, from *taker) (t Trailer, err error) {
	f, err := m.opts.create(path)
	if err != nil {
		return t, asDiskFull(err)
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = asDiskFull(closed)
		}
	}()
	w, err := newWriter(&watched{to: f, m: m}, h)
	if err != nil {
		return t, err
	}
	from.w = w
	w.trailer.Damaged = uint64(len(from.known)) // by the first try, if this is the second
	if err := from.run(ctx); err != nil {
		return t, err
	}
	if t, err = w.end(); err != nil {
		return t, err
	}
	return t, asDiskFull(f.Sync())
}

// check reads the file back, from the disk where that can be had.
func (m *Manager) check(ctx context.Context, path string, h *Header, t *Trailer) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	dropCache(f)
	info, err := verifyFile(ctx, path, f)
	if err == nil && (info.ID != h.ID || info.Trailer != *t) {
		err = &DamageError{Name: path, Block: -1, Err: errors.New("what is read is not what was written")}
	}
	return info, err
}

// prune removes what is too old.
func (m *Manager) prune(all []Info) error {
	var failed []error
	for _, info := range expired(all, m.node, m.opts.Now(), m.opts.Retention) {
		err := os.Remove(info.Path())
		if err == nil {
			m.log.Info("an old backup was removed", "file", info.Path())
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func taken(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return !errors.Is(err, fs.ErrNotExist)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
