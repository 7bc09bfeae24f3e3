package backup

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"kvs/storage"
	"kvs/types"
)

// note is a key that may have vanished.
type note struct {
	ref types.Ref
	vanished
}

func compareNotes(a, b note) int {
	return cmp.Or(compareRefs(a.ref, b.ref), cmp.Compare(a.at, b.at))
}

// notesMemory bounds the notes that are sorted in memory, in bytes. More of them
// are sorted in parts, which wait in files.
var notesMemory = 32 << 20

// noteWeight is what a note takes beside its key.
const noteWeight = 64

// notes are the notes of a snapshot that are later than a backup, by key, of each
// key the last one.
type notes struct {
	runs  []*noteRun
	files []*os.File
}

// noteRun is a part of the notes, sorted. It stands on the next one.
type noteRun struct {
	note
	ended bool
	left  []note  // in memory
	file  *reader // or in a file
}

func (r *noteRun) advance() error {
	if r.file != nil {
		e, err := r.file.entry()
		if r.ended = err == io.EOF; r.ended {
			return nil
		}
		r.note = note{e.rec.Ref, e.gone}
		return err
	}
	if r.ended = len(r.left) == 0; !r.ended {
		r.note, r.left = r.left[0], r.left[1:]
	}
	return nil
}

// newNotes reads the notes after a sequence number. spill makes a file for a part
// of them.
func newNotes(ctx context.Context, snap *storage.Snapshot, since uint64, spill func() (*os.File, error)) (_ *notes, err error) {
	n := &notes{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	var part []note
	size := 0
	if err := walkNotes(ctx, snap, since+1, func(page []storage.HookEntry) error {
		for _, e := range page {
			for rest := e.Value; len(rest) > 0; {
				var v entry
				var err error
				if v, rest, err = decodeEntry(rest); err == nil && v.kind != entryGone {
					err = fmt.Errorf("an entry of kind %d", v.kind)
				}
				if err != nil {
					return fmt.Errorf("%w: the notes for the backup at sequence %x: %w", types.ErrCorrupt, e.Key, err)
				}
				part = append(part, note{v.rec.Ref, v.gone})
				size += len(v.rec.Key) + noteWeight
			}
		}
		if size < notesMemory {
			return nil
		}
		err := n.spill(part, spill)
		part, size = nil, 0
		return err
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(part, compareNotes)
	return n, n.add(&noteRun{left: part})
}

func (n *notes) add(r *noteRun) error {
	n.runs = append(n.runs, r)
	return r.advance()
}

// spill sorts a part into a file, which is in the form of a backup.
func (n *notes) spill(part []note, create func() (*os.File, error)) error {
	f, err := create()
	if err != nil {
		return asDiskFull(err)
	}
	n.files = append(n.files, f)
	slices.SortFunc(part, compareNotes)
	to := bufio.NewWriter(f)
	w, err := newWriter(to, &Header{Type: Incremental, Since: 1, Sequence: 1})
	for i := range part {
		if last := i == len(part)-1 || part[i+1].ref != part[i].ref; err == nil && last {
			err = w.gone(part[i].ref, part[i].vanished)
		}
	}
	if err == nil {
		_, err = w.end()
	}
	if err == nil {
		err = to.Flush()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return asDiskFull(err)
	}
	r, err := newReader("the notes for the backup", f)
	if err != nil {
		return err
	}
	return n.add(&noteRun{file: r})
}

// next gives the next key that is noted; ok is false behind the last.
func (n *notes) next() (out note, ok bool, err error) {
	for _, r := range n.runs {
		if !r.ended && (!ok || compareRefs(r.ref, out.ref) < 0) {
			out.ref, ok = r.ref, true
		}
	}
	for _, r := range n.runs {
		for !r.ended && ok && r.ref == out.ref {
			if r.at >= out.at {
				out.vanished = r.vanished
			}
			if err := r.advance(); err != nil {
				return out, false, err
			}
		}
	}
	return out, ok, nil
}

// close releases the files, which have no names any more.
func (n *notes) close() {
	for _, r := range n.runs {
		if r.file != nil {
			r.file.close()
		}
	}
	for _, f := range n.files {
		f.Close()
	}
}
