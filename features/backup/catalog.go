package backup

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"kvs/types"
)

// Info is what a backup says of itself, and where it is.
type Info struct {
	Header
	Trailer
	Name string // of the file
	Dir  string
	Size int64 // bytes
}

// Path is where the file is.
func (i *Info) Path() string { return filepath.Join(i.Dir, i.Name) }

const (
	extension = ".kvsb"
	timeForm  = "20060102T150405Z"
)

// fileName names a backup. A node's id holds nothing that is special in a path.
func fileName(nodeID string, created time.Time, t Type) string {
	return fmt.Sprintf("kvs-%s-%s-%s%s", nodeID, created.UTC().Format(timeForm), t, extension)
}

var namePattern = regexp.MustCompile(`^kvs-[A-Za-z0-9][A-Za-z0-9._-]*-\d{8}T\d{6}Z-(full|incremental)\.kvsb$`)

// temporary is the name of a file that is being written. It holds the node's
// UUID: whoever finds one that it did not just make knows whether it is its own.
func temporary(node types.NodeID, what string) string {
	return fmt.Sprintf(".kvs-%s-%s.tmp", node, what)
}

// removeLeftovers removes what an earlier process of this node did not finish.
func removeLeftovers(dir string, node types.NodeID) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var failed []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".kvs-"+node.String()+"-") && strings.HasSuffix(e.Name(), ".tmp") && e.Type().IsRegular() {
			failed = append(failed, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(append(failed, err)...)
}

// ReadInfo reads the two ends of a file, and nothing of what is between.
func ReadInfo(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: filepath.Base(path), Dir: filepath.Dir(path), Size: st.Size()}
	if !st.Mode().IsRegular() {
		return info, fmt.Errorf("%s is no file", path)
	}
	r, err := newReader(path, f)
	if err != nil {
		return info, err
	}
	defer r.close()
	info.Header = r.header
	info.Trailer, err = readTrailer(f, st.Size(), r)
	if err != nil {
		err = &DamageError{Name: path, Block: -1, Err: err}
	}
	return info, err
}

// readTrailer reads the last block, with a reader that has read the header.
func readTrailer(f io.ReaderAt, size int64, r *reader) (t Trailer, err error) {
	var end [endSize]byte
	if size < r.offset+endSize {
		return t, errCutShort
	}
	if _, err := f.ReadAt(end[:], size-endSize); err != nil {
		return t, err
	}
	at := binary.BigEndian.Uint64(end[:])
	if string(end[8:]) != endMagic || at < uint64(r.offset) || at > uint64(size-endSize) {
		return t, errCutShort
	}
	// As if all between had been read; the block knows its own number.
	var head [blockHead]byte
	if _, err := f.ReadAt(head[:], int64(at)); err != nil {
		return t, err
	}
	r.in.Reset(io.NewSectionReader(f, int64(at), size-endSize-int64(at)))
	r.block = int(binary.BigEndian.Uint32(head[1:])) - 1
	kind, payload, err := r.next()
	if err == nil && kind != blockEnd {
		err = errors.New("the last block is no trailer")
	}
	if err != nil {
		return t, err
	}
	return decodeTrailer(payload)
}

// List gives the backups in a directory, of whichever node, oldest first, and
// what is wrong with files that have the name of one.
func List(dir string) ([]Info, []error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []error{err}
	}
	var infos []Info
	var wrong []error
	for _, e := range entries {
		if !namePattern.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		info, err := ReadInfo(filepath.Join(dir, e.Name()))
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, older)
	return infos, wrong
}

// older is the order in which backups were made.
func older(a, b Info) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.Name, b.Name))
}

// chainOf gives the backups that info needs, itself the last, from the full one
// on. The error says which one is missing.
func chainOf(info Info, all []Info) ([]Info, error) {
	chain := []Info{info}
	for chain[0].Type == Incremental {
		first := &chain[0]
		i := slices.IndexFunc(all, func(o Info) bool { return o.ID == first.Follows && o.Node.UUID == first.Node.UUID })
		if i < 0 || all[i].Sequence != first.Since || slices.ContainsFunc(chain, func(o Info) bool { return o.ID == all[i].ID }) {
			return nil, fmt.Errorf("%s follows the backup %s, of sequence %d, which is not here", first.Name, first.Follows, first.Since)
		}
		chain = slices.Insert(chain, 0, all[i])
	}
	return chain, nil
}

// expired gives the backups of a node that are older than keep and that nothing
// needs: not the newest full one, nor what one that is kept follows.
func expired(all []Info, node types.NodeID, now time.Time, keep time.Duration) []Info {
	needed := make(map[ID]bool)
	need := func(info Info) {
		chain, err := chainOf(info, all)
		if err != nil {
			chain = []Info{info} // worth little, but young, and no reason to remove it
		}
		for _, c := range chain {
			needed[c.ID] = true
		}
	}
	newest := -1
	for i, info := range all {
		if info.Node.UUID != node {
			continue
		}
		if info.Type == Full && (newest < 0 || older(all[newest], info) < 0) {
			newest = i
		}
		if info.Created > now.Add(-keep).UnixMilli() {
			need(info)
		}
	}
	if newest >= 0 {
		needed[all[newest].ID] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(info Info) bool { return info.Node.UUID != node || needed[info.ID] })
}

// Verify reads a file as a whole.
func Verify(ctx context.Context, path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	return verifyFile(ctx, path, f)
}

func verifyFile(ctx context.Context, path string, f *os.File) (Info, error) {
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: filepath.Base(path), Dir: filepath.Dir(path), Size: st.Size()}
	var n int64
	info.Header, info.Trailer, n, err = verifySection(ctx, path, io.NewSectionReader(f, 0, st.Size()))
	if err == nil && n != st.Size() {
		err = &DamageError{Name: path, Block: -1, Err: fmt.Errorf("%d bytes follow its end", st.Size()-n)}
	}
	return info, err
}

// verifySection reads one backup as a whole, and gives its length.
func verifySection(ctx context.Context, name string, from io.Reader) (Header, Trailer, int64, error) {
	r, err := newReader(name, from)
	if err != nil {
		return Header{}, Trailer{}, 0, err
	}
	defer r.close()
	t, n, err := r.verify(ctx)
	return r.header, t, n, err
}
