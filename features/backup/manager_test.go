package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"kvs/storage"
	"kvs/types"
)

// fullFile is a disk that is full after some bytes.
type fullFile struct {
	file
	left int
	err  error
}

func (f *fullFile) Write(b []byte) (int, error) {
	if len(b) > f.left {
		n, _ := f.file.Write(b[:f.left])
		f.left = 0
		return n, f.err
	}
	f.left -= len(b)
	return f.file.Write(b)
}

type failingSync struct{ file }

func (failingSync) Sync() error { return syscall.EIO }

// alteredFile is a disk that writes something else.
type alteredFile struct{ file }

func (f alteredFile) Write(b []byte) (int, error) {
	bad := slices.Clone(b)
	bad[len(bad)/2] ^= 1
	return f.file.Write(bad)
}

// However writing fails, the node goes on, older backups stay, and nothing is
// left behind.
func TestFailuresLeaveNothing(t *testing.T) {
	n := startNode(t)
	for i := range 200 {
		n.put(types.Key(fmt.Sprint(i)), fmt.Sprintf("%q", uuid.NewString()))
	}
	first := n.backup(Full)
	n.put("later", "1")
	onDisk := func(wrap func(file) file) func(string) (file, error) {
		return func(path string) (file, error) {
			f, err := createFile(path)
			return wrap(f), err
		}
	}
	for name, c := range map[string]struct {
		create func(string) (file, error)
		want   error
	}{
		"full at once":   {onDisk(func(f file) file { return &fullFile{f, 0, syscall.ENOSPC} }), types.ErrDiskFull},
		"full later":     {onDisk(func(f file) file { return &fullFile{f, 300, syscall.ENOSPC} }), types.ErrDiskFull},
		"over the quota": {onDisk(func(f file) file { return &fullFile{f, 300, syscall.EDQUOT} }), types.ErrDiskFull},
		"broken":         {onDisk(func(f file) file { return &fullFile{f, 300, syscall.EIO} }), syscall.EIO},
		"broken at last": {onDisk(func(f file) file { return failingSync{f} }), syscall.EIO},
		"not as written": {onDisk(func(f file) file { return alteredFile{f} }), types.ErrCorrupt},
		"no file at all": {func(string) (file, error) { return nil, syscall.ENOSPC }, types.ErrDiskFull},
	} {
		n.m.opts.create = c.create
		for _, kind := range []Type{Full, Incremental} {
			if _, err := n.m.Backup(t.Context(), kind); !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
		if got := files(t, n.dir); !slices.Equal(got, []string{first.Name}) {
			t.Errorf("%s: files %v", name, got)
		}
	}
	if st := n.m.Stats(); st.Failed != 14 || st.Made != 1 || st.LastAt != first.Created {
		t.Errorf("%+v", st)
	}
	n.m.opts.create = createFile
	if inc := n.backup(Incremental); inc.Since != first.Sequence || inc.Records != 1 {
		t.Errorf("the one after: %+v", inc)
	}
}

// There is room, or nothing is begun.
func TestRoomIsLookedAt(t *testing.T) {
	free := int64(1 << 40)
	n := startNode(t, func(o *Options) {
		o.FreeDisk = func(string) (int64, error) { return free, nil }
		o.MinFree = 100 << 20
	})
	n.put("a", "1")
	n.backup(Full)
	for _, c := range []struct {
		bytes int64
		ok    bool
	}{{100<<20 + slack + 1<<20, true}, {100<<20 + slack, false}, {0, false}} { // it would take of what the node keeps free
		free = c.bytes
		if _, err := n.m.Backup(t.Context(), Full); (err == nil) != c.ok || err != nil && !errors.Is(err, types.ErrDiskFull) {
			t.Errorf("%d bytes free: %v", c.bytes, err)
		}
	}
	// It is looked at while much is written, too.
	w := &watched{to: &strings.Builder{}, m: n.m}
	free = 1 << 40
	if _, err := w.Write(make([]byte, roomEvery)); err != nil {
		t.Fatal(err)
	}
	free = 0
	if _, err := w.Write(make([]byte, roomEvery)); !errors.Is(err, types.ErrDiskFull) {
		t.Errorf("the disk fills up: %v", err)
	}
}

// blockingFile lets a test look while a backup is made.
type blockingFile struct {
	file
	begun, goOn chan struct{}
}

func (f *blockingFile) Sync() error {
	close(f.begun)
	<-f.goOn
	return f.file.Sync()
}

func TestOneAtATime(t *testing.T) {
	n := startNode(t)
	n.put("a", "1")
	f := &blockingFile{begun: make(chan struct{}), goOn: make(chan struct{})}
	n.m.opts.create = func(path string) (_ file, err error) { f.file, err = createFile(path); return f, err }
	done := make(chan error, 1)
	go func() {
		_, err := n.m.Backup(context.Background(), Full)
		done <- err
	}()
	<-f.begun
	if _, err := n.m.Backup(t.Context(), Full); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := n.m.Merge(t.Context(), strings.NewReader(""), MergeOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("a restore meanwhile: %v", err)
	}
	// Only the temporary file is there.
	if got := files(t, n.dir); len(got) != 1 || !strings.HasSuffix(got[0], ".tmp") {
		t.Errorf("files %v", got)
	}
	// Close waits, and ends it.
	closed := make(chan error, 1)
	go func() { closed <- n.m.Close() }()
	for end := time.Now().Add(10 * time.Second); n.m.life.Err() == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-closed:
		t.Error("Close did not wait")
	default:
	}
	close(f.goOn)
	if err := <-done; !errors.Is(err, types.ErrClosed) {
		t.Errorf("the one that was ended: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := files(t, n.dir); len(got) != 0 {
		t.Errorf("files %v", got)
	}
	if _, err := n.m.Backup(t.Context(), Full); !errors.Is(err, types.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What a crash left before the rename is removed, and nothing else.
func TestLeftoversAreRemoved(t *testing.T) {
	n := startNode(t)
	n.put("a", "1")
	mine := filepath.Join(n.dir, temporary(n.store.Identity().UUID, "backup"))
	others := []string{temporary(types.NodeID{1}, "backup"), "x.tmp", "notes.txt"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin := map[string]func() error{
		"a backup":  func() error { _, err := n.m.Backup(t.Context(), Full); return err },
		"a restore": func() error { n.m.Merge(t.Context(), strings.NewReader("x"), MergeOptions{}); return nil },
		"the start": func() error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return n.m.Run(ctx)
		},
	}
	for name, f := range begin {
		if err := os.WriteFile(mine, []byte("half a backup"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(mine); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the leftover: %v", name, err)
		}
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(n.dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestNames(t *testing.T) {
	n := startNode(t)
	at := time.Date(2026, 11, 20, 22, 9, 0, 0, time.UTC)
	n.m.opts.Now = func() time.Time { return at }
	want := []string{"kvs-n1-20261120T220900Z-full.kvsb", "kvs-n1-20261120T220901Z-full.kvsb", "kvs-n1-20261120T220902Z-full.kvsb"}
	for i, name := range want {
		if info := n.backup(Full); info.Name != name || !namePattern.MatchString(info.Name) {
			t.Errorf("%d: %s", i, info.Name)
		}
	}
	n.put("a", "1")
	if info := n.backup(Incremental); info.Name != "kvs-n1-20261120T220900Z-incremental.kvsb" {
		t.Error(info.Name)
	}
	// Files that are not ours, and ours that are damaged, are not listed.
	for _, name := range []string{"other.kvsb", "kvs-n1-20260101T000000Z-full.kvsb", "kvs-n1-full.kvsb"} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte("KVSB"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(n.dir, want[0]), filepath.Join(n.dir, "kvs-n1-20260102T000000Z-full.kvsb")); err != nil {
		t.Fatal(err)
	}
	if got := n.m.List(); len(got) != 4 {
		t.Errorf("%d are listed", len(got))
	}
	infos, wrong := List(n.dir)
	if len(infos) != 4 || len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "kvs-n1-20260101T000000Z-full.kvsb") {
		t.Errorf("%d, %v", len(infos), wrong)
	}
	if infos, wrong := List(filepath.Join(n.dir, "nothing")); len(infos)+len(wrong) != 0 {
		t.Errorf("no directory: %v, %v", infos, wrong)
	}
}

// An incremental backup follows the newest one of this data directory, or it is
// a full one.
func TestWhatAnIncrementalFollows(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	n := startNodeIn(t, data, dir)
	n.put("a", "1")
	full := func(why string) Info {
		t.Helper()
		info, err := n.m.Backup(t.Context(), Incremental)
		if err != nil || info.Type != Full {
			t.Errorf("%s: %s, %v", why, info.Type, err)
		}
		return info
	}
	follows := func(why string, before Info) Info {
		t.Helper()
		info, err := n.m.Backup(t.Context(), Incremental)
		if err != nil || info.Type != Incremental || info.Follows != before.ID || info.Since != before.Sequence {
			t.Errorf("%s: %+v, %v", why, info, err)
		}
		return info
	}
	first := full("there is none")
	second := follows("nothing has changed", first)
	if second.Records != 0 || second.Since != second.Sequence {
		t.Errorf("nothing has changed: %+v", second)
	}
	n.put("b", "1")
	third := follows("one key", second)
	if third.Records != 1 {
		t.Errorf("one key: %+v", third)
	}
	if err := os.Remove(first.Path()); err != nil {
		t.Fatal(err)
	}
	fourth := full("the full one is gone")
	if err := Forget(t.Context(), n.store); err != nil {
		t.Fatal(err)
	}
	fifth := full("backups were switched off")
	follows("again", fifth)
	if fourth.ID == fifth.ID {
		t.Error("two backups have one id")
	}

	// A data directory that was brought back from a copy remembers another one.
	last := follows("and again", n.m.List()[len(n.m.List())-1])
	if err := n.store.PutMeta(t.Context(), map[string][]byte{lastMeta: fmt.Appendf(nil, `{"id":%q,"sequence":%d}`, last.ID, last.Sequence+1)}); err != nil {
		t.Fatal(err)
	}
	full("the sequence is another one")
	if err := n.store.PutMeta(t.Context(), map[string][]byte{lastMeta: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	full("what is remembered cannot be read")

	// Another node's backups in the same directory are none of its business.
	m := startNodeIn(t, t.TempDir(), dir, func(o *Options) { o.NodeID = "n2" })
	m.put("a", "1")
	if info, err := m.m.Backup(t.Context(), Incremental); err != nil || info.Type != Full {
		t.Errorf("another node: %+v, %v", info, err)
	}
}

// Notes are dropped once a backup knows of them.
func TestNotesAreDropped(t *testing.T) {
	n := startNode(t)
	notes := func() int {
		t.Helper()
		list, err := n.store.HookEntries(storage.SpaceBackup, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	for i := range 20 {
		n.put(types.Key(fmt.Sprint("k", i)), "1")
		n.putTTL(types.Key(fmt.Sprint("new", i)), "1", time.Hour) // nothing vanishes that was there before
	}
	if got := notes(); got != 0 {
		t.Errorf("%d notes of writes", got)
	}
	for i := range 20 {
		n.delete(types.Key(fmt.Sprint("k", i)))
	}
	if got := notes(); got != 20 {
		t.Errorf("%d notes of 20 commits with a delete", got)
	}
	n.backup(Full)
	if got := notes(); got != 0 {
		t.Errorf("%d notes are left", got)
	}
}

// However many notes there are, they come sorted, of each key the last.
func TestManyNotes(t *testing.T) {
	defer func(n int) { notesMemory = n }(notesMemory)
	n := startNode(t)
	want := make(map[types.Ref]types.Timestamp)
	n.delete(n.put("before", "1").Key)
	since := n.store.Seq()
	for i := range 300 {
		key := types.Key(fmt.Sprintf("k%d", i*7919%97))
		n.put(key, "1")
		tomb := n.delete(key)
		want[tomb.Ref] = tomb.Timestamp
	}
	for _, memory := range []int{1, 2000, 32 << 20} { // files of a page each, a few, none
		notesMemory = memory
		snap, err := n.store.Pin(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Release()
		files := 0
		list, err := newNotes(t.Context(), snap, since, func() (*os.File, error) { files++; return n.m.scratch() })
		if err != nil {
			t.Fatal(err)
		}
		defer list.close()
		var last types.Ref
		count := 0
		for {
			got, ok, err := list.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if count++; compareRefs(last, got.ref) >= 0 || got.at != want[got.ref] || got.previous == 0 || got.previous >= got.at {
				t.Errorf("%s after %s: %+v, want %d", got.ref, last, got.vanished, want[got.ref])
			}
			last = got.ref
		}
		if count != len(want) || (files > 0) != (memory < 32<<20) {
			t.Errorf("%d bytes: %d notes in %d files, want %d", memory, count, files, len(want))
		}
	}
	if got := files(t, n.dir); len(got) != 0 {
		t.Errorf("files %v", got)
	}
}

// The largest atomic batch that is promised has room for its notes.
func TestNotesFitTheLargestBatch(t *testing.T) {
	n := startNode(t)
	batch := func(ttl time.Duration, size int, kind storage.OpKind) {
		t.Helper()
		ops := make([]storage.Op, storage.MaxBatchOps)
		for i := range ops {
			ops[i] = storage.Op{Kind: kind, Ref: types.DataRef(types.Key(fmt.Sprintf("%0*d", types.MaxKeyLen, i))), Raw: true, TTL: ttl}
			if kind == storage.OpPut {
				ops[i].Value = make([]byte, size)
			}
		}
		if _, err := n.store.Write(t.Context(), ops, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{600, 800, 2<<10 - 300} {
		batch(48*time.Hour, size, storage.OpPut)
		batch(24*time.Hour, size, storage.OpPut) // each is forgotten sooner than what it replaces
		batch(0, size, storage.OpPut)
		batch(0, 0, storage.OpDelete)
	}
	list, err := n.store.HookEntries(storage.SpaceBackup, nil)
	if err != nil || len(list) != 6 {
		t.Errorf("%d notes, %v", len(list), err)
	}
}

func TestRetention(t *testing.T) {
	node := types.NodeID{1}
	now := time.UnixMilli(100 * 86_400_000)
	var all []Info
	id := byte(0)
	add := func(daysAgo int, kind Type, follows int) {
		id++
		info := Info{Name: fmt.Sprint(id), Header: Header{ID: ID{id}, Type: kind, Node: Member{UUID: node}, Created: now.AddDate(0, 0, -daysAgo).UnixMilli(), Sequence: uint64(id)}}
		if kind == Incremental {
			info.Follows, info.Since = ID{byte(follows)}, uint64(follows)
		}
		all = append(all, info)
	}
	add(30, Full, 0)         // 1: old
	add(29, Incremental, 1)  // 2: old
	add(20, Full, 0)         // 3: needed by 5
	add(15, Incremental, 3)  // 4: needed by 5
	add(3, Incremental, 4)   // 5: young
	add(14, Incremental, 3)  // 6: old, another branch
	add(10, Incremental, 99) // 7: old, and what it follows is not there
	add(2, Incremental, 98)  // 8: young, and what it follows is not there
	add(40, Full, 0)         // 9: of another node
	all[8].Node.UUID = types.NodeID{2}
	names := func(list []Info) (out []string) {
		for _, info := range list {
			out = append(out, info.Name)
		}
		return out
	}
	week := 7 * 24 * time.Hour
	if got := names(expired(all, node, now, week)); !slices.Equal(got, []string{"1", "2", "6", "7"}) {
		t.Errorf("removed: %v", got)
	}
	// However old all is, the newest full one stays.
	if got := names(expired(all, node, now.AddDate(1, 0, 0), week)); !slices.Equal(got, []string{"1", "2", "4", "5", "6", "7", "8"}) {
		t.Errorf("removed after a year: %v", got)
	}
}

// Files are removed, and only after a backup was made.
func TestPruning(t *testing.T) {
	n := startNode(t)
	n.put("a", "1")
	old := n.backup(Full)
	stranger := filepath.Join(n.dir, "kvs-n1-20200101T000000Z-full.kvsb") // ours by its name alone
	if err := os.WriteFile(stranger, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.now.Store(8 * 86_400)
	n.m.opts.create = func(string) (file, error) { return nil, syscall.ENOSPC }
	if _, err := n.m.Backup(t.Context(), Full); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(old.Path()); err != nil {
		t.Errorf("it was removed though no new one was made: %v", err)
	}
	n.m.opts.create = createFile
	n.backup(Full)
	if _, err := os.Stat(old.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error(err)
	}
}
